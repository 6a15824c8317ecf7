"""The adapters that the suite is played on, each with its event loop.

A test is written once, as a coroutine function; the loops here run it. The blocking client gets
the face of the asynchronous one, so it takes the same tests, with awaits that block.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib import import_module
from ssl import SSLContext
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeAlias, TypedDict, Unpack

import httpx
import httpx2
import trio

import gprochat_transports.aiohttp
import gprochat_transports.httpx
import gprochat_transports.trio
from gprochat_core import Conversation, Limits, RetryPolicy, Service, Timeouts
from gprochat_transports.environment import FROM_ENVIRONMENT, Proxy, find_proxy
from gprochat_transports.sync import SyncClient, SyncReply

__all__ = ["ADAPTERS", "LOOPS", "Adapter", "Client", "Reply", "load"]

Body: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


class Reply(Protocol):
    """`gprochat_transports.Reply` as the tests use it."""

    @property
    def text(self) -> str: ...
    @property
    def status(self) -> int | None: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def attempts(self) -> int: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> str: ...


class CallOptions(TypedDict, total=False):
    """What a call may have of its own."""

    timeouts: Timeouts | None
    retry: RetryPolicy | None


class Client(Protocol):
    """`gprochat_transports.Client` as the tests use it."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
    async def aclose(self) -> None: ...
    def stream(
        self,
        conversation: Conversation,
        /,
        *,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
    ) -> Reply: ...
    async def complete(
        self,
        conversation: Conversation,
        /,
        *,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
    ) -> str: ...


class Loop(Protocol):
    """Runs tests."""

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a test's coroutine to its end, and fail if it leaves anything behind."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let the rest of the loop go on."""
        ...

    async def cancel(self, when: Callable[[], Awaitable[object]], body: Body) -> None:
        """Run a body, cancel it when `when` has returned; fail unless cancellation ended it."""
        ...


class Asyncio:
    """asyncio. A complaint that its loop would only log is a failure."""

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        complaints: list[dict[str, Any]] = []

        async def run() -> None:
            asyncio.get_running_loop().set_exception_handler(
                lambda _, context: complaints.append(context)
            )
            await main()
            left_behind = asyncio.all_tasks() - {asyncio.current_task()}
            assert left_behind == set()

        asyncio.run(run())
        assert complaints == []

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def cancel(self, when: Callable[[], Awaitable[object]], body: Body) -> None:
        task = asyncio.create_task(body())
        await when()
        task.cancel("for the test")
        try:
            await task
        except asyncio.CancelledError:
            return
        raise AssertionError("the body was not cancelled")


class Trio:
    """trio. It never leaves a task behind."""

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        trio.run(main)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def cancel(self, when: Callable[[], Awaitable[object]], body: Body) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(body)
            await when()
            nursery.cancel_scope.cancel()
        assert nursery.cancel_scope.cancelled_caught, "the body was not cancelled"


class Blocking:
    """No loop: every await of the test has a result at once."""

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            main().send(None)
        except StopIteration:
            return
        raise AssertionError("a blocking client suspended")

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - there is no loop that it could block

    async def cancel(self, when: Callable[[], Awaitable[object]], body: Body) -> None:
        raise NotImplementedError("a blocking call cannot be cancelled")


class UnblockedReply:
    """A `SyncReply` with the face of a `Reply`."""

    def __init__(self, reply: SyncReply) -> None:
        self._reply = reply

    @property
    def text(self) -> str:
        return self._reply.text

    @property
    def status(self) -> int | None:
        return self._reply.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._reply.headers

    @property
    def attempts(self) -> int:
        return self._reply.attempts

    async def __aenter__(self) -> Self:
        self._reply.__enter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._reply.__exit__(exc_type, exc, traceback)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        try:
            return next(self._reply)
        except StopIteration:
            raise StopAsyncIteration from None


class UnblockedClient:
    """A `SyncClient` with the face of a `Client`."""

    def __init__(self, client: SyncClient) -> None:
        self._client = client

    async def __aenter__(self) -> Self:
        self._client.__enter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.__exit__(exc_type, exc, traceback)

    async def aclose(self) -> None:
        self._client.close()

    def stream(self, conversation: Conversation, **options: Unpack[CallOptions]) -> UnblockedReply:
        return UnblockedReply(self._client.stream(conversation, **options))

    async def complete(self, conversation: Conversation, **options: Unpack[CallOptions]) -> str:
        return self._client.complete(conversation, **options)


