"""Connections of a session that the adapter makes, and what aiohttp's exceptions mean.

aiohttp makes and keeps the connections. Four things differ from a plain session. A connection has
smaller buffers. It resumes reading only after a pause. It parses a head before the rest of its
packet. It is not used again if bytes arrived while it was idle.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from ssl import SSLContext
from typing import Any, Final, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler

from gprochat_core import Cause, Limits

from ..http11.network import READ_SIZE, SOCKET_CAUSES, Causes

__all__ = ["CAUSES", "EXCEPTIONS", "Connector", "Protocol", "make_connector"]

socks_causes: Causes = {}
with suppress(ImportError):
    from aiohttp_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError

    socks_causes = {
        ProxyTimeoutError: Cause.TIMED_OUT,
        ProxyConnectionError: Cause.LOST,
        ProxyError: Cause.LOST,
        # The proxy closed before the end of its answer.
        asyncio.IncompleteReadError: Cause.LOST,
    }

CAUSES: Final[Causes] = {
    **SOCKET_CAUSES,
    **socks_causes,
    aiohttp.ServerTimeoutError: Cause.TIMED_OUT,
    aiohttp.ClientResponseError: Cause.MALFORMED,
    aiohttp.ClientError: Cause.LOST,
    # The session or the connection was closed here.
    RuntimeError: Cause.LOST,
    # A setting of the caller's session, such as the user of its proxy.
    ValueError: Cause.LOST,
}
EXCEPTIONS: Final = tuple(CAUSES)

TLS_BUFFER: Final = 32 * 1024
"""Bytes that a TLS connection reads ahead for a slow reader; aiohttp's buffer comes on top."""

END_OF_HEAD: Final = b"\r\n\r\n"


class Protocol(ResponseHandler):
    """aiohttp's protocol, which here resumes reading only after a pause, and parses a head first.

    aiohttp resumes after each read, and then runs its parser once more on no bytes. It drops a head
    if the rest of the packet breaks HTTP's rules, such as bytes behind the end of a reply. And it
    would take bytes that arrive on an idle connection for the next reply.
    """

    _is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        reading: Any = transport
        if hasattr(reading, "max_size"):
            # asyncio allocates 256 KiB for each read otherwise, even if a few bytes arrive.
            reading.max_size = READ_SIZE
        if hasattr(reading, "set_read_buffer_limits"):
            reading.set_read_buffer_limits(TLS_BUFFER)

    def is_connected(self) -> bool:
        # aiohttp's connector asks before it uses an idle connection again.
        return super().is_connected() and not self.should_close

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"HTTP/"):
            head, end, rest = data.partition(END_OF_HEAD)
            if rest:
                super().data_received(head + end)
                data = rest
        ResponseHandler.data_received(self, data)

    def pause_reading(self) -> None:
        self._is_paused = True
        super().pause_reading()

    def resume_reading(self, *args: Any, **kwargs: Any) -> None:
        if self._is_paused:
            self._is_paused = False
            super().resume_reading(*args, **kwargs)


class Connector(aiohttp.TCPConnector):
    """aiohttp's connector, which here opens connections of `Protocol`."""

    def __init__(self, **settings: Any) -> None:
        # aiohttp's annotations are not complete.
        cast("Any", super()).__init__(**settings)
        # `_factory` is private. Without it aiohttp makes connections of its ResponseHandler.
        make: Callable[..., ResponseHandler] = Protocol
        self._factory = partial(make, loop=asyncio.get_running_loop())


def make_connector(
    limits: Limits, ssl_context: SSLContext | None, socks_proxy: str | None
) -> aiohttp.TCPConnector:
    """Return a connector for a session, which connects directly or through a SOCKS5 proxy."""
    settings: dict[str, Any] = {
        # True means the context that aiohttp shares among its sessions; it verifies certificates.
        "ssl": ssl_context or True,
        "limit": limits.max_connections,
        "keepalive_timeout": limits.keep_alive or None,
        "force_close": not limits.keep_alive,
    }
    if socks_proxy is None:
        return Connector(**settings)
    from .socks import SocksConnector

    return SocksConnector(socks_proxy, **settings)
