"""Connections of a session that the adapter makes, and what aiohttp's exceptions mean.

aiohttp makes and keeps the connections. Four things differ from a plain session: a request's body
learns its connection before sending begins; a connection resumes reading only after a pause; a head
is parsed before the rest of its packet; and bytes behind the end of a response, or on an idle
connection, end the connection.
"""

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from ssl import SSLContext
from typing import Any, Final, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from aiohttp.tracing import Trace

from gprochat_core import Cause, Limits

from ..http11.network import READ_SIZE, SOCKET_CAUSES, Causes
from .request import RequestBody

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

END_OF_HEAD: Final = re.compile(rb"\A\n|(?<![^\n])\r\n")
"""Ends of empty lines; the beginning of a packet may be the rest of one."""

LAST_CHUNK: Final = b"0\r\n\r\n"


class Protocol(ResponseHandler):
    """aiohttp's protocol, which here resumes reading only after a pause, and parses heads first.

    aiohttp resumes after each read, and then runs its parser once more on no bytes. It drops a head
    if the rest of the packet breaks HTTP's rules, and keeps a connection open if the bytes behind
    the end of a response may be the beginning of a head.
    """

    _body: aiohttp.StreamReader | None = None
    _is_chunked = False
    _received = 0
    _last_bytes = b""
    _is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        reading: Any = transport
        if hasattr(reading, "max_size"):
            # asyncio allocates 256 KiB for each read otherwise, even if a few bytes arrive.
            reading.max_size = READ_SIZE
        if hasattr(reading, "set_read_buffer_limits"):
            reading.set_read_buffer_limits(TLS_BUFFER)

    def set_response_params(self, **params: Any) -> None:
        self._body = None
        super().set_response_params(**params)

    def feed_data(
        self, data: tuple[RawResponseMessage, aiohttp.StreamReader], size: int = 0
    ) -> None:
        message, body = data
        if self._body is not None:
            # Nobody has asked for another response.
            self.abort()
            return
        if message.code // 100 != 1:
            self._body = body
            self._is_chunked = message.chunked
            self._received = 0
            self._last_bytes = b""
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        if self._body is None:
            start = 0
            for end in END_OF_HEAD.finditer(data):
                super().data_received(data[start : end.end()])
                start = end.end()
                if self._body is not None or not self.is_connected():
                    break
            if start == len(data) > 0:
                return
            data = data[start:]
        body = self._body
        if body is None:
            super().data_received(data)
            return
        self._received += len(data)
        # As many bytes as LAST_CHUNK has.
        self._last_bytes = data[-5:] if len(data) > 5 else (self._last_bytes + data)[-5:]
        super().data_received(data)
        if body.is_eof() and not self._is_at_end(body):
            self.abort()

    def _is_at_end(self, body: aiohttp.StreamReader) -> bool:
        """Tell whether the last byte that arrived is the last one of a response."""
        if self._is_chunked:
            return self._last_bytes == LAST_CHUNK
        return self._received == body.total_bytes

    def pause_reading(self) -> None:
        self._is_paused = True
        super().pause_reading()

    def resume_reading(self, *args: Any, **kwargs: Any) -> None:
        if self._is_paused:
            self._is_paused = False
            super().resume_reading(*args, **kwargs)


class Connector(aiohttp.TCPConnector):
    """aiohttp's connector. It tells the body of a request which connection will carry it.

    In a session that the caller made, the body learns its connection when sending begins.
    """

    def __init__(self, **settings: Any) -> None:
        # aiohttp's annotations are not complete.
        cast("Any", super()).__init__(**settings)
        # `_factory` is private. Without it aiohttp makes connections of its ResponseHandler, and
        # what Protocol adds is lost.
        make: Callable[..., ResponseHandler] = Protocol
        self._factory = partial(make, loop=asyncio.get_running_loop())

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        if connection.protocol is not None and isinstance(req.body, RequestBody):
            req.body.note_connection(connection.protocol)
        return connection


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
