"""aiohttp's connections, where they are made here, and what aiohttp's exceptions mean.

They differ from others in three things: a connection tells the body of a request that it carries
it; it resumes reading only after a pause; and it is not used again if bytes arrived meanwhile.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from ssl import SSLContext
from typing import Any, Final, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from gprochat_core import Cause, Limits

from ..http11.network import READ_SIZE, Causes
from .request import RequestBody

__all__ = ["CAUSES", "EXCEPTIONS", "Connector", "Protocol", "make_connector"]

socks_causes: Causes = {}
with suppress(ImportError):
    from aiohttp_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError

    socks_causes = {
        ProxyTimeoutError: Cause.TIMED_OUT,
        ProxyConnectionError: Cause.LOST,
        ProxyError: Cause.LOST,
        # The proxy closed within its answer.
        asyncio.IncompleteReadError: Cause.LOST,
    }

CAUSES: Final[Causes] = {
    **socks_causes,
    aiohttp.ServerTimeoutError: Cause.TIMED_OUT,
    aiohttp.ClientResponseError: Cause.MALFORMED,
    aiohttp.ClientError: Cause.LOST,
    TimeoutError: Cause.TIMED_OUT,
    OSError: Cause.LOST,
    # A host name that IDNA cannot express.
    UnicodeError: Cause.LOST,
    # Reading from, or sending over, a connection that was closed here.
    RuntimeError: Cause.LOST,
}
EXCEPTIONS: Final = tuple(CAUSES)

TLS_BUFFER: Final = 32 * 1024
"""Bytes that a TLS connection keeps for a slow reader, besides aiohttp's buffer."""


class Protocol(ResponseHandler):
    """aiohttp's protocol, without the cost of resuming a connection that is not paused: aiohttp
    resumes after each read, and makes its parser parse nothing once more."""

    _is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        reading: Any = transport
        if hasattr(reading, "max_size"):
            # asyncio makes room for 256 KiB otherwise, even for a few bytes.
            reading.max_size = READ_SIZE
        if hasattr(reading, "set_read_buffer_limits"):
            reading.set_read_buffer_limits(TLS_BUFFER)

    def pause_reading(self) -> None:
        self._is_paused = True
        super().pause_reading()

    def resume_reading(self, *args: Any, **kwargs: Any) -> None:
        if self._is_paused:
            self._is_paused = False
            super().resume_reading(*args, **kwargs)


class Connector(aiohttp.TCPConnector):
    """aiohttp's connector, which tells a request's body the connection that it was given.

    In a session that the caller made, the body learns its connection when sending begins.
    """

    def __init__(self, **settings: Any) -> None:
        # aiohttp's annotations are not complete.
        cast("Any", super()).__init__(**settings)
        # `_factory` is private. Without it aiohttp makes connections of its ResponseHandler, and
        # only the saving is lost.
        make: Callable[..., ResponseHandler] = Protocol
        self._factory = partial(make, loop=asyncio.get_running_loop())

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol is None or not isinstance(req.body, RequestBody):
                return connection
            if req.body.note_connection(protocol):
                return connection
            connection.close()


def make_connector(
    limits: Limits, ssl_context: SSLContext | None, socks_proxy: str | None
) -> aiohttp.TCPConnector:
    """Return what makes the connections of a client, directly or through a SOCKS5 proxy."""
    settings: dict[str, Any] = {
        # True stands for a context of aiohttp's that verifies, shared by all its sessions.
        "ssl": ssl_context or True,
        "limit": limits.max_connections,
        "keepalive_timeout": limits.keep_alive or None,
        "force_close": not limits.keep_alive,
    }
    if socks_proxy is None:
        return Connector(**settings)
    from .socks import SocksConnector

    return SocksConnector(socks_proxy, **settings)
