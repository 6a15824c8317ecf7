"""Sends requests over the connections of a pool, directly or by way of a proxy."""

from collections.abc import Awaitable, Callable, Iterable
from functools import cache
from ssl import SSLContext, create_default_context
from typing import Protocol
from urllib.parse import urlsplit

import h11

from gprochat_core import Cause, Limits, Phase, Request, SendLimits, TransportError

from ..environment import basic_authorization, without_credentials
from ..forks import forget_in_child
from ..options import Settings
from ..pool import Pool
from .connection import Connection
from .network import Causes, Network

__all__ = ["Http11Response", "Http11Transport"]


class Http11Transport:
    """A `Transport` over the connections of a pool; each call raises `TransportError` alone.

    Args:
        network: connects, on the event loop that the client runs on.
        settings: the client's; its `limits` and `ssl_context` are used.
        proxy: the URL of an HTTP or SOCKS5 proxy, as `find_proxy` returns it; None for no proxy.
    """

    def __init__(self, network: Network, settings: Settings, proxy: str | None) -> None:
        self._limits = settings.limits or Limits()
        self._network = network
        self.current_loop: Callable[[], object] = network.current_loop
        self._causes: Causes = {**network.causes, h11.RemoteProtocolError: Cause.MALFORMED}
        self._exceptions = tuple(self._causes)
        self._ssl_context = settings.ssl_context
        self.forget()
        forget_in_child(self)
        self._socks_proxy = proxy if proxy and proxy.startswith("socks5:") else None
        self._http_proxy = proxy if proxy and not self._socks_proxy else None

    async def send(self, request: Request, limits: SendLimits) -> "Http11Response":
        opening = Opening(self._connect, request.url)
        self._pool.watch(self._network.watchdog)
        try:
            async with self._network.time_limit(limits.connect):
                connection = await self._pool.acquire(opening)
        except self._exceptions as error:
            raise TransportError.wrap(error, self._causes, opening.phase) from error
        try:
            head, sent_at = await connection.send(request, limits)
        except BaseException:
            await self._pool.release(connection)
            raise
        return Http11Response(connection, self._pool, head, sent_at)

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)

    async def aclose(self) -> None:
        try:
            await self._pool.aclose()
        finally:
            await self._network.watchdog.aclose()

    def forget(self) -> None:
        """Begin with no connections; the earlier ones belong to the parent process."""
        self._pool: Pool[Connection] = Pool(self._limits, self._network.make_event)

    async def _connect(self, url: str) -> Connection:
        network = self._network
        target = urlsplit(url)
        tls = target.scheme == "https"
        host, port = target.hostname or "", target.port or (443 if tls else 80)
        peer = urlsplit(without_credentials(self._http_proxy or ""))
        try:
            stream = await network.connect(
                peer.hostname or host, peer.port or port, self._socks_proxy
            )
        except self._exceptions:
            raise
        except Exception as error:
            if self._socks_proxy is None:
                raise
            # python-socks raises different exceptions on different event loops.
            raise ConnectionError(f"proxy: {error}") from error
        max_head = self._limits.max_head_bytes
        connection = Connection(stream, network.watchdog, self._causes, max_head)
        try:
            if self._http_proxy:
                if tls:
                    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                    await connection.open_tunnel(authority, self._http_proxy)
                else:
                    connection.forward_headers = basic_authorization(self._http_proxy)
            if tls:
                await connection.start_tls(self._ssl_context or system_context(), host)
        except BaseException:
            await connection.aclose()
            raise
        return connection


class Opening:
    """What the pool calls to open a connection for a call; `phase` is how far the call is.

    A function within `Http11Transport.send` would take 400 bytes more while a call connects.
    """

    __slots__ = ("_connect", "_url", "phase")

    def __init__(self, connect: Callable[[str], Awaitable[Connection]], url: str) -> None:
        self._connect = connect
        self._url = url
        self.phase: Phase = Phase.WAITING

    def __call__(self) -> Awaitable[Connection]:
        self.phase = Phase.CONNECTING
        return self._connect(self._url)


class Read(Protocol):
    """The type of `Response.read`."""

    async def __call__(self, timeout: float | None) -> bytes: ...


class Http11Response:
    """A `Response` on a connection of the pool."""

    __slots__ = ("_connection", "_pool", "headers", "read", "sent_at", "status")

    def __init__(
        self, connection: Connection, pool: Pool[Connection], head: h11.Response, sent_at: float
    ) -> None:
        self._connection = connection
        self._pool = pool
        self.read: Read = connection.read
        self.status: int = head.status_code
        self.headers: Iterable[tuple[bytes, bytes]] = head.headers
        self.sent_at: float = sent_at

    async def aclose(self) -> None:
        await self._pool.release(self._connection, reusable=self._connection.renew())


@cache
def system_context() -> SSLContext:
    """Return the context that trusts the system's authorities; making one takes milliseconds."""
    return create_default_context()
