"""The httpx transport: moves bytes with an httpx client, on asyncio, on trio, or blocking.

httpx2 is the same library under a new name: a client of either may be passed, and where only one
of them is installed, that one is used.
"""

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from ssl import SSLContext, create_default_context
from time import monotonic, sleep
from types import ModuleType
from typing import TYPE_CHECKING, Final, cast

import anyio
import anyio.lowlevel

from gprochat_core import (
    ConfigurationError,
    Failure,
    Limits,
    Request,
    RetryPolicy,
    Service,
    Timeouts,
    TransportError,
)

from ._client import Client as AnyClient
from ._failures import FailureTable
from ._sync import SyncClient as AnySyncClient
from .environment import FROM_ENVIRONMENT, Proxy, find_proxy

if TYPE_CHECKING:
    import httpx
    import httpx2

else:
    try:
        import httpx
    except ImportError:
        import httpx2 as httpx

__all__ = ["Client", "SyncClient"]

FAILURES: Final[tuple[tuple[str, Failure], ...]] = (
    ("ConnectTimeout", Failure.CONNECT_TIMEOUT),
    ("PoolTimeout", Failure.CONNECT_TIMEOUT),
    ("TimeoutException", Failure.TIMEOUT),
    ("ConnectError", Failure.CONNECT),
    ("ProxyError", Failure.CONNECT),
    ("NetworkError", Failure.LOST),
    ("RemoteProtocolError", Failure.MALFORMED),
    ("TransportError", Failure.CONNECT),
    ("InvalidURL", Failure.CONNECT),
)
"""Exceptions by the name that they have in both libraries."""


class Library:
    """httpx or httpx2: what the transports need of it besides a client.

    Args:
        client: a client of the library to use; None for the one that is installed.
        kind: what a client's class is called there.
    """

    def __init__(self, client: object, kind: str) -> None:
        self.module: ModuleType = httpx
        if client is not None:
            modules = (sys.modules.get(name) for name in ("httpx", "httpx2"))
            found = [one for one in modules if one and isinstance(client, getattr(one, kind))]
            if not found:
                raise ConfigurationError(
                    f"client= takes an httpx.{kind}, not a {type(client).__qualname__}"
                )
            self.module = found[0]
        rows = [(getattr(self.module, name), failure) for name, failure in FAILURES]
        # What anyio's time limit raises.
        self.failures = FailureTable([*rows, (TimeoutError, Failure.TIMEOUT)])

    def translate(self, error: Exception, progress: "Progress | None" = None) -> TransportError:
        """Return an exception of the library's as a TransportError."""
        failed = self.failures.translate(error)
        if failed.failure is Failure.MALFORMED and "disconnected" in failed.detail:
            # The one thing it calls a protocol error that is none.
            failed.failure = Failure.LOST
        if failed.failure is Failure.LOST and progress is not None and progress.reused:
            failed.failure = Failure.STALE
        return failed


class Progress:
    """How far one request has come, told by the library's trace events.

    Attributes:
        limits: the time limits, as the library takes them.
        sent_at: when the last byte was sent, by `time.monotonic`.
        reused: whether it goes over a connection that has served before.
    """

    def __init__(self, connect: float | None, reply: float | None) -> None:
        self.limits = {"connect": connect, "pool": connect, "write": reply, "read": reply}
        self.sent_at = monotonic()
        self.reused = True

    def note(self, event: str, info: Mapping[str, object]) -> bool:
        """Take a trace event; tell whether it is that the last byte has been sent."""
        if event.endswith("connect_tcp.started"):
            self.reused = False
        sent = event.endswith("send_request_body.complete")
        if sent:
            self.sent_at = monotonic()
        return sent


class HttpxTransport:
    """Sends requests with an asynchronous client, which is closed here if it was made here."""

    def __init__(self, client: httpx.AsyncClient, library: Library, *, own: bool) -> None:
        self._client = client
        self._library = library
        self._own = own

    async def send(
        self, request: Request, connect_timeout: float | None, reply_timeout: float | None
    ) -> "HttpxResponse":
        progress = Progress(connect_timeout, reply_timeout)

        async def trace(event: str, info: Mapping[str, object]) -> None:
            if progress.note(event, info) and reply_timeout is not None:
                scope.deadline = anyio.current_time() + reply_timeout

        try:
            # The library's own limit would start anew with every byte of a head.
            with anyio.CancelScope() as scope:
                response = await self._client.send(
                    build_request(self._client, request, progress, trace),
                    stream=True,
                    follow_redirects=False,
                )
                # From here on the limit comes with each read.
                progress.limits["read"] = None
                return HttpxResponse(response, self._library, progress)
        except self._library.failures.kinds as error:
            raise self._library.translate(error, progress) from error
        raise TransportError(Failure.TIMEOUT)

    def current_loop(self) -> object:
        return anyio.lowlevel.current_token()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def aclose(self) -> None:
        if self._own:
            await self._client.aclose()


