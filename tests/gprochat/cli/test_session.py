"""A conversation has one client, for all its turns."""

import json
import threading
from email.utils import formatdate
from time import time

import pytest

from gprochat.cli.loops import TRANSPORTS
from gprochat_core import Service
from tests.peers.scripted import ScriptedPeer, receive, repeat, send
from tests.peers.wire import answer, chunked

from .running import on_terminal

AHEAD = 3600.0


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_second_turn_uses_the_first_ones_connection(transport: str) -> None:
    with ScriptedPeer([repeat(receive, send(chunked("fine")))]) as peer:
        service = Service(peer.url, secret_key="k")
        with on_terminal("chat", "--transport", transport, service=service) as terminal:
            for question in ("one", "two"):
                terminal.enter(question)
                terminal.expect("fine")
            terminal.enter("/quit")
            assert terminal.wait() == 0
        assert len(peer.requests) == 2
        assert len(peer.connections) == 1


def test_a_second_turn_is_signed_by_the_clock_that_the_first_one_learned() -> None:
    rejected = answer(401, "Invalid signature.", f"date: {formatdate(time() + AHEAD, usegmt=True)}")
    fine = send(chunked("fine"))
    with ScriptedPeer([receive, send(rejected), receive, fine, receive, fine]) as peer:
        with on_terminal("chat", service=Service(peer.url, secret_key="k")) as terminal:
            for question in ("one", "two"):
                terminal.enter(question)
                terminal.expect("fine")
            terminal.enter("/quit")
            assert terminal.wait() == 0
        late = [time() - json.loads(each.body)["time"] / 1000 for each in peer.requests]
    assert [each < -AHEAD / 2 for each in late] == [False, True, True]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_after_ctrl_c_the_connection_is_closed_before_the_next_question(transport: str) -> None:
    begun = threading.Event()
    half = chunked("half").removesuffix(b"0\r\n\r\n")
    scripts = (
        [receive, send(half), lambda _: begun.set(), receive],
        [receive, send(chunked("fine"))],
    )
    with ScriptedPeer(*scripts) as peer:
        service = Service(peer.url, secret_key="k")
        with on_terminal("chat", "--transport", transport, service=service) as terminal:
            terminal.enter("one")
            terminal.expect("half")
            terminal.type("\x03")
            terminal.enter("two")
            terminal.expect("fine")
            assert peer.connections[0].client_closed.is_set()
            terminal.enter("/quit")
            assert terminal.wait() == 0
