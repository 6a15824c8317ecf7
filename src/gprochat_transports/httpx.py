"""The httpx transport: moves bytes with an httpx client, on asyncio, on trio, or blocking."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from math import inf
from ssl import SSLContext
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.lowlevel

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
from ._httpx_blocking import BlockingTransport
from ._httpx_call import (
    OUT_OF_STEP,
    Progress,
    build_request,
    is_new_stream,
    note_reads,
    take_lost_connections,
)
from ._httpx_library import Library, client_settings
from ._secrets import proxy_secrets
from ._sync import SyncClient as AnySyncClient
from .environment import FROM_ENVIRONMENT, Proxy

if TYPE_CHECKING:
    import httpcore
    import httpx
    import httpx2

__all__ = ["Client", "SyncClient"]


class HttpxTransport:
    """Sends requests with an asynchronous client, which is closed here if it was made here."""

    def __init__(self, client: "httpx.AsyncClient", library: Library, *, own: bool) -> None:
        self._client = client
        self._library = library
        self._own = own

    async def send(self, request: Request, limits: SendLimits) -> "HttpxResponse":
        # The library's own limits start anew with every byte, and some it forgets.
        scope = anyio.CancelScope()

        def limit(seconds: float | None) -> None:
            scope.deadline = inf if seconds is None else anyio.current_time() + seconds

        async def trace(event: str, info: Mapping[str, object]) -> None:
            progress.note(event, info)
            if is_new_stream(event):
                note_reads(info["return_value"])

        progress = Progress(limits, limit)
        built = build_request(self._client, request, progress, trace)
        built.stream = self._library.body(request.body)
        try:
            with scope:
                response = await self._client.send(built, stream=True, follow_redirects=False)
                # From here on the limit comes with each read.
                progress.timeouts["read"] = None
                del built.extensions["trace"]
                received = HttpxResponse(response, self._library, progress)
                if progress.is_in_step(response):
                    return received
                await received.aclose()
                raise TransportError(Failure.STALE, OUT_OF_STEP)
        except self._library.failures.kinds as error:
            raise self._library.translate(error, progress) from error
        finally:
            if not progress.sending:
                with anyio.CancelScope(shield=True):
                    for lost in take_lost_connections(self._client, built):
                        await lost.aclose()
                    if progress.stream is not None:
                        await cast("httpcore.AsyncNetworkStream", progress.stream).aclose()
        raise TransportError(Failure.CONNECT_TIMEOUT if progress.connecting else Failure.TIMEOUT)

    def current_loop(self) -> object:
        return anyio.lowlevel.current_token()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def aclose(self) -> None:
        if self._own:
            await in_a_task_of_its_own(self._client.aclose)


class HttpxResponse:
    """A response of an asynchronous client."""

    def __init__(self, response: "httpx.Response", library: Library, progress: Progress) -> None:
        self._response = response
        self._body = aiter(cast("httpx.AsyncByteStream", response.stream))
        self._library = library
        self._stream: Any = response.extensions.get("network_stream")
        # A connection may be older than this client, or others' too.
        self._is_timed = hasattr(self._stream, "read_until") and response.http_version != "HTTP/2"
        self._reading = False
        self.sent_at = progress.sent_at
        self.status = response.status_code
        self.headers = response.headers.raw

    async def read(self, timeout: float | None) -> bytes:
        self._reading = True
        try:
            if timeout is None or not self._is_timed:
                with anyio.fail_after(timeout):
                    return await anext(self._body)
            self._stream.read_until = monotonic() + timeout
            return await anext(self._body)
        except StopAsyncIteration:
            return b""
        except self._library.failures.kinds as error:
            raise self._library.translate(error) from error
        finally:
            self._reading = False
            if self._is_timed:
                self._stream.read_until = None

    async def aclose(self) -> None:
        await in_a_task_of_its_own(self._close)

    async def _close(self) -> None:
        await self._response.aclose()
        # The body is several asynchronous generators in each other, and closing the outermost
        # would leave the rest to the garbage collector. On a closed connection the innermost
        # fails, and all of them end: if another task is reading, before its eyes.
        if not self._reading:
            with suppress(*self._library.failures.kinds):
                while await anext(self._body, b""):
                    pass


async def in_a_task_of_its_own(close: Callable[[], Awaitable[None]]) -> None:
    """Close something to its end, cancelled or not.

    The library relies on anyio's shields, and asyncio's own cancellation goes through them but
    for those in another task.
    """

    async def shielded() -> None:
        with anyio.CancelScope(shield=True):
            await close()

    async with anyio.create_task_group() as group:
        group.start_soon(shielded)


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
        settings = client_settings(service, limits or Limits(), proxy, ssl_context, client)
        used = cast("httpx.AsyncClient", client or library.make("AsyncClient", settings))
        transport = HttpxTransport(used, library, own=client is None)
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
        used = cast("httpx.Client", client or library.make("Client", settings))
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
