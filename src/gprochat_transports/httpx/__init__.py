"""The httpx transport: moves bytes with an httpx client, on asyncio, on trio, or blocking."""

import sys
from collections.abc import Mapping
from functools import partial
from math import inf
from ssl import SSLContext
from typing import TYPE_CHECKING, cast

from ..extras import needs

with needs("httpx"):
    import anyio
    import anyio.lowlevel

    from .library import Library, client_settings

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

from .._failures import OUT_OF_STEP
from .._secrets import proxy_secrets
from ..client import Client as AnyClient
from ..environment import FROM_ENVIRONMENT, Proxy
from ..sync import SyncClient as AnySyncClient
from ..watchdog import Watch
from .blocking import BlockingTransport
from .call import (
    Progress,
    is_new_stream,
    note_reads,
)
from .connections import Connection, Connections, GivenClient, OwnConnections
from .response import HttpxResponse, close_to_the_end

if TYPE_CHECKING:
    import httpx
    import httpx2

__all__ = ["Client", "SyncClient"]


class HttpxTransport:
    """Sends requests over connections made here, or with a client that was passed."""

    def __init__(self, connections: Connections, library: Library) -> None:
        self._connections = connections
        self._library = library
        self._watch: Watch | None = None

    async def send(self, request: Request, limits: SendLimits) -> HttpxResponse:
        watch = self._watch = self._watch or make_watch()
        # The library's own limits start anew with every byte, and some it forgets.
        scope = anyio.CancelScope()

        def limit(seconds: float | None) -> None:
            scope.deadline = inf if seconds is None else anyio.current_time() + seconds

        async def trace(event: str, info: Mapping[str, object]) -> None:
            progress.note(event, info)
            if is_new_stream(event):
                note_reads(info["return_value"])

        progress = Progress(limits, limit)
        built = self._connections.build_request(request, progress, trace)
        built.stream = self._library.body(request.body)
        connection: Connection | None = None
        received: HttpxResponse | None = None
        try:
            with scope:
                connection = await self._connections.acquire(limits.connect)
                response = await connection.send(built)
                # From here on the watch limits each wait.
                progress.timeouts["read"] = None
                del built.extensions["trace"]
                received = HttpxResponse(response, self._library, progress, watch, connection)
                if progress.is_in_step(response):
                    return received
                await received.aclose()
                raise TransportError(Failure.STALE, OUT_OF_STEP)
        except self._library.failures.kinds as error:
            raise self._library.translate(error, progress) from error
        finally:
            if connection is not None and received is None:
                await close_to_the_end(partial(connection.lose, built, progress))
        raise TransportError(Failure.CONNECT_TIMEOUT if progress.connecting else Failure.TIMEOUT)

    def current_loop(self) -> object:
        return anyio.lowlevel.current_token()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def aclose(self) -> None:
        if self._watch is not None:
            await self._watch.stop()
        await close_to_the_end(self._connections.aclose)


def make_watch() -> Watch:
    """The watch for the running event loop."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        from .._watch_trio import TrioWatch

        return TrioWatch()
    from .._watch_asyncio import AsyncioWatch

    return AsyncioWatch()


class Client(AnyClient):
    """A client on httpx, for asyncio and trio.

    Args:
        service, timeouts, retry, limits: as for `gprochat_transports.Client`.
        proxy: the URL of an HTTP or SOCKS5 proxy, None for none; by default as the environment
            says.
        ssl_context: for TLS; by default certificates are verified against the system's.
        client: an asynchronous client of httpx or httpx2 to use, which is never closed here; it
            brings its own proxy and TLS.

    Raises:
        ConfigurationError: no secret key, a proxy that cannot be used, or a setting that
            belongs to the client given.
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
        client: "httpx.AsyncClient | httpx2.AsyncClient | None" = None,
    ) -> None:
        library = Library(client, "AsyncClient")
        limits = limits or Limits()
        settings = client_settings(service, limits, proxy, ssl_context, client)
        connections: Connections = (
            OwnConnections(library, library.connect_with(settings), limits.max_connections)
            if client is None
            else GivenClient(cast("httpx.AsyncClient", client))
        )
        transport = HttpxTransport(connections, library)
        super().__init__(
            service,
            transport,
            timeouts=timeouts,
            retry=retry,
            limits=limits,
            secrets=proxy_secrets(cast("str | None", settings.get("proxy"))),
        )


class SyncClient(AnySyncClient):
    """A client on httpx that blocks; but for `async` and `await` the same as `Client`."""

    def __init__(
        self,
        service: Service,
        *,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        limits: Limits | None = None,
        proxy: Proxy = FROM_ENVIRONMENT,
        ssl_context: SSLContext | None = None,
        client: "httpx.Client | httpx2.Client | None" = None,
    ) -> None:
        library = Library(client, "Client")
        settings = client_settings(service, limits or Limits(), proxy, ssl_context, client)
        used = cast("httpx.Client", client or library.make_client(settings))
        transport = BlockingTransport(used, library, own=client is None)
        super().__init__(
            AnyClient(
                service,
                transport,
                timeouts=timeouts,
                retry=retry,
                limits=limits,
                secrets=proxy_secrets(cast("str | None", settings.get("proxy"))),
            )
        )
