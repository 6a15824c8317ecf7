"""The trio transport: trio's own sockets and TLS, h11 for HTTP/1.1, and a pool of connections."""

from collections.abc import Iterable
from math import inf
from ssl import SSLContext, create_default_context
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

import h11
import trio

from gprochat_core import (
    Failure,
    Limits,
    Request,
    RetryPolicy,
    SendLimits,
    Service,
    Timeouts,
    TransportError,
)

from ._client import Client as AnyClient
from ._failures import FailureTable
from ._secrets import proxy_secrets
from ._trio_connection import Connection, Watch
from ._trio_socket import TcpStream
from .environment import FROM_ENVIRONMENT, Proxy, find_proxy

__all__ = ["Client"]

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

FAILURES: Final = FailureTable(
    [
        (trio.TooSlowError, Failure.TIMEOUT),
        (h11.RemoteProtocolError, Failure.MALFORMED),
        (trio.BrokenResourceError, Failure.LOST),
        (trio.ClosedResourceError, Failure.LOST),
        (OSError, Failure.LOST),
    ]
)


class TrioTransport:
    """Sends requests over connections of its own, and keeps those that may be used again."""

    def __init__(self, limits: Limits, proxy: str | None, ssl_context: SSLContext | None) -> None:
        self._max_head = limits.max_head_bytes
        self._places = trio.Semaphore(limits.max_connections)
        self._proxy = proxy
        self._ssl_context = ssl_context
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._watch = Watch(self._busy)
        self._closed = False

    async def send(self, request: Request, limits: SendLimits) -> "TrioResponse":
        try:
            connection = await self._acquire(request.url, limits.connect)
        except CONNECT_FAILURES.kinds as error:
            raise CONNECT_FAILURES.translate(error) from error
        response = TrioResponse(self, connection)
        try:
            await connection.send(request, limits)
            response.sent_at = monotonic()
            connection.limit(limits.reply(response.sent_at))
            head = await connection.receive_head()
        except BaseException as error:
            self.release(connection)
            if isinstance(error, FAILURES.kinds):
                raise translate(error, connection, reused=connection.reused) from error
            raise
        finally:
            connection.deadline = inf
        response.status = head.status_code
        response.headers = head.headers
        return response

    def current_loop(self) -> object:
        return trio.lowlevel.current_trio_token()

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def aclose(self) -> None:
        self._closed = True
        for connection in (*self._idle, *self._busy):
            connection.close()
        self._idle.clear()
        await self._watch.stop()

    def release(self, connection: Connection) -> None:
        """Keep a connection for the next request if it is fit for that, else close it."""
        self._busy.discard(connection)
        self._places.release()
        if connection.is_reusable():
            self._idle.append(connection)
        else:
            connection.close()

    async def _acquire(self, url: str, timeout: float | None) -> Connection:
        """A kept connection, else a new one within so many seconds."""
        connection = self._take_idle() if self._places.value else None
        if connection is not None:
            self._places.acquire_nowait()
        else:
            with trio.fail_after(inf if timeout is None else timeout):
                await self._places.acquire()
                try:
                    connection = self._take_idle() or await self._connect(url)
                    if self._closed:
                        connection.close()
                        raise trio.ClosedResourceError("the client was closed meanwhile")
                except BaseException:
                    self._places.release()
                    raise
        self._busy.add(connection)
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


class TrioResponse:
    """A response on one of the transport's connections."""

    status: int
    headers: Iterable[tuple[bytes, bytes]]
    sent_at: float

    def __init__(self, transport: TrioTransport, connection: Connection) -> None:
        self._transport = transport
        self._connection = connection

    async def read(self, timeout: float | None) -> bytes:
        connection = self._connection
        connection.limit(timeout)
        try:
            event = await connection.next_event()
            return bytes(event.data) if isinstance(event, h11.Data) else b""
        except FAILURES.kinds as error:
            raise translate(error, connection) from error
        finally:
            connection.deadline = inf

    async def aclose(self) -> None:
        self._transport.release(self._connection)


class Client(AnyClient):
    """A client on trio.

    Args:
        service, timeouts, retry, limits: as for `gprochat_transports.Client`.
        proxy: the URL of an HTTP or SOCKS5 proxy, None for none; by default as the environment
            says.
        ssl_context: for TLS; by default certificates are verified against the system's.

    Raises:
        ConfigurationError: no secret key, or a proxy that cannot be used.
    """

    def __init__(
        self,
        service: Service,
        *,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        limits: Limits | None = None,
        proxy: Proxy = FROM_ENVIRONMENT,
        ssl_context: SSLContext | None = None,
    ) -> None:
        found = find_proxy(service.url, proxy, http="python_socks", socks5="python_socks")
        transport = TrioTransport(limits or Limits(), found, ssl_context)
        super().__init__(
            service,
            transport,
            timeouts=timeouts,
            retry=retry,
            limits=limits,
            secrets=proxy_secrets(found),
        )


def translate(error: Exception, connection: Connection, *, reused: bool = False) -> TransportError:
    """What an exception of a connection's means."""
    if connection.late:
        return TransportError(Failure.TIMEOUT)
    return FAILURES.translate(error, reused=reused)


async def connect_through(proxy: str, host: str, port: int) -> trio.socket.SocketType:
    """Connect by way of a proxy: SOCKS5, or HTTP with CONNECT."""
    from python_socks import ProxyError
    from python_socks.async_.trio import Proxy as TrioProxy

    try:
        # Time is limited from outside.
        return await TrioProxy.from_url(proxy).connect(host, port, timeout=inf)
    except ProxyError as error:
        raise TransportError(Failure.CONNECT, f"proxy: {error}") from error
