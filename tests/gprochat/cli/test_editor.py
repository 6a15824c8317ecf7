"""The line editor: several lines, what was typed before, and completion."""

import resource
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprochat.cli.editor import in_block, typed_before, unwrap
from gprochat_core import Service

from .running import PROMPT, Terminal, on_terminal

ALT_ENTER = "\x1b\r"
CTRL_R = "\x12"
TAB = "\t"


def leave(terminal: Terminal) -> None:
    terminal.enter("/quit")
    assert terminal.wait() == 0


def test_alt_enter_begins_a_new_line_and_enter_asks(stalling: Service) -> None:
    with on_terminal("chat", "--plain", service=stalling) as terminal:
        terminal.enter(f"one{ALT_ENTER}two")
        terminal.expect("1 heard: one\r\ntwo\r\n")
        leave(terminal)


def test_a_block_is_asked_without_its_marks_and_is_never_a_command(stalling: Service) -> None:
    with on_terminal("chat", "--plain", service=stalling) as terminal:
        terminal.enter('"""\r/quit\r\rtwo\r"""')
        terminal.expect("1 heard: /quit\r\n\r\ntwo\r\n")
        leave(terminal)


def test_a_terminal_without_a_cursor_takes_lines_and_blocks_and_gets_no_controls() -> None:
    with on_terminal("chat", "--local", variables={"TERM": "dumb"}) as terminal:
        terminal.expect("> ")
        terminal.type("one\r")
        terminal.expect("> ")
        terminal.type('"""\rtwo\r\rthree\r"""\r')
        terminal.expect("\ntwo\r\n\r\nthree\r\n> ")
        terminal.type("dropped\x03\r")
        terminal.expect("\n> ")
        terminal.type("\x04")
        assert terminal.wait() == 0
    assert terminal.seen.endswith("> \r\n")
    assert "\x1b" not in terminal.seen


def test_an_empty_block_asks_nothing(stalling: Service) -> None:
    with on_terminal("chat", "--plain", service=stalling) as terminal:
        terminal.enter('"""\r\r"""')
        terminal.enter("one")
        terminal.expect("1 heard: one")
        leave(terminal)


@given(st.text("a\n/ ").filter(lambda text: '"""' not in text))
def test_a_block_is_what_stands_between_its_marks(text: str) -> None:
    typed = f'"""\n{text}\n"""'
    assert unwrap(typed) == text
    assert not in_block(typed)
    assert in_block(f'"""\n{text}')
    assert unwrap(text) is None


def test_what_was_typed_is_found_in_a_later_conversation_and_is_private(
    stalling: Service, home: Path
) -> None:
    with on_terminal("chat", service=stalling) as terminal:
        terminal.enter("a question")
        terminal.expect("1 heard: a question")
        leave(terminal)
    with on_terminal("chat", service=stalling) as terminal:
        terminal.expect(PROMPT)
        terminal.type(f"{CTRL_R}quest")
        terminal.expect("quest\x1b[0mion")
        terminal.type("\r\r")
        terminal.expect("1 heard: a question")
        leave(terminal)
    file = home / "data" / "gprochat" / "typed"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert "+a question" in file.read_text()


def test_a_folder_that_cannot_be_written_is_no_reason_not_to_chat(
    stalling: Service, home: Path
) -> None:
    (home / "data").write_text("no folder")
    with on_terminal("chat", service=stalling) as terminal:
        terminal.enter("one")
        terminal.expect("1 heard: one")
        leave(terminal)


def test_a_file_that_cannot_grow_is_no_reason_not_to_chat() -> None:
    typed = typed_before()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        typed.append_string("a question")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert typed.get_strings() == ["a question"]


def test_tab_completes_a_command_and_the_name_of_a_file(stalling: Service, tmp_path: Path) -> None:
    (tmp_path / "conversation.json").write_text('["earlier"]')
    with on_terminal("chat", service=stalling, columns=200) as terminal:
        terminal.expect(PROMPT)
        terminal.type(f"/lo{TAB}")
        terminal.expect("ad")
        terminal.type(f"{tmp_path}/conv{TAB}")
        terminal.expect("ersation.json")
        terminal.type("\r")
        terminal.expect("loaded 1 messages")
        leave(terminal)


@pytest.mark.parametrize("columns", [20, 40])
def test_a_long_line_can_be_typed_on_a_narrow_terminal(stalling: Service, columns: int) -> None:
    question = " ".join(map(str, range(20)))
    with on_terminal("chat", "--plain", service=stalling, columns=columns) as terminal:
        terminal.enter(question)
        terminal.expect(f"1 heard: {question}")
        leave(terminal)