class OverGiven(gprochat_transports.httpx.Client):
    """A client over a client of httpx or httpx2, which it closes with itself."""

    def __init__(
        self, service: Service, given: httpx.AsyncClient | httpx2.AsyncClient, **settings: Any
    ) -> None:
        super().__init__(service, client=given, **settings)
        self._given = given

    async def aclose(self) -> None:
        await super().aclose()
        await self._given.aclose()


@cache
def usual_ssl_context() -> SSLContext:
    """The context that httpx makes by itself, made once: loading all authorities takes long."""
    return httpx.create_ssl_context()


def over_plain_httpx(
    service: Service,
    *,
    proxy: Proxy = FROM_ENVIRONMENT,
    ssl_context: SSLContext | None = None,
    **settings: Any,
) -> OverGiven:
    """Make a client over `httpx.AsyncClient()` as it comes: only proxy and TLS are set."""
    given = httpx.AsyncClient(
        proxy=find_proxy(service.url, proxy),
        verify=ssl_context or usual_ssl_context(),
        trust_env=False,
    )
    return OverGiven(service, given, **settings)


def over_tuned_httpx2(
    service: Service,
    *,
    limits: Limits | None = None,
    proxy: Proxy = FROM_ENVIRONMENT,
    ssl_context: SSLContext | None = None,
    **settings: Any,
) -> OverGiven:
    """Make a client over an `httpx2.AsyncClient` that has all the settings of an own transport."""
    wanted = limits or Limits()
    given = httpx2.AsyncClient(
        proxy=find_proxy(service.url, proxy),
        verify=ssl_context or usual_ssl_context(),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        limits=httpx2.Limits(
            max_connections=wanted.max_connections, keepalive_expiry=wanted.keep_alive
        ),
        trust_env=False,
    )
    given.headers.clear()
    return OverGiven(service, given, limits=limits, **settings)


@dataclass(frozen=True)
class Adapter:
    """An adapter to be tested.

    Attributes:
        name: stands in the names of its tests.
        loop: the loop that it runs on.
        make: makes a client, called as `Client(service, ...)`.
        given: whether `make` passes a client of the library, whose settings then count.
    """

    name: str
    loop: Loop
    make: Callable[..., Client]
    given: bool = False


def blocking(make: Callable[..., SyncClient]) -> Callable[..., Client]:
    """Turn a function that makes blocking clients into one that makes clients for these tests."""
    return lambda service, **settings: UnblockedClient(make(service, **settings))


def load(name: str) -> Adapter:
    """Return the adapter that `module:callable@loop` names; the default loop is asyncio."""
    path, _, loop = name.partition("@")
    module, _, attribute = path.partition(":")
    make: Callable[..., Any] = getattr(import_module(module), attribute)
    if loop == "blocking":
        make = blocking(make)
    return Adapter(name, LOOPS[loop or "asyncio"], make)


LOOPS: Final[Mapping[str, Loop]] = {"asyncio": Asyncio(), "trio": Trio(), "blocking": Blocking()}

ADAPTERS: Final[Sequence[Adapter]] = (
    Adapter("aiohttp@asyncio", LOOPS["asyncio"], gprochat_transports.aiohttp.Client),
    Adapter("httpx@asyncio", LOOPS["asyncio"], gprochat_transports.httpx.Client),
    Adapter("httpx@trio", LOOPS["trio"], gprochat_transports.httpx.Client),
    Adapter("given-httpx@asyncio", LOOPS["asyncio"], over_plain_httpx, given=True),
    Adapter("httpx2@asyncio", LOOPS["asyncio"], over_tuned_httpx2, given=True),
    Adapter("trio@trio", LOOPS["trio"], gprochat_transports.trio.Client),
    Adapter("httpx@blocking", LOOPS["blocking"], blocking(gprochat_transports.httpx.SyncClient)),
)
