"""Threads: another thread sees the pieces, and may stop the reply."""

from queue import Queue
from threading import Event
from typing import Any

from gprochat_core import RetryPolicy, Service, TruncatedReply
from gprochat_transports.httpx import SyncClient
from tests.docs.pages import module_of
from tests.peers.scripted import (
    Script,
    ScriptedPeer,
    close,
    receive,
    send,
    set_event,
    until_client_closes,
    wait_for,
)
from tests.peers.wire import chunk, head

BEGINS: Script = [receive, send(head(200, "transfer-encoding: chunked") + chunk("begun"))]

ONCE = RetryPolicy(max_attempts=1)


def next_piece(question: Any) -> object:
    pieces: Queue[object] = question.pieces
    return pieces.get(timeout=10)


def test_another_thread_stops_a_reply() -> None:
    with (
        ScriptedPeer([*BEGINS, until_client_closes]) as peer,
        SyncClient(Service(peer.url, secret_key="made up")) as client,
    ):
        question = module_of("threads", "window.py").Question(client, "Hello")
        assert next_piece(question) == "begun"
        question.stop()
        assert next_piece(question) is None
        assert peer.connection(0).client_closed.wait(10)


def test_a_reply_that_is_stopped_before_its_head_ends_with_the_head() -> None:
    stopped, came = Event(), Event()
    script: Script = [receive, set_event(came), wait_for(stopped), *BEGINS[1:]]
    with (
        ScriptedPeer([*script, until_client_closes]) as peer,
        SyncClient(Service(peer.url, secret_key="made up")) as client,
    ):
        question = module_of("threads", "window.py").Question(client, "Hello")
        assert came.wait(10)
        question.stop()
        stopped.set()
        assert next_piece(question) is None
        assert peer.connection(0).client_closed.wait(10)


def test_a_reply_that_breaks_off_hands_over_its_error() -> None:
    with (
        ScriptedPeer([*BEGINS, close]) as peer,
        SyncClient(Service(peer.url, secret_key="made up"), retry=ONCE) as client,
    ):
        question = module_of("threads", "window.py").Question(client, "Hello")
        assert next_piece(question) == "begun"
        assert isinstance(next_piece(question), TruncatedReply)
        assert next_piece(question) is None
