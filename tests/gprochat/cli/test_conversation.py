"""The conversation on a terminal: turns, Ctrl-C, and the commands such as /save."""

import json
import threading
from pathlib import Path

import pytest

from gprochat.cli.loops import TRANSPORTS
from gprochat_core import Service
from tests.installations import run_with
from tests.peers.scripted import (
    ScriptedPeer,
    receive,
    send,
    set_event,
    until_client_closes,
)
from tests.peers.wire import chunked

from .running import LIMIT, PROMPT, imported_by, on_terminal, screen_of

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


def test_after_an_error_and_after_a_wrong_command_the_conversation_goes_on() -> None:
    nowhere = Service("http://127.0.0.1:1", secret_key="k")
    with on_terminal("chat", "--proxy", "none", service=nowhere) as terminal:
        terminal.enter("one")
        terminal.expect("check URL, network and proxy")
        terminal.enter("/dance")
        terminal.expect("there is no command /dance")
        terminal.enter("/quit")
        assert terminal.wait() == 0


def test_an_empty_line_asks_nothing_and_a_space_in_front_makes_a_command_a_question(
    stalling: Service,
) -> None:
    with on_terminal("chat", service=stalling) as terminal:
        terminal.enter("")
        terminal.enter(" /quit")
        terminal.expect("1 heard:  /quit")
        terminal.enter("/quit")
        assert terminal.wait() == 0


@pytest.mark.parametrize("options", [[], ["--plain"]], ids=["rendered", "plain"])
def test_ctrl_c_before_and_after_the_first_word_leaves_a_clean_line(options: list[str]) -> None:
    asked = threading.Event()
    half = chunked("half").removesuffix(b"0\r\n\r\n")
    with ScriptedPeer(
        [receive, set_event(asked), until_client_closes],
        [receive, send(half), until_client_closes],
    ) as peer:
        service = Service(peer.url, secret_key="k")
        with on_terminal("chat", *options, service=service) as terminal:
            terminal.enter("one")
            assert asked.wait(LIMIT)
            terminal.type(CTRL_C)
            terminal.enter("two")
            terminal.expect("half")
            terminal.type(CTRL_C)
            terminal.enter("/quit")
            assert terminal.wait() == 0
    shown = [line.rstrip() for line in screen_of(terminal).display if line.strip()][1:]
    prompts = [line for line in shown if ">" in line]
    assert prompts == ["> one", "> two", "> /quit"]
    assert "half" in shown or "half^C" in shown


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
