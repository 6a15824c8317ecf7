"""What a call over httpx goes over: a connection made here, or a client that was passed.

The library's pool looks at all its connections for each call, and for each idle one at all others;
it offers one that is free to all calls that ask at once; and it loses places. So a connection
made here is a transport of the library's to itself, with a pool of one.
"""

from collections.abc import Callable
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Protocol, cast

import anyio

from gprochat_core import Failure, Request, TransportError

from .call import Progress, Trace, build_request, take_lost_connections
from .library import KEPT_SECONDS, Library

if TYPE_CHECKING:
    import httpcore
    import httpx

__all__ = ["Connection", "Connections", "GivenClient", "OwnConnections"]


class Connection(Protocol):
    """What one call goes over."""

    async def send(self, request: "httpx.Request") -> "httpx.Response":
        """Send a request and return its response as soon as the head is there."""
        ...

    async def release(self, *, fit: bool) -> None:
        """Take note that the response has been closed.

        Args:
            fit: whether it had been read to its end.
        """
        ...

    async def lose(self, request: "httpx.Request", progress: Progress) -> None:
        """Clean up after a request that has no response."""
        ...


class Connections(Protocol):
    """All that calls of a client may go over."""

    def build_request(self, request: Request, progress: Progress, trace: Trace) -> "httpx.Request":
        """Put a request as the library has it."""
        ...

    async def acquire(self, timeout: float | None) -> Connection:
        """Wait until a call may have one.

        Raises:
            TransportError: CONNECT_TIMEOUT after so many seconds.
        """
        ...

    async def aclose(self) -> None:
        """Close what was made here."""
        ...


class OwnConnections:
    """Connections that are made here when they are needed, and kept for a while.

    Args:
        library: what they are made with.
        make: makes one.
        number: how many there may be.
    """

    def __init__(
        self, library: Library, make: Callable[[], "httpx.AsyncHTTPTransport"], number: int
    ) -> None:
        self._library = library
        self._make = make
        self._url = lru_cache(maxsize=1)(library.module.URL)
        self._places = anyio.Semaphore(number, fast_acquire=True)
        self._idle: list[OwnConnection] = []
        self._all: set[OwnConnection] = set()
        self._closed = False

    def build_request(self, request: Request, progress: Progress, trace: Trace) -> "httpx.Request":
        return cast(
            "httpx.Request",
            self._library.module.Request(
                request.method,
                self._url(request.url),
                headers=request.headers,
                content=request.body,
                extensions={"timeout": progress.timeouts, "trace": trace},
            ),
        )

    async def acquire(self, timeout: float | None) -> "OwnConnection":
        try:
            self._places.acquire_nowait()
        except anyio.WouldBlock:
            with anyio.move_on_after(timeout) as waiting:
                await self._places.acquire()
            if waiting.cancelled_caught:
                raise TransportError(Failure.CONNECT_TIMEOUT) from None
        if self._closed:
            self._places.release()
            raise TransportError(Failure.LOST, "the client was closed meanwhile")
        if self._idle:
            return self._idle.pop()
        connection = OwnConnection(self._make(), self)
        self._all.add(connection)
        return connection

    async def take_back(self, connection: "OwnConnection", *, fit: bool) -> None:
        """Keep a connection for another call, or close it; close those kept for too long."""
        self._places.release()
        over: list[OwnConnection] = []
        now = monotonic()
        while self._idle and self._idle[0].idle_since < now - KEPT_SECONDS:
            over.append(self._idle.pop(0))
        if fit and not self._closed:
            connection.idle_since = now
            self._idle.append(connection)
        else:
            over.append(connection)
        self._all.difference_update(over)
        for each in over:
            await each.transport.aclose()

    async def aclose(self) -> None:
        self._closed = True
        self._idle.clear()
        while self._all:
            await self._all.pop().transport.aclose()


class OwnConnection:
    """One of them; where the other end has closed it, the library makes it anew."""

    def __init__(self, transport: "httpx.AsyncHTTPTransport", all_of_them: OwnConnections) -> None:
        self.transport = transport
        self.idle_since = 0.0
        self._all = all_of_them

    async def send(self, request: "httpx.Request") -> "httpx.Response":
        return await self.transport.handle_async_request(request)

    async def release(self, *, fit: bool) -> None:
        await self._all.take_back(self, fit=fit)

    async def lose(self, request: "httpx.Request", progress: Progress) -> None:
        await self._all.take_back(self, fit=False)
        await close_connecting(progress)


class GivenClient:
    """A client that the caller made, with a pool and all else of its own."""

    def __init__(self, client: "httpx.AsyncClient") -> None:
        self._client = client

    def build_request(self, request: Request, progress: Progress, trace: Trace) -> "httpx.Request":
        return build_request(self._client, request, progress, trace)

    async def acquire(self, timeout: float | None) -> "GivenClient":
        return self

    async def send(self, request: "httpx.Request") -> "httpx.Response":
        return await self._client.send(request, stream=True, follow_redirects=False)

    async def release(self, *, fit: bool) -> None:
        pass

    async def lose(self, request: "httpx.Request", progress: Progress) -> None:
        if not progress.sending:
            for connection in take_lost_connections(self._client, request):
                await connection.aclose()
            await close_connecting(progress)

    async def aclose(self) -> None:
        pass


async def close_connecting(progress: Progress) -> None:
    """Close what had been connected for a request that was not sent."""
    if progress.stream is not None:
        await cast("httpcore.AsyncNetworkStream", progress.stream).aclose()
