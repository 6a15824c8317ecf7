"""A reply on a terminal, in a pipe, and as JSON lines."""

import json
import threading
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gprochat.cli.output import JSONOutput, TextOutput, one_line, printable
from gprochat.server import in_thread, serve
from gprochat_core import Service, TruncatedReply
from tests.peers.scripted import ScriptedPeer, receive, set_event, until_client_closes

from .running import (
    LIMIT,
    answer_of,
    invoke,
    lines_of,
    on_terminal,
    run,
    screen_of,
)

RUSSIAN = "Как дела? 🙂"


@given(st.text())
@example("\x1b[2J\x9b\x7f\r")
def test_printable_text_holds_no_control_but_line_breaks_and_tabs(text: str) -> None:
    controls = {each for each in printable(text) if unicodedata.category(each) == "Cc"}
    assert controls <= {"\n", "\t"}


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_printable_text_is_otherwise_unchanged(text: str) -> None:
    assert printable(text) == text


def test_controls_are_made_visible() -> None:
    assert printable("a\x1bb\x00c\x7fd\x85e\r\n\tf") == "a␛b␀c␡d\ufffde\n\tf"


@given(st.text())
def test_one_line_is_one_line(text: str) -> None:
    assert "\n" not in one_line(text)


@pytest.mark.parametrize("text", ["a\nb", "a\u2028b\u2029c\x85d", "\x9b31m\x7f\x1b", "Привет"])
def test_a_piece_is_one_json_line_that_holds_all_of_it(
    capsys: pytest.CaptureFixture[str], text: str
) -> None:
    JSONOutput().write(text)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"type": "text", "text": text}


def test_text_that_only_the_error_holds_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    output = TextOutput()
    output.write("half")
    output.fail(TruncatedReply("cut off", text="half Int"))
    assert capsys.readouterr().out == "half Int"
    assert output.text == "half Int"


def test_a_reply_cannot_control_the_terminal() -> None:
    hostile = answer_of("\x1b]0;owned\x07", "\x1b[2J\x9b31m", "fine\r\nnext")
    with (
        in_thread(serve(hostile)) as server,
        on_terminal("chat", "--plain", "Hello", service=server.service) as terminal,
    ):
        terminal.expect("fine\r\nnext")
        assert terminal.wait() == 0
    assert not set(terminal.seen) & {"\x1b", "\x07", "\x9b"}
    assert terminal.seen.endswith("next\r\n")


def test_a_reply_goes_into_a_pipe_unchanged() -> None:
    colourful = "\x1b[31mred\x1b[0m\r\n"
    with in_thread(serve(answer_of(colourful))) as server:
        result = invoke("chat", "Hello", service=server.service)
    assert result.stdout_bytes.decode() == colourful


@pytest.mark.parametrize("reply", ["Hello", "Hello\n"])
def test_a_reply_ends_with_one_line_break_in_a_pipe_if_asked_to(reply: str) -> None:
    with in_thread(serve(answer_of(reply))) as server:
        result = invoke("chat", "--newline", "Hi", service=server.service)
    assert result.stdout == "Hello\n"


def test_a_reply_ends_with_one_line_break_on_a_terminal(service: Service) -> None:
    with on_terminal("chat", "--plain", "Hello", service=service) as terminal:
        assert terminal.wait() == 0
    assert terminal.seen == "Hello\r\n"


def test_ctrl_c_before_the_first_word_leaves_a_clean_line() -> None:
    asked = threading.Event()
    with ScriptedPeer([receive, set_event(asked), until_client_closes]) as peer:
        service = Service(peer.url, secret_key="k")
        with on_terminal("chat", "Hello", service=service) as terminal:
            assert asked.wait(LIMIT)
            terminal.type("\x03")
            assert terminal.wait() == 130
    assert screen_of(terminal).cursor.x == 0


@pytest.mark.parametrize("columns", [20, 40])
def test_a_message_is_broken_between_words_on_a_narrow_terminal(columns: int) -> None:
    with on_terminal("chat", "--url", "chat.example", "Hi", columns=columns) as terminal:
        assert terminal.wait() == 1
    said = " ".join(terminal.seen.split())
    assert said.startswith("gprochat: the service's URL must begin with https:// or http://;")
    assert all(
        len(line) < max(columns, len("https://chat.example")) + 1
        for line in terminal.seen.split("\r\n")
    )


def test_text_that_the_locale_cannot_encode_is_no_failure(service: Service) -> None:
    done = run("chat", "né 🙂", service=service, variables={"PYTHONIOENCODING": "latin-1:strict"})
    assert (done.stdout, done.stderr, done.returncode) == ("n\\xe9 ?", "", 0)


def test_a_terminal_whose_encoding_lacks_the_bullet_gets_the_bare_text(service: Service) -> None:
    with on_terminal(
        "chat", "* a *list*", service=service, variables={"PYTHONIOENCODING": "latin-1"}
    ) as terminal:
        assert terminal.wait() == 0
    assert terminal.seen == "* a *list*\r\n"


def test_json_lines_are_the_pieces_and_an_end(service: Service) -> None:
    result = invoke("chat", "--json", RUSSIAN, service=service)
    *pieces, end = lines_of(result.stdout)
    assert "".join(piece["text"] for piece in pieces) == RUSSIAN
    assert {piece["type"] for piece in pieces} == {"text"}
    assert end == {"type": "end", "text": RUSSIAN}


def test_json_lines_hold_other_alphabets_unescaped(service: Service) -> None:
    assert RUSSIAN in invoke("chat", "--json", RUSSIAN, service=service).stdout


def test_json_lines_are_utf_8_whatever_the_locale(service: Service) -> None:
    done = run(
        "chat", "--json", RUSSIAN, service=service, variables={"PYTHONIOENCODING": "ascii:strict"}
    )
    assert lines_of(done.stdout)[-1]["text"] == RUSSIAN
