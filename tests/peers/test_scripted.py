"""The scripted peer itself: it plays to the letter, and what it cannot play it says."""

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from tests.peers.scripted import (
    ScriptedPeer,
    close_write,
    closed_port,
    deaf_port,
    pause,
    receive,
    repeat,
    reset,
    send,
    until_client_closes,
    wait_for,
)

REQUEST = b"POST /x HTTP/1.1\r\nHost: a\r\ncontent-length: 3\r\n\r\nabc"


@contextmanager
def connection(peer: ScriptedPeer) -> Generator[socket.socket, None, None]:
    with socket.create_connection(("127.0.0.1", peer.port), timeout=5) as sock:
        yield sock


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def test_each_connection_plays_its_own_script_and_the_last_one_plays_on() -> None:
    with ScriptedPeer([send(b"one")], [send(b"two")]) as peer:
        heard: list[bytes] = []
        for _ in range(3):
            with connection(peer) as sock:
                heard.append(read_all(sock))
    assert heard == [b"one", b"two", b"two"]


def test_requests_are_recorded_as_they_came() -> None:
    with ScriptedPeer([repeat(receive, send(b"."))]) as peer, connection(peer) as sock:
        sock.sendall(REQUEST[:20])
        sock.sendall(REQUEST[20:] + REQUEST)
        assert sock.recv(1, socket.MSG_WAITALL) + sock.recv(1) == b".."
        sock.shutdown(socket.SHUT_WR)
        assert peer.connections[0].client_closed.wait(5)
    assert len(peer.requests) == 2
    for request in peer.requests:
        assert request.head + request.body == REQUEST
        assert request.fields == [("Host", "a"), ("content-length", "3")]


def test_a_reset_is_a_reset() -> None:
    with (
        ScriptedPeer([receive, reset]) as peer,
        connection(peer) as sock,
    ):
        sock.sendall(REQUEST)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_the_writing_side_can_end_alone() -> None:
    with (
        ScriptedPeer([send(b"all"), close_write, receive]) as peer,
        connection(peer) as sock,
    ):
        assert read_all(sock) == b"all"
        sock.sendall(REQUEST)
        assert peer.connections[0].ended.wait(5)
    assert len(peer.requests) == 1


def test_a_client_that_closes_ends_the_script_and_is_recorded() -> None:
    with ScriptedPeer([until_client_closes, pause(60)]) as peer:
        with connection(peer):
            pass
        assert peer.connection(0).client_closed.wait(5)
    assert peer.connections[0].client_closed_at is not None


def test_leaving_the_block_stops_a_script_that_waits() -> None:
    with (
        ScriptedPeer([pause(60)], [receive], [wait_for(threading.Event())]) as peer,
        connection(peer),
        connection(peer),
        connection(peer),
    ):
        peer.connection(2)


def test_a_client_that_stays_silent_for_too_long_is_a_loud_failure() -> None:
    def talk() -> None:
        with ScriptedPeer([receive], limit=0.05) as peer, connection(peer) as sock:
            read_all(sock)

    with pytest.raises(ExceptionGroup) as caught:
        talk()
    assert isinstance(caught.value.exceptions[0], TimeoutError)


def test_a_script_that_raises_is_a_loud_failure() -> None:
    def talk() -> None:
        with ScriptedPeer([lambda _: 1 / 0]) as peer, connection(peer) as sock:
            read_all(sock)

    with pytest.raises(ExceptionGroup) as caught:
        talk()
    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)


def test_a_closed_port_refuses() -> None:
    with closed_port() as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_deaf_port_neither_accepts_nor_refuses() -> None:
    with deaf_port() as port, pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", port), timeout=0.2)
