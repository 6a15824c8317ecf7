"""A network without sockets: what arrives is a list, and what is sent is written down."""

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Final, TypeAlias

import h11

from gprochat_core import Cause, Request, SendLimits
from gprochat_transports.http11.network import Causes
from gprochat_transports.watchdog import Wait, Watchdog

__all__ = ["CAUSES", "LIMITS", "REQUEST", "FakeNetwork", "FakeStream", "FakeWatchdog", "Incoming"]

NETWORK_CAUSES: Final[Causes] = {
    TimeoutError: Cause.TIMED_OUT,
    OSError: Cause.LOST,
    UnicodeError: Cause.LOST,
}

CAUSES: Final[Causes] = {**NETWORK_CAUSES, h11.RemoteProtocolError: Cause.MALFORMED}

REQUEST: Final = Request(
    "POST", "http://chat.example:8000/api/generate", (("accept", "*/*"),), b"the body"
)

LIMITS: Final = SendLimits(connect=3.0, first_byte=7.0)

Incoming: TypeAlias = bytes | BaseException | Callable[[], bytes]
"""What a receive gives: bytes, an exception, or what a function returns or raises."""


class FakeWatchdog(Watchdog):
    """A watchdog that ends nothing.

    Attributes:
        limits: the seconds that each wait was given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.limits: list[float | None] = []

    def limit(self, wait: Wait, seconds: float | None) -> None:
        self.limits.append(seconds)
        super().limit(wait, seconds)

    def wake_at(self, time: float) -> None:
        pass

    async def sleep_until(self, time: float) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.closed = True


class FakeStream:
    """A `Stream`.

    Args:
        incoming: what each receive gives, in order; after them the end.
        sending: what each send raises, None for nothing; after them nothing.

    Attributes:
        sent: the bytes of each send.
        tls: the contexts and hosts of the handshakes.
        tls_failure: what a handshake raises.
        readable: whether something has arrived.
        closed: how often it was closed.
    """

    def __init__(
        self, *incoming: Incoming, sending: Iterable[Callable[[], object] | None] = ()
    ) -> None:
        self.incoming = iter(incoming)
        self._sending = iter(sending)
        self.sent: list[bytes] = []
        self.tls: list[tuple[SSLContext, str]] = []
        self.tls_failure: Exception | None = None
        self.readable = False
        self.closed = 0

    async def receive(self) -> bytes:
        piece = next(self.incoming, b"")
        if isinstance(piece, BaseException):
            raise piece
        return piece if isinstance(piece, bytes) else piece()

    async def send(self, data: bytes | memoryview) -> None:
        meanwhile = next(self._sending, None)
        if meanwhile is not None:
            meanwhile()
        self.sent.append(bytes(data))

    async def start_tls(self, context: SSLContext, host: str) -> "FakeStream":
        self.tls.append((context, host))
        if self.tls_failure is not None:
            raise self.tls_failure
        return self

    def is_readable(self) -> bool:
        return self.readable

    async def aclose(self) -> None:
        self.closed += 1

    @property
    def heads(self) -> list[str]:
        """The heads of the requests, where each was sent at once."""
        return [data.partition(b"\r\n\r\n")[0].decode() for data in self.sent]


class NeverSet:
    """An event for which no time is left."""

    def set(self) -> None:
        raise NotImplementedError

    async def wait(self) -> None:
        raise TimeoutError


class FakeNetwork:
    """A `Network`.

    Args:
        streams: what each connect gives, in order: a stream, an exception, or what a function
            returns or raises.

    Attributes:
        connected_to: the host, port and SOCKS proxy of each connect.
        time_limits: the seconds of each time limit.
        pauses: the seconds of each pause.
    """

    causes = NETWORK_CAUSES

    def __init__(self, *streams: FakeStream | Exception | Callable[[], FakeStream]) -> None:
        self._streams = iter(streams)
        self.watchdog = FakeWatchdog()
        self.connected_to: list[tuple[str, int, str | None]] = []
        self.time_limits: list[float | None] = []
        self.pauses: list[float] = []

    async def connect(self, host: str, port: int, socks_proxy: str | None) -> FakeStream:
        self.connected_to.append((host, port, socks_proxy))
        stream = next(self._streams)
        if isinstance(stream, Exception):
            raise stream
        return stream if isinstance(stream, FakeStream) else stream()

    @asynccontextmanager
    async def time_limit(self, seconds: float | None) -> AsyncGenerator[None, None]:
        self.time_limits.append(seconds)
        yield

    def make_event(self) -> NeverSet:
        return NeverSet()

    def current_loop(self) -> object:
        return "the loop"

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
