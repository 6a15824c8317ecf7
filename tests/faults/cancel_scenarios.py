"""The calls that are interrupted: what the peer does, and how the client reaches it.

Every peer pauses between its packets, so that a client waits wherever it can wait.
"""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ssl import SSLError
from typing import Any, Final, Literal, Self, TypeAlias

from gprochat_core import Limits, RetryPolicy, Timeouts
from tests.faults.certificates import CERTIFICATES, client_context
from tests.peers.scripted import (
    ClientClosed,
    Connection,
    ScriptedPeer,
    Step,
    close_write,
    repeat,
    send,
    until_client_closes,
)
from tests.peers.wire import LAST_CHUNK, answer, chunk, chunked, head

__all__ = ["QUICK", "SCENARIOS", "WELL", "Scenario", "both"]

WELL: Final = "fine"
"""The reply to `QUICK`."""

QUICK: Final = "Again"
"""The prompt that any peer answers at once, with `WELL`."""

TEXT: Final = "Привет 🙂"

PAUSE: Final = 0.001
"""Seconds; long enough for a client to notice that there is nothing to read."""

BIG: Final = 256 * 1024
"""Characters of a request that the buffers of a narrow connection do not take at once."""

SEGMENT: Final = 1000
"""Bytes of the packets to a narrow peer. To others over loopback, Linux takes 4 MB at once."""

Way: TypeAlias = Literal["direct", "name", "tls", "http", "http+tls", "socks5", "socks5+tls"]
"""How to get to the service: by address, by name, over TLS, or through a proxy."""


def slowly(*pieces: bytes) -> Step:
    return send(*pieces, every=PAUSE)


def slow_reply(fields: tuple[str, ...] = ()) -> Step:
    """A reply in pieces, one of them half a character, and each part of its framing alone."""
    body = TEXT.encode()
    begin = head(200, "transfer-encoding: chunked", *fields)
    return slowly(
        begin[:20], begin[20:], chunk(body[:3]), chunk(body[3:5]), chunk(body[5:]), LAST_CHUNK
    )


class NarrowPeer(ScriptedPeer):
    """A peer to which a client cannot send a long request without waiting."""

    def __enter__(self) -> Self:
        super().__enter__()
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * SEGMENT)
        return self


def in_turn(*answers: Step) -> Step:
    """Give these answers by turns, one for each request."""

    def step(connection: Connection) -> None:
        asked = sum(QUICK.encode() not in one.body for one in connection._peer.requests)
        answers[(asked - 1) % len(answers)](connection)

    return step


def both(*steps: Step) -> Step:
    def step(connection: Connection) -> None:
        for each in steps:
            each(connection)

    return step


@dataclass(frozen=True)
class Scenario:
    """A call to be interrupted.

    Attributes:
        name: stands in the names of its tests.
        answer: what the peer does with its request.
        way: how the client gets there.
        prompt: what it asks.
        expected: what the call comes to where it is not interrupted.
        kept: whether the client has a kept connection when the call begins.
        read: how many pieces of the reply are read before its block is left; None for all.
        settings: the client's.
    """

    name: str
    answer: Step = field(default_factory=slow_reply)
    way: Way = "direct"
    prompt: str = "Hello"
    expected: str = TEXT
    kept: bool = False
    read: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def peer(self) -> ScriptedPeer:
        """A new peer that plays this scenario on all its connections."""
        context = CERTIFICATES["good"]() if self.way == "tls" else None
        peer = NarrowPeer if len(self.prompt) >= BIG else ScriptedPeer
        return peer([self._enter, repeat(self._answer)], ssl_context=context)

    def url(self, peer: ScriptedPeer) -> str:
        """The service's URL."""
        if self.way == "name":
            return f"http://localhost:{peer.port}"
        if self.way.endswith("+tls"):
            return f"https://service.invalid:{peer.port}"
        return peer.url

    def client_settings(self, peer: ScriptedPeer) -> dict[str, Any]:
        """Return the arguments of the client besides the service."""
        proxy, _, _ = self.way.partition("+")
        settings: dict[str, Any] = {
            "proxy": f"{proxy}://127.0.0.1:{peer.port}" if proxy in ("http", "socks5") else None,
            "ssl_context": client_context(),
            # With one slot, a slot that is not given back is missed at once.
            "limits": Limits(max_connections=1),
            "timeouts": Timeouts(connect=2.0, first_byte=2.0, idle=2.0),
            "retry": RetryPolicy(max_attempts=1),
        }
        return settings | dict(self.settings)

    def _enter(self, connection: Connection) -> None:
        """Be the proxy, if there is one."""
        proxy, _, tls = self.way.partition("+")
        if proxy == "socks5":
            for reply in (b"\x05\x00", b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"):
                connection._read()
                connection._buffer = b""
                connection.pause(PAUSE)
                connection.send(reply)
        elif proxy == "http":
            try:
                begin = connection._socket.recv(7, socket.MSG_PEEK)
            except OSError as error:
                raise ClientClosed from error
            if begin == b"CONNECT":
                connection.receive()
                connection._peer.requests.pop()
                connection.pause(PAUSE)
                connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        if tls:
            context = CERTIFICATES["good"]()
            try:
                connection._socket = context.wrap_socket(connection._socket, server_side=True)
            except (SSLError, ConnectionError) as error:
                raise ClientClosed from error

    def _answer(self, connection: Connection) -> None:
        if len(self.prompt) >= BIG:
            # A client that sends so much must wait meanwhile.
            connection.pause(10 * PAUSE)
        connection.receive()
        if QUICK.encode() in connection.requests[-1].body:
            connection.send(chunked(WELL))
        else:
            connection.pause(PAUSE)
            self.answer(connection)


SCENARIOS: Final[Sequence[Scenario]] = (
    Scenario("a reply"),
    Scenario("a reply on a kept connection", kept=True),
    Scenario("a reply of known length", slowly(answer(200, TEXT)[:-9], answer(200, TEXT)[-9:])),
    Scenario("a reply that is left early", read=1),
    Scenario("a host name", way="name"),
    Scenario("TLS", way="tls"),
    Scenario("a HTTP proxy", way="http"),
    Scenario("a HTTP proxy and TLS", way="http+tls"),
    Scenario("a SOCKS5 proxy", way="socks5"),
    Scenario("a SOCKS5 proxy and TLS", way="socks5+tls"),
    Scenario("a long request", prompt="x" * BIG),
    Scenario("a long request over TLS", prompt="x" * BIG, way="tls"),
    Scenario(
        "an error and a second attempt",
        in_turn(slowly(answer(503, "x" * 9)[:-5], b"xxxxx"), slow_reply()),
        settings={"retry": RetryPolicy(max_attempts=2, base_delay=0.01)},
    ),
    Scenario(
        "a kept connection that is closed",
        in_turn(both(close_write, until_client_closes), slow_reply()),
        kept=True,
    ),
)
