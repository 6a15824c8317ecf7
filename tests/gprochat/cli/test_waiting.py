"""The line that says what a chat waits for."""

import sys
import threading
from io import BytesIO, TextIOWrapper

import pytest

from gprochat.cli.session import Retry
from gprochat.cli.waiting import WaitingLine, long_words, short_words
from gprochat_core import (
    ConnectError,
    GPROChatError,
    InterruptedReply,
    RateLimited,
    Service,
    ServiceFailed,
    SignatureRejected,
)
from tests.peers.scripted import ScriptedPeer, receive, send, wait_for
from tests.peers.wire import answer, chunked

from .running import LIMIT, forked, on_terminal, screen_of

BUSY = answer(429, "", "retry-after: 1")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (80, "rate limited, trying again in 1 s, attempt 2 of 3"),
        (40, "rate limited, again in 1 s"),
    ],
)
def test_a_retry_says_what_it_waits_for_and_is_cleared_when_text_comes(
    columns: int, words: str
) -> None:
    with ScriptedPeer([receive, send(BUSY), receive, send(chunked("fine"))]) as peer:
        service = Service(peer.url, secret_key="k")
        with on_terminal("chat", "Hi", service=service, columns=columns) as terminal:
            terminal.expect(words)
            terminal.expect("fine")
            assert terminal.wait() == 0
    assert [line.rstrip() for line in screen_of(terminal, columns).display if line.strip()] == [
        "fine"
    ]


@pytest.mark.parametrize(
    ("columns", "words"), [(80, "waiting for the first word"), (20, "waiting")]
)
def test_before_the_first_word_a_line_moves(columns: int, words: str) -> None:
    go_on = threading.Event()
    with ScriptedPeer([receive, wait_for(go_on), send(chunked("fine"))]) as peer:
        service = Service(peer.url, secret_key="k")
        with on_terminal("chat", "Hi", service=service, columns=columns) as terminal:
            for _ in range(3):
                terminal.expect(words)
            go_on.set()
            terminal.expect("fine")
            assert terminal.wait() == 0
    assert screen_of(terminal, columns).display[0].rstrip() == "fine"


@pytest.mark.parametrize(
    ("options", "variables"), [(["--plain"], {}), ([], {"TERM": "dumb"})], ids=["option", "dumb"]
)
def test_where_nothing_may_move_a_retry_is_one_line_that_stays(
    options: list[str], variables: dict[str, str]
) -> None:
    with (
        ScriptedPeer([receive, send(BUSY), receive, send(chunked("fine"))]) as peer,
        on_terminal(
            "chat", *options, "Hi", service=Service(peer.url, secret_key="k"), variables=variables
        ) as terminal,
    ):
        assert terminal.wait() == 0
    assert terminal.seen == "rate limited, trying again in 1 s, attempt 2 of 3\r\nfine\r\n"


def test_without_a_terminal_nothing_is_said() -> None:
    with (
        ScriptedPeer([receive, send(BUSY), receive, send(chunked("fine"))]) as peer,
        forked("chat", "Hi", service=Service(peer.url, secret_key="k")) as process,
    ):
        assert process.communicate(timeout=LIMIT) == ("fine", "")


@pytest.mark.parametrize(("encoding", "frame"), [("cp1252", "/"), ("utf-8", "⠙")])
def test_the_spinner_is_of_characters_that_the_terminal_has(
    encoding: str, frame: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoding such as cp1252 is that of many a terminal on Windows."""
    written = BytesIO()
    terminal = TextIOWrapper(written, encoding=encoding)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    line = WaitingLine(plain=False)
    line.begin()
    line.tick()
    assert written.getvalue().decode(encoding) == f"\r\x1b[K{frame} waiting for the first word, 0 s"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RateLimited("quota", status=429), "rate limited"),
        (ConnectError("no route"), "no connection"),
        (SignatureRejected("stale", status=401), "the clock was wrong"),
        (InterruptedReply("cut", text=""), "the model failed"),
        (ServiceFailed("down", status=503), "the service failed"),
    ],
)
def test_the_line_names_the_cause(error: GPROChatError, cause: str) -> None:
    retry = Retry(3, 11.2, error)
    assert long_words(retry, 11.2) == f"{cause}, trying again in 12 s, attempt 3 of 3"
    assert short_words(retry, 0.1) == f"{cause}, again in 1 s"


def test_an_attempt_that_is_not_counted_has_no_last_one() -> None:
    words = long_words(Retry(4, 1.0, ConnectError("no route")), 1.0)
    assert words == "no connection, trying again in 1 s, attempt 4"
