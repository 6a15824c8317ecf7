"""The conversation on a terminal: turns, Ctrl-C, and the commands such as /save."""

import json
from pathlib import Path

import pytest

from gprochat.cli.loops import TRANSPORTS
from gprochat_core import Service
from tests.installations import run_with

from .running import PROMPT, imported_by, on_terminal

CTRL_C = "\x03"
CTRL_D = "\x04"
UP = "\x1b[A"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_turns_follow_one_another_and_remember(stalling: Service, transport: str) -> None:
    with on_terminal("chat", "--transport", transport, service=stalling) as terminal:
        terminal.enter("one")
        terminal.expect("1 heard: one\r\n")
        terminal.enter("two")
        terminal.expect("3 heard: two\r\n")
        terminal.enter("/quit")
        assert terminal.wait() == 0


def test_ctrl_d_leaves(stalling: Service) -> None:
    with on_terminal("chat", service=stalling) as terminal:
        terminal.expect(PROMPT)
        terminal.type(CTRL_D)
        assert terminal.wait() == 0


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_ctrl_c_ends_an_answer_keeps_it_and_returns_to_the_prompt(
    stalling: Service, tmp_path: Path, transport: str
) -> None:
    history = tmp_path / "history.json"
    options = ["--transport", transport, "--history", str(history)]
    with on_terminal("chat", *options, service=stalling) as terminal:
        terminal.enter("wait")
        terminal.expect("1 heard:")
        terminal.type(CTRL_C)
        terminal.enter("go on")
        terminal.expect("3 heard: go on")
        terminal.enter("/quit")
        assert terminal.wait() == 0
    contents = [item["content"] for item in json.loads(history.read_text())]
    assert contents == ["wait", "1 heard: ", "go on", "3 heard: go on"]


def test_ctrl_c_at_the_prompt_drops_the_line_and_stays(stalling: Service) -> None:
    with on_terminal("chat", service=stalling) as terminal:
        terminal.expect(PROMPT)
        terminal.type(f"dropped{CTRL_C}")
        terminal.enter("kept")
        terminal.expect("1 heard: kept")
        terminal.enter("/quit")
        assert terminal.wait() == 0


def test_an_earlier_line_can_be_called_back(stalling: Service) -> None:
    with on_terminal("chat", service=stalling) as terminal:
        terminal.enter("again")
        terminal.expect("1 heard: again")
        terminal.enter(UP)
        terminal.expect("3 heard: again")
        terminal.enter("/quit")
        assert terminal.wait() == 0


def test_reset_forgets_all_but_the_system_text(stalling: Service) -> None:
    options = ["--system", "Be brief.", "--encoding", "content"]
    with on_terminal("chat", *options, service=stalling) as terminal:
        terminal.enter("one")
        terminal.expect("2 heard: one")
        terminal.enter("/reset")
        terminal.enter("two")
        terminal.expect("2 heard: two")
        terminal.enter("/quit")
        assert terminal.wait() == 0


def test_a_conversation_is_saved_and_loaded(stalling: Service, tmp_path: Path) -> None:
    file = tmp_path / "a name with blanks.json"
    with on_terminal("chat", service=stalling) as terminal:
        terminal.enter("one")
        terminal.expect("1 heard: one")
        terminal.enter(f"/save {file}")
        terminal.expect("saved 2 messages")
        terminal.enter("/reset")
        terminal.enter(f"/load {file}")
        terminal.expect("loaded 2 messages")
        terminal.enter("two")
        terminal.expect("3 heard: two")
        terminal.enter("/quit")
        assert terminal.wait() == 0
    assert [item["content"] for item in json.loads(file.read_text())] == ["one", "1 heard: one"]


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("/save", "/save needs FILE"),
        ("/load ", "/load needs FILE"),
        ("/load missing.json", "No such file"),
        ("/save missing/history.json", "No such file"),
        ("/dance", "there is no command /dance"),
        ("/quit now", "/quit takes no argument"),
        ("/reset all", "/reset takes no argument"),
    ],
)
def test_after_a_wrong_command_the_conversation_goes_on(
    stalling: Service, command: str, complaint: str
) -> None:
    with on_terminal("chat", service=stalling) as terminal:
        terminal.enter(command)
        terminal.expect(complaint)
        terminal.enter("/help")
        terminal.expect("/load FILE")
        terminal.enter("/quit")
        assert terminal.wait() == 0


def test_a_failed_load_leaves_the_conversation_as_it_was(stalling: Service, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("[")
    with on_terminal("chat", service=stalling) as terminal:
        terminal.enter("one")
        terminal.expect("1 heard: one")
        terminal.enter(f"/load {broken}")
        terminal.expect("is not JSON")
        terminal.enter("two")
        terminal.expect("3 heard: two")
        terminal.enter("/quit")
        assert terminal.wait() == 0


def test_after_an_error_the_conversation_goes_on() -> None:
    nowhere = Service("http://127.0.0.1:1", secret_key="k")
    with on_terminal("chat", "--proxy", "none", service=nowhere) as terminal:
        terminal.enter("one")
        terminal.expect("check URL, network and proxy")
        terminal.enter("/quit")
        assert terminal.wait() == 0


def test_a_line_that_begins_with_a_space_is_never_a_command(stalling: Service) -> None:
    with on_terminal("chat", service=stalling) as terminal:
        terminal.enter(" /quit")
        terminal.expect("1 heard:  /quit")
        terminal.enter("/quit")
        assert terminal.wait() == 0


def test_an_empty_line_asks_nothing(stalling: Service) -> None:
    with on_terminal("chat", service=stalling) as terminal:
        terminal.enter("")
        terminal.enter("one")
        terminal.expect("1 heard: one")
        terminal.enter("/quit")
        assert terminal.wait() == 0


def test_a_conversation_with_the_embedded_service() -> None:
    with on_terminal("chat", "--local") as terminal:
        terminal.enter("Привет 🙂")
        terminal.expect("Привет 🙂\r\n")
        terminal.enter("/quit")
        assert terminal.wait() == 0


def test_the_line_editor_is_not_imported_without_a_conversation() -> None:
    assert "prompt_toolkit" not in imported_by("chat", "--local", "Hi")


def test_without_the_line_editor_the_error_names_the_extra() -> None:
    run = run_with(["click"], "import gprochat.cli.editor")
    assert run.returncode == 1
    assert "pip install 'gprochat[cli]'" in run.stderr.splitlines()[-1]
