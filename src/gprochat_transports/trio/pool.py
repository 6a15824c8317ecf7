"""The connections of one client on trio: made when needed, limited in number, kept for reuse."""

from math import inf
from ssl import SSLContext, create_default_context
from typing import Final
from urllib.parse import urlsplit

import trio

from gprochat_core import Failure, Limits, TransportError

from .._failures import FailureTable
from .._watch_trio import TrioWatch
from .connection import Connection
from .socket import TcpStream

__all__ = ["Pool"]

CONNECT_FAILURES: Final = FailureTable(
    [
        (trio.TooSlowError, Failure.CONNECT_TIMEOUT),
        (trio.BrokenResourceError, Failure.CONNECT),
        (trio.ClosedResourceError, Failure.CONNECT),
        (OSError, Failure.CONNECT),
        # A host name that IDNA cannot express.
        (UnicodeError, Failure.CONNECT),
    ]
)


class Pool:
    """A client's connections, to one service.

    Args:
        limits: of these, how many connections there may be, and how long a head.
        proxy: the URL of the proxy to go through, if any.
        ssl_context: for TLS; None to verify against the system's certificates.
    """

    def __init__(self, limits: Limits, proxy: str | None, ssl_context: SSLContext | None) -> None:
        self._max_head = limits.max_head_bytes
        self._places = trio.Semaphore(limits.max_connections)
        self._proxy = proxy
        self._ssl_context = ssl_context
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._watch = TrioWatch()
        self._closed = False

    async def acquire(self, url: str, timeout: float | None) -> Connection:
        """Return a kept connection to the service at a URL, else a new one.

        Raises:
            TransportError: CONNECT, or CONNECT_TIMEOUT after so many seconds.
        """
        connection = self._take_idle() if self._places.value else None
        if connection is not None:
            self._places.acquire_nowait()
        else:
            try:
                with trio.fail_after(inf if timeout is None else timeout):
                    connection = await self._wait_for_one(url)
            except CONNECT_FAILURES.kinds as error:
                raise CONNECT_FAILURES.translate(error) from error
        self._busy.add(connection)
        self._watch.waits.add(connection)
        return connection

    def release(self, connection: Connection) -> None:
        """Take a connection back: to keep it if it is fit for another request, else to close it."""
        self._busy.discard(connection)
        self._watch.waits.discard(connection)
        self._places.release()
        if connection.is_reusable():
            self._idle.append(connection)
        else:
            connection.close()

    async def aclose(self) -> None:
        """Close all connections, those in use too."""
        self._closed = True
        for connection in (*self._idle, *self._busy):
            connection.close()
        self._idle.clear()
        await self._watch.stop()

    async def _wait_for_one(self, url: str) -> Connection:
        await self._places.acquire()
        try:
            # One may have been released meanwhile.
            connection = self._take_idle() or await self._connect(url)
            if self._closed:
                connection.close()
                raise trio.ClosedResourceError("the client was closed meanwhile")
        except BaseException:
            self._places.release()
            raise
        return connection

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_idle():
                return connection
            connection.close()
        return None

    async def _connect(self, url: str) -> Connection:
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if tls else 80)
        if self._proxy is None:
            connected = (await trio.open_tcp_stream(host, port)).socket
        else:
            connected = await connect_through(self._proxy, host, port)
        socket = TcpStream(connected)
        stream: trio.abc.Stream = socket
        if tls:
            if self._ssl_context is None:
                self._ssl_context = create_default_context()
            stream = trio.SSLStream(
                socket, self._ssl_context, server_hostname=host, https_compatible=True
            )
            try:
                await stream.do_handshake()
            except BaseException:
                socket.close()
                raise
        return Connection(socket, stream, self._max_head, self._watch)


async def connect_through(proxy: str, host: str, port: int) -> trio.socket.SocketType:
    """Connect by way of a proxy: SOCKS5, or HTTP with CONNECT."""
    from python_socks import ProxyError
    from python_socks.async_.trio import Proxy as TrioProxy

    try:
        # Time is limited from outside.
        return await TrioProxy.from_url(proxy).connect(host, port, timeout=inf)
    except ProxyError as error:
        raise TransportError(Failure.CONNECT, f"proxy: {error}") from error
