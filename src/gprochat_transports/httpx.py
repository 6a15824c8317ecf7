"""The httpx transport: moves bytes with an httpx client, on asyncio, on trio, or blocking.

httpx2 is the same library under a new name: a client of either may be passed, and where only one
of them is installed, that one is used.
"""

import sys
import threading
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from math import inf
from ssl import SSLContext, SSLError, create_default_context
from time import monotonic, sleep
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Self, cast

import anyio
import anyio.lowlevel

from gprochat_core import (
    ConfigurationError,
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
from ._sync import SyncClient as AnySyncClient
from .environment import FROM_ENVIRONMENT, Proxy, find_proxy

if TYPE_CHECKING:
    import httpcore
    import httpx
    import httpx2

else:
    try:
        import httpx
    except ImportError:
        import httpx2 as httpx

socks_failures: list[tuple[type[Exception], Failure]] = []
with suppress(ImportError):
    from socksio import SOCKSError

    # The assertions are the library's, about what a proxy says.
    socks_failures = [(SOCKSError, Failure.CONNECT), (AssertionError, Failure.CONNECT)]

__all__ = ["Client", "SyncClient"]

OUT_OF_STEP: Final = "an answer has come that nobody asked for"

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
        if trio := sys.modules.get("trio"):
            rows.append((trio.ClosedResourceError, Failure.LOST))
        self.failures = FailureTable(
            [
                *rows,
                *socks_failures,
                # What anyio's time limit raises, and what its TLS lets through; trio's the same.
                (TimeoutError, Failure.TIMEOUT),
                (SSLError, Failure.LOST),
                (anyio.ClosedResourceError, Failure.LOST),
            ]
        )
        self.body = cast(
            "Callable[[bytes], httpx.AsyncByteStream]",
            type("Body", (Body, self.module.AsyncByteStream), {}),
        )

    def translate(self, error: Exception, progress: "Progress | None" = None) -> TransportError:
        """Return an exception of the library's as a TransportError."""
        reused = progress is not None and progress.reused
        failed = self.failures.translate(error, reused=reused)
        if failed.failure is Failure.MALFORMED and "disconnected" in failed.detail:
            # The one thing it calls a protocol error that is none.
            failed.failure = Failure.LOST
        if progress is not None and progress.connecting:
            # What a proxy does, too, is no more than part of connecting.
            in_time = failed.failure not in (Failure.TIMEOUT, Failure.CONNECT_TIMEOUT)
            failed.failure = Failure.CONNECT if in_time else Failure.CONNECT_TIMEOUT
        return failed


class Body:
    """A request's body, in one piece.

    The library's own is an asynchronous generator, and one that a request leaves unfinished when
    it fails.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = [data]

    def __aiter__(self) -> Self:
        self._left = [self._data]
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


class Progress:
    """How far one request has come, told by the library's trace events.

    Args:
        limits: how long it may take.
        limit: sets in how many seconds to give up, None for never; called at each new stage.

    Attributes:
        timeouts: the time limits, as the library takes them.
        connecting: whether a connection is being made, with all that a proxy and TLS ask for.
        stream: what is connected as long as that lasts; the library does not always close it.
        sending: whether the request itself is under way, or has been.
        reused: whether the request goes over a connection that has served before.
        asked_at: when its first byte was about to be sent, by `time.monotonic`.
        sent_at: when its last byte was sent, by `time.monotonic`.
    """

    def __init__(self, limits: SendLimits, limit: Callable[[float | None], None]) -> None:
        connect = limits.connect
        reply = limits.reply(monotonic())
        self.timeouts = {"connect": connect, "pool": connect, "write": reply, "read": reply}
        self.connecting = False
        self.stream: object = None
        self.sending = False
        self.reused = False
        self.asked_at = self.sent_at = monotonic()
        self._limit = limit
        self._limits = limits
        self._connect_by = None if connect is None else self.sent_at + connect

    def note(self, event: str, info: Mapping[str, object]) -> None:
        """Take a trace event."""
        _, _, step = event.partition(".")
        if step == "connect_tcp.started":
            self.connecting = True
            if self._connect_by is not None:
                self._limit(self._connect_by - monotonic())
        elif step == "connect_tcp.complete":
            self.stream = info["return_value"]
        elif step == "send_request_headers.started" and not is_for_a_proxy(info["request"]):
            self.reused = not self.connecting
            self.connecting = False
            self.stream = None
            self.sending = True
            self.asked_at = monotonic()
            self._limit(None)
        elif step == "send_request_body.complete" and not self.connecting:
            self.sent_at = monotonic()
            self._limit(self._limits.reply(self.sent_at))

    def is_in_step(self, response: httpx.Response) -> bool:
        """Whether a response has come since its request.

        If not, it came behind an earlier one: the library keeps it in its parser, where it cannot
        be seen, and takes it for the answer to the next request.
        """
        heard_at: float = getattr(response.extensions.get("network_stream"), "heard_at", inf)
        return not self.reused or heard_at >= self.asked_at


def note_reads(stream: Any) -> None:
    """Have a stream of the library's know when it was last read from, as `heard_at`."""
    read = stream.read

    async def read_and_note(max_bytes: int, timeout: float | None = None) -> bytes:
        data: bytes = await read(max_bytes, timeout)
        stream.heard_at = monotonic()
        return data

    stream.read = read_and_note


def is_new_stream(event: str) -> bool:
    """Whether an event gives a stream that HTTP will be spoken over, or TLS first."""
    return event.endswith(("connect_tcp.complete", "start_tls.complete"))


def is_for_a_proxy(request: object) -> bool:
    return cast("httpcore.Request", request).method == b"CONNECT"


class HttpxTransport:
    """Sends requests with an asynchronous client, which is closed here if it was made here."""

    def __init__(self, client: httpx.AsyncClient, library: Library, *, own: bool) -> None:
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

    def __init__(self, response: httpx.Response, library: Library, progress: Progress) -> None:
        self._response = response
        self._body = aiter(cast("httpx.AsyncByteStream", response.stream))
        self._library = library
        self._reading = False
        self.sent_at = progress.sent_at
        self.status = response.status_code
        self.headers = response.headers.raw

    async def read(self, timeout: float | None) -> bytes:
        self._reading = True
        try:
            with anyio.fail_after(timeout):
                return await anext(self._body, b"")
        except self._library.failures.kinds as error:
            raise self._library.translate(error) from error
        finally:
            self._reading = False

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


class Deadline(threading.local):
    """Until when the calling thread waits for bytes: within `with`, at most so many seconds.

    A blocking library knows only limits for a single read, which it takes up when it begins to
    read a body, and none for what it says to a SOCKS proxy.
    """

    at: float | None = None

    def set(self, seconds: float | None) -> None:
        """Begin to count; None for no limit."""
        self.at = None if seconds is None else monotonic() + seconds

    @contextmanager
    def within(self, seconds: float | None) -> Generator[None, None, None]:
        """Count while a block lasts."""
        self.set(seconds)
        try:
            yield
        finally:
            self.at = None

    def hold(self, stream: "httpcore.NetworkStream") -> None:
        """Hold a stream of the library's to the deadline of whoever reads from it."""
        read = stream.read

        def read_in_time(max_bytes: int, timeout: float | None = None) -> bytes:
            if self.at is not None:
                # Not 0, which means something else to a socket.
                timeout = max(self.at - monotonic(), 0.001)
            data = read(max_bytes, timeout)
            cast("Any", stream).heard_at = monotonic()
            return data

        stream.read = read_in_time  # type: ignore[method-assign]


class BlockingTransport:
    """Sends requests with a blocking client; its coroutines never suspend."""

    def __init__(self, client: httpx.Client, library: Library, *, own: bool) -> None:
        self._client = client
        self._library = library
        self._own = own
        self._deadline = Deadline()

    async def send(self, request: Request, limits: SendLimits) -> "BlockingResponse":
        def trace(event: str, info: Mapping[str, object]) -> None:
            progress.note(event, info)
            if is_new_stream(event):
                self._deadline.hold(cast("httpcore.NetworkStream", info["return_value"]))

        progress = Progress(limits, self._deadline.set)
        built = build_request(self._client, request, progress, trace)
        try:
            with self._deadline.within(None):
                response = self._client.send(built, stream=True, follow_redirects=False)
        except self._library.failures.kinds as error:
            raise self._library.translate(error, progress) from error
        finally:
            if not progress.sending:
                for lost in take_lost_connections(self._client, built):
                    lost.close()
                if progress.stream is not None:
                    cast("httpcore.NetworkStream", progress.stream).close()
        received = BlockingResponse(response, self._library, progress, self._deadline)
        if not progress.is_in_step(response):
            await received.aclose()
            raise TransportError(Failure.STALE, OUT_OF_STEP)
        return received

    def current_loop(self) -> object:
        return self

    async def sleep(self, seconds: float) -> None:
        sleep(seconds)  # noqa: ASYNC251 - blocking is its purpose

    async def aclose(self) -> None:
        if self._own:
            self._client.close()


class BlockingResponse:
    """A response of a blocking client."""

    def __init__(
        self, response: httpx.Response, library: Library, progress: Progress, deadline: Deadline
    ) -> None:
        self._response = response
        self._body = iter(cast("httpx.SyncByteStream", response.stream))
        self._library = library
        self._deadline = deadline
        self.sent_at = progress.sent_at
        self.status = response.status_code
        self.headers = response.headers.raw

    async def read(self, timeout: float | None) -> bytes:
        try:
            with self._deadline.within(timeout):
                return next(self._body, b"")
        except self._library.failures.kinds as error:
            raise self._library.translate(error) from error

    async def aclose(self) -> None:
        self._response.close()


def take_lost_connections(
    client: httpx.Client | httpx.AsyncClient, request: httpx.Request
) -> list[Any]:
    """Take out of a request's pool what no request will ever get; what is returned is to be closed.

    httpcore keeps a place for a connection whose request ended before it was sent, and for a
    tunnel through a proxy in which TLS failed. It has no public way to give such a place back;
    should what is used here change, the places stay lost.
    """
    with suppress(AttributeError):
        pool = cast("Any", client)._transport_for_url(request.url)._pool
        with pool._optional_thread_lock:
            used = [one.connection for one in pool._requests]
            lost = [one for one in pool._connections if one not in used and not one.is_idle()]
            pool._connections = [one for one in pool._connections if one not in lost]
            return [*lost, *pool._assign_requests_to_connections()]
    return []


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
        extensions={"timeout": progress.timeouts, "trace": trace},
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
        used = cast("httpx.Client", client or library.module.Client(**settings))
        if client is None:
            used.headers.clear()
        transport = BlockingTransport(used, library, own=client is None)
        super().__init__(
            AnyClient(service, transport, timeouts=timeouts, retry=retry, limits=limits)
        )


@cache
def system_context() -> SSLContext:
    """The context that trusts the system's authorities; to make one takes longer than a call."""
    return create_default_context()


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
        "verify": ssl_context or system_context(),
        "trust_env": False,
        # Each call stands for itself, whatever a service would like to remember.
        "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=())),
        "limits": httpx.Limits(max_connections=limits.max_connections),
    }
