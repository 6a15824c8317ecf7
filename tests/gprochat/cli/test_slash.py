"""The commands of a conversation."""

from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from gprochat.cli.chat import Chat
from gprochat.cli.failures import Failed, WrongUsage
from gprochat.cli.history import load
from gprochat.cli.loops import choose
from gprochat.cli.output import TextOutput
from gprochat.cli.session import Session
from gprochat.cli.slash import Leave, obey
from gprochat.cli.waiting import WaitingLine
from gprochat.server import in_thread, serve
from gprochat_core import Message, Service

from .running import on_terminal, screen_of

SPOKEN = [Message("user", "one"), Message("assistant", "1")]


def chat_with(*messages: Message) -> Chat:
    """A chat about to be told something; it asks nothing."""
    session = Session(choose(None), start, Service("http://127.0.0.1:1", secret_key="k"), None)
    return Chat(session, TextOutput(), WaitingLine(plain=True), messages=messages)


def start(_: object) -> NoReturn:
    raise AssertionError("nothing is to be asked")


@pytest.fixture
def counting() -> Iterator[Service]:
    """A service that says how many questions it has had, how long each conversation is, and the
    first message's text."""
    count = 0

    async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
        nonlocal count
        count += 1
        if messages[-1].text == "fail" and count == 1:
            raise ValueError("API key not valid")
        yield f"reply {count} to {len(messages)}: {messages[0].text}"

    with in_thread(serve(answer, grace=0.0)) as server:
        yield server.service


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("/save", "/save needs FILE"),
        ("/load ", "/load needs FILE"),
        ("/load missing.json", "No such file"),
        ("/save missing/history.json", "No such file"),
        ("/dance", "there is no command /dance; /help lists them; to ask a question, type a space"),
        ("/model gemini", "the service chooses its model"),
        ("/quit now", "/quit takes no argument; to ask a question, type a space before it"),
        ("/reset all", "/reset takes no argument"),
        ("/retry", "nothing has been asked yet"),
        ("/copy", "there is no reply to copy yet"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(command: str, complaint: str) -> None:
    with pytest.raises(Failed) as failed:
        obey(chat_with(), command)
    assert complaint in failed.value.message


@pytest.mark.parametrize("command", ["/quit", "/exit"])
def test_a_conversation_is_left(command: str) -> None:
    with pytest.raises(Leave):
        obey(chat_with(), command)


def test_reset_forgets_all_but_the_instructions() -> None:
    chat = chat_with(Message("system", "Be brief."), *SPOKEN)
    obey(chat, "/reset")
    assert chat.messages == [Message("system", "Be brief.")]


def test_a_conversation_is_saved_and_loaded_under_any_name(tmp_path: Path) -> None:
    file = tmp_path / "a name with blanks.json"
    chat = chat_with(*SPOKEN)
    obey(chat, f"/save {file}")
    obey(chat, "/reset")
    obey(chat, f"/load  {file} ")
    assert chat.messages == SPOKEN
    assert load(file) == SPOKEN


def test_a_failed_load_leaves_the_conversation_as_it_was(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("[")
    chat = chat_with(*SPOKEN)
    with pytest.raises(WrongUsage, match="is not JSON"):
        obey(chat, f"/load {broken}")
    assert chat.messages == SPOKEN


def test_retry_asks_again_in_place_of_the_last_reply(counting: Service) -> None:
    with on_terminal("chat", "--plain", service=counting) as terminal:
        terminal.enter("one")
        terminal.expect("reply 1 to 1: one")
        terminal.enter("/retry")
        terminal.expect("reply 2 to 1: one")
        terminal.enter("two")
        terminal.expect("reply 3 to 3: one")
        terminal.enter("/quit")
        assert terminal.wait() == 0


def test_retry_asks_a_question_again_that_had_no_reply(counting: Service) -> None:
    with on_terminal("chat", "--plain", service=counting) as terminal:
        terminal.enter("fail")
        terminal.expect("API key not valid")
        terminal.enter("/retry")
        terminal.expect("reply 2 to 1: fail")
        terminal.enter("/quit")
        assert terminal.wait() == 0


def test_copy_sends_the_last_reply_to_the_terminals_clipboard(counting: Service) -> None:
    with on_terminal("chat", "--plain", service=counting) as terminal:
        terminal.enter("Привет")
        terminal.expect("reply 1 to 1: Привет")
        terminal.enter("/copy")
        encoded = b64encode("reply 1 to 1: Привет".encode()).decode()
        terminal.expect(f"\x1b]52;c;{encoded}\x07")
        terminal.enter("/quit")
        assert terminal.wait() == 0


def test_system_sets_and_shows_the_instructions(counting: Service) -> None:
    with on_terminal("chat", "--plain", "--encoding", "content", service=counting) as terminal:
        terminal.enter("/system")
        terminal.expect("there are no instructions")
        terminal.enter("/system Be brief.")
        terminal.enter("one")
        terminal.expect("reply 1 to 2: Be brief.")
        terminal.enter("/system Be kind.")
        terminal.enter("/system")
        terminal.expect("Be kind.\r\n")
        terminal.enter("two")
        terminal.expect("reply 2 to 4: Be kind.")
        terminal.enter("/quit")
        assert terminal.wait() == 0


def test_edit_asks_what_the_editor_saved(counting: Service, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nprintf "first\\nsecond\\n" >> "$1"\n')
    editor.chmod(0o755)
    variables = {"EDITOR": str(editor), "VISUAL": str(editor)}
    with on_terminal("chat", "--plain", service=counting, variables=variables) as terminal:
        terminal.enter("/edit zeroth ")
        terminal.expect("reply 1 to 1: zeroth")
        terminal.expect("second")
        terminal.enter("/quit")
        assert terminal.wait() == 0


@pytest.mark.parametrize(("editor", "words"), [("true", "nothing to ask"), ("false", "set VISUAL")])
def test_without_a_saved_text_nothing_is_asked(counting: Service, editor: str, words: str) -> None:
    variables = {"EDITOR": editor, "VISUAL": editor}
    with on_terminal("chat", service=counting, variables=variables) as terminal:
        terminal.enter("/edit")
        terminal.expect(words)
        terminal.enter("one")
        terminal.expect("reply 1 to 1: one")
        terminal.enter("/quit")
        assert terminal.wait() == 0


@pytest.mark.parametrize(
    ("editor", "complaint"),
    [
        ("/missing/vi", "No such file or directory: '/missing/vi'; set VISUAL to a program"),
        ("vi '", "No closing quotation; set VISUAL to a program"),
        ("""sh -c 'printf "\\351" > "$0"'""", "the text is not UTF-8"),
        ("rm", "cannot edit a temporary file: No such file or directory; type the question"),
    ],
)
def test_an_editor_that_fails_is_a_complaint_and_the_chat_goes_on(
    monkeypatch: pytest.MonkeyPatch, editor: str, complaint: str
) -> None:
    monkeypatch.setenv("VISUAL", editor)
    monkeypatch.setenv("EDITOR", "true")
    with pytest.raises(Failed) as failed:
        obey(chat_with(), "/edit")
    assert complaint in failed.value.message


@pytest.mark.parametrize("columns", [40, 80])
def test_the_help_fits_the_terminal_and_is_honest_about_the_model(columns: int) -> None:
    with on_terminal("chat", "--local", columns=columns, lines=60) as terminal:
        terminal.enter("/help")
        terminal.enter("/quit")
        assert terminal.wait() == 0
    shown = [line.rstrip() for line in screen_of(terminal, columns, 60).display]
    words = " ".join(" ".join(shown).split())
    assert "/edit TEXT write the question in $VISUAL or $EDITOR; TEXT is put into it" in words
    assert "The service chooses its model; no command can choose another one." in words
