"""Connections on asyncio and trio over the streams of anyio, which httpx uses too.

This file also says what exceptions mean: those of anyio, and those of a caller's client of httpx.
"""

import selectors
import sys
from contextlib import suppress
from math import inf
from socket import socket
from ssl import SSLContext
from typing import Final

import anyio
import anyio.abc
import anyio.lowlevel
import h11
from anyio.streams.tls import TLSAttribute, TLSStream

from gprochat_core import Cause, ConfigurationError, Phase, TransportError

from ..http11.network import READ_SIZE, SOCKET_CAUSES, Causes, TimeLimit, has_unread
from ..watchdog import Watchdog, make_watchdog

__all__ = ["AnyioNetwork", "is_readable", "read_causes", "report"]

CAUSES: Final[Causes] = {
    **SOCKET_CAUSES,
    anyio.EndOfStream: Cause.LOST,
    anyio.BrokenResourceError: Cause.LOST,
    anyio.ClosedResourceError: Cause.LOST,
}

# The default selector needs a file descriptor of its own, and there may be none left.
Selector: Final = getattr(selectors, "PollSelector", selectors.SelectSelector)


def read_causes(client: object, kind: str) -> Causes:
    """Return what exceptions mean over a client that the caller made.

    Args:
        client: a client of httpx or of httpx2.
        kind: the name of the class that it must be an instance of.

    Raises:
        ConfigurationError: the client is no instance of that class.
    """
    for name in ("httpx", "httpx2"):
        library = sys.modules.get(name)
        if library is not None and isinstance(client, getattr(library, kind)):
            causes = {
                **CAUSES,
                library.TimeoutException: Cause.TIMED_OUT,
                library.TransportError: Cause.LOST,
                # The client was closed.
                RuntimeError: Cause.LOST,
                h11.RemoteProtocolError: Cause.MALFORMED,
                # httpx parses a Location even if it is not to follow it.
                library.InvalidURL: Cause.MALFORMED,
                ValueError: Cause.MALFORMED,
                UnicodeError: Cause.MALFORMED,
            }
            with suppress(ImportError):
                from socksio import SOCKSError

                causes[SOCKSError] = Cause.LOST
            return causes
    raise ConfigurationError(f"client= takes an httpx.{kind}, not a {type(client).__qualname__}")


def report(error: Exception, causes: Causes, phase: Phase, reused: bool) -> TransportError:
    """Report an exception of httpx, or the one behind it that tells more."""
    found, link = error, error.__cause__ or error.__context__
    # httpx raises the same exception for an answer that cannot be read and for a server that
    # closes without an answer; only the former has such an exception behind it.
    while isinstance(link, Exception):
        # A ValueError further back may be an exception that the caller is handling.
        if causes.get(type(link)) is Cause.MALFORMED and not isinstance(link, ValueError):
            found = link
        link = link.__cause__ or link.__context__
    if phase is Phase.WAITING and type(error).__name__.startswith(("Read", "RemoteProtocol")):
        # Only a mock raises it then, which does not tell how far a call is.
        phase, reused = Phase.AWAITING_HEAD, False
    return TransportError.wrap(found, causes, phase, reused=reused)


class AnyioNetwork:
    """The `Network` on asyncio and trio."""

    causes = CAUSES
    make_event: "staticmethod[[], anyio.Event]" = staticmethod(anyio.Event)
    current_loop: "staticmethod[[], object]" = staticmethod(anyio.lowlevel.current_token)

    _watchdog: Watchdog | None = None

    @property
    def watchdog(self) -> Watchdog:
        self._watchdog = self._watchdog or make_watchdog()
        return self._watchdog

    async def connect(self, host: str, port: int, socks_proxy: str | None) -> "AnyioStream":
        if socks_proxy is None:
            return AnyioStream(await anyio.connect_tcp(host, port))
        from python_socks.async_.anyio import Proxy

        # `time_limit` limits the time; python-socks would take 60 seconds for None.
        proxy = Proxy.from_url(socks_proxy)
        return AnyioStream(await proxy.connect(host, port, timeout=inf))

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    def time_limit(self, seconds: float | None) -> TimeLimit:
        return TimeLimit(anyio.move_on_after(seconds))


class AnyioStream:
    """The `Stream` on asyncio and trio: TCP, or TLS over it."""

    __slots__ = ("_stream",)

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream

    async def receive(self) -> bytes:
        try:
            return await self._stream.receive(READ_SIZE)
        except anyio.EndOfStream:
            return b""

    async def send(self, data: bytes | memoryview, /) -> None:
        await self._stream.send(bytes(data))

    async def start_tls(self, context: SSLContext, host: str) -> "AnyioStream":
        tls = await TLSStream.wrap(
            self._stream, hostname=host, ssl_context=context, standard_compatible=False
        )
        return AnyioStream(tls)

    def is_readable(self) -> bool:
        if is_readable(self._stream.extra(anyio.abc.SocketAttribute.raw_socket)):
            return True
        tls = self._stream.extra(TLSAttribute.ssl_object, None)
        return tls is not None and has_unread(tls)

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._stream.aclose()


def is_readable(sock: socket) -> bool:
    """Tell whether a socket has bytes to read, or its peer or another thread has closed it."""
    with Selector() as selector, suppress(ValueError):
        selector.register(sock, selectors.EVENT_READ)
        return bool(selector.select(0))
    return True
