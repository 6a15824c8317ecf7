"""The commands of a conversation."""

from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gprochat.server import in_thread, serve
from gprochat_core import Message, Service

from .running import on_terminal


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


def test_retry_asks_again_in_place_of_the_last_reply(counting: Service) -> None:
    with on_terminal("chat", "--plain", service=counting) as terminal:
        terminal.enter("/retry")
        terminal.expect("nothing has been asked yet")
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
        terminal.enter("/copy")
        terminal.expect("there is no reply to copy yet")
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


@pytest.mark.parametrize(("editor", "words"), [("true", "nothing to ask"), ("false", "set EDITOR")])
def test_without_a_saved_text_nothing_is_asked(counting: Service, editor: str, words: str) -> None:
    variables = {"EDITOR": editor, "VISUAL": editor}
    with on_terminal("chat", service=counting, variables=variables) as terminal:
        terminal.enter("/edit")
        terminal.expect(words)
        terminal.enter("one")
        terminal.expect("reply 1 to 1: one")
        terminal.enter("/quit")
        assert terminal.wait() == 0


def test_the_help_is_honest_about_the_model(counting: Service) -> None:
    with on_terminal("chat", service=counting) as terminal:
        terminal.enter("/help")
        terminal.expect("/retry")
        terminal.expect("The service chooses its model")
        terminal.enter("/model gemini")
        terminal.expect("the service chooses its model")
        terminal.enter("/quit")
        assert terminal.wait() == 0