class HttpxResponse:
    """A response of an asynchronous client."""

    def __init__(self, response: httpx.Response, library: Library, progress: Progress) -> None:
        self._response = response
        self._body = aiter(cast("httpx.AsyncByteStream", response.stream))
        self._library = library
        self.sent_at = progress.sent_at
        self.status = response.status_code
        self.headers = response.headers.raw

    async def read(self, timeout: float | None) -> bytes:
        try:
            with anyio.fail_after(timeout):
                return await anext(self._body, b"")
        except self._library.failures.kinds as error:
            raise self._library.translate(error) from error

    async def aclose(self) -> None:
        await self._response.aclose()
        # The body is several asynchronous generators in each other, and closing the outermost
        # would leave the rest to the garbage collector. On a closed connection the innermost
        # fails, and all of them end.
        with suppress(*self._library.failures.kinds):
            while await anext(self._body, b""):
                pass


class BlockingTransport:
    """Sends requests with a blocking client; its coroutines never suspend."""

    def __init__(self, client: httpx.Client, library: Library, *, own: bool) -> None:
        self._client = client
        self._library = library
        self._own = own

    async def send(
        self, request: Request, connect_timeout: float | None, reply_timeout: float | None
    ) -> "BlockingResponse":
        progress = Progress(connect_timeout, reply_timeout)
        try:
            response = self._client.send(
                build_request(self._client, request, progress, progress.note),
                stream=True,
                follow_redirects=False,
            )
        except self._library.failures.kinds as error:
            raise self._library.translate(error, progress) from error
        return BlockingResponse(response, self._library, progress)

    def current_loop(self) -> object:
        return self

    async def sleep(self, seconds: float) -> None:
        sleep(seconds)  # noqa: ASYNC251 - blocking is its purpose

    async def aclose(self) -> None:
        if self._own:
            self._client.close()


class BlockingResponse:
    """A response of a blocking client."""

    def __init__(self, response: httpx.Response, library: Library, progress: Progress) -> None:
        self._response = response
        self._body = iter(cast("httpx.SyncByteStream", response.stream))
        self._library = library
        self._limits = progress.limits
        self.sent_at = progress.sent_at
        self.status = response.status_code
        self.headers = response.headers.raw

    async def read(self, timeout: float | None) -> bytes:
        # The library takes up a changed limit once, when reading begins.
        self._limits["read"] = timeout
        try:
            return next(self._body, b"")
        except self._library.failures.kinds as error:
            raise self._library.translate(error) from error

    async def aclose(self) -> None:
        self._response.close()


def build_request(
    client: httpx.Client | httpx.AsyncClient,
    request: Request,
    progress: Progress,
    trace: Callable[[str, Mapping[str, object]], object],
) -> httpx.Request:
    """A request as the library has it, with the client's own headers where ours say nothing."""
    return client.build_request(
        request.method,
        request.url,
        headers=request.headers,
        content=request.body,
        extensions={"timeout": progress.limits, "trace": trace},
    )


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
        used = cast("httpx.AsyncClient", client or library.module.AsyncClient(**settings))
        if client is None:
            used.headers.clear()
        transport = HttpxTransport(used, library, own=client is None)
        super().__init__(service, transport, timeouts=timeouts, retry=retry, limits=limits)


class SyncClient(AnySyncClient):
    """A client on httpx that blocks; but for `async` and `await` the same as `Client`.

    httpx reads a body under one time limit, so `Timeouts.first_byte` bounds the pauses within a
    reply too, instead of `Timeouts.idle`.
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
        client: "httpx.Client | httpx2.Client | None" = None,
    ) -> None:
        library = Library(client, "Client")
        settings = client_settings(service, limits or Limits(), proxy, ssl_context, client)
        used = cast("httpx.Client", client or library.module.Client(**settings))
        if client is None:
            used.headers.clear()
        transport = BlockingTransport(used, library, own=client is None)
        super().__init__(
            AnyClient(service, transport, timeouts=timeouts, retry=retry, limits=limits)
        )


def client_settings(
    service: Service,
    limits: Limits,
    proxy: Proxy,
    ssl_context: SSLContext | None,
    client: object | None,
) -> dict[str, object]:
    """What a client made here is made with; refuses what belongs to one made elsewhere."""
    if client is not None:
        if proxy not in (None, FROM_ENVIRONMENT) or ssl_context is not None:
            raise ConfigurationError("set proxy and TLS on the client that you pass")
        return {}
    return {
        "proxy": find_proxy(service.url, proxy),
        "verify": ssl_context or create_default_context(),
        "trust_env": False,
        "limits": httpx.Limits(max_connections=limits.max_connections),
    }
