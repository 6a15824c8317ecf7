"""The trio transport: trio's own sockets and TLS, h11 for HTTP/1.1."""

from collections.abc import Iterable
from math import inf
from ssl import SSLContext
from time import monotonic
from typing import Final

from ..extras import needs

with needs("trio"):
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

from .._failures import FailureTable
from .._secrets import proxy_secrets
from ..client import Client as AnyClient
from ..environment import FROM_ENVIRONMENT, Proxy, find_proxy
from .connection import Connection
from .pool import Pool

__all__ = ["Client"]

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
    """Sends requests over the connections of a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def send(self, request: Request, limits: SendLimits) -> "TrioResponse":
        connection = await self._pool.acquire(request.url, limits.connect)
        response = TrioResponse(self._pool, connection)
        try:
            await connection.send(request, limits)
            response.sent_at = monotonic()
            connection.limit(limits.reply(response.sent_at))
            head = await connection.receive_head()
        except BaseException as error:
            self._pool.release(connection)
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
        await self._pool.aclose()


class TrioResponse:
    """A response on one of the transport's connections."""

    status: int
    headers: Iterable[tuple[bytes, bytes]]
    sent_at: float

    def __init__(self, pool: Pool, connection: Connection) -> None:
        self._pool = pool
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
        self._pool.release(self._connection)


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
        transport = TrioTransport(Pool(limits or Limits(), found, ssl_context))
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
