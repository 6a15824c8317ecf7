"""The connections of one client: slots, reuse, and how long an idle connection is kept.

A call takes a slot, in turn, so there are never more connections than slots. Then it takes the idle
connection that was used last, because the server is the least likely to have closed this one.
The pool works on any event loop and between threads, with the events that it is given.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from math import inf
from threading import Lock
from time import monotonic
from typing import Generic, Protocol, TypeVar

from gprochat_core import Cause, Limits, Phase, TransportError

from .watchdog import Watchdog

__all__ = ["Event", "Pool", "PooledConnection"]


class Event(Protocol):
    """Something to wait for once, such as `trio.Event` and `asyncio.Event`."""

    def set(self) -> object: ...

    async def wait(self) -> object: ...


class PooledConnection(Protocol):
    """What a pool needs of a connection.

    Attributes:
        idle_since: when its last call ended, by `time.monotonic`; the pool sets it.
    """

    idle_since: float

    def is_silent(self) -> bool:
        """Tell whether nothing has arrived since the last reply, not even the connection's end."""
        ...

    async def aclose(self) -> None:
        """Close the connection, even if this is cancelled."""
        ...


C = TypeVar("C", bound=PooledConnection)


class Pool(Generic[C]):
    """The slots and the connections of one client.

    Args:
        limits: how many connections there may be, and how long an idle one is kept.
        make_event: makes an event of the loop that the client runs on.

    Attributes:
        deadline: when the oldest idle connection expires, for the watchdog.
    """

    def __init__(self, limits: Limits, make_event: Callable[[], Event]) -> None:
        self.deadline: float = inf
        self._keep_alive = limits.keep_alive
        self._free_slots = limits.max_connections
        self._make_event = make_event
        self._queue: deque[Event] = deque()
        self._idle: deque[C] = deque()
        self._in_use: set[C] = set()
        self._watchdog: Watchdog | None = None
        self._lock = Lock()
        self._closed = False

    def watch(self, watchdog: Watchdog) -> None:
        """Have a watchdog close idle connections in time, without a further call."""
        self._watchdog = watchdog
        watchdog.waits.add(self)

    async def acquire(self, connect: Callable[[], Awaitable[C]]) -> C:
        """Take a slot, waiting for one in turn, and return a connection for it.

        Args:
            connect: opens a connection; called if no idle one is left.

        Raises:
            TransportError: the pool was closed meanwhile.
            Exception: what `connect` or the wait for a slot raised.
        """
        with self._lock:
            turn = None if self._free_slots else self._make_event()
            if turn is None:
                self._free_slots -= 1
            else:
                self._queue.append(turn)
        try:
            if turn is not None:
                await turn.wait()
            await self.expire()
            while not self._closed:
                with self._lock:
                    idle = self._idle.pop() if self._idle else None
                connection = idle or await connect()
                self._in_use.add(connection)
                if not self._closed and (idle is None or idle.is_silent()):
                    return connection
                self._in_use.discard(connection)
                await connection.aclose()
            raise TransportError(Cause.LOST, Phase.WAITING, detail="the client was closed")
        except BaseException:
            with self._lock:
                if turn is not None and turn in self._queue:
                    self._queue.remove(turn)
                else:
                    self._free_slot()
            raise

    async def release(self, connection: C, *, reusable: bool = False) -> None:
        """Give back a slot and its connection, which is kept only if another request may follow."""
        with self._lock:
            self._in_use.discard(connection)
            kept = reusable and self._keep_alive > 0 and not self._closed
            if kept:
                connection.idle_since = monotonic()
                self._idle.append(connection)
                self._limit()
            self._free_slot()
        if not kept:
            await connection.aclose()

    async def expire(self) -> None:
        """Close the connections that have been idle for `Limits.keep_alive` seconds."""
        expired: list[C] = []
        with self._lock:
            while self._idle and self._idle[0].idle_since + self._keep_alive <= monotonic():
                expired.append(self._idle.popleft())
            self._limit()
        if expired:
            await close_all(expired)

    async def aclose(self) -> None:
        """Close all connections, those in use too; calls that wait for a slot end."""
        with self._lock:
            self._closed = True
            connections = [*self._idle, *self._in_use]
            self._idle.clear()
            while self._queue:
                self._free_slot()
        await close_all(connections)

    def _free_slot(self) -> None:
        # A slot goes to the call that has waited longest, or back to the free ones.
        if self._queue:
            self._queue.popleft().set()
        else:
            self._free_slots += 1

    def _limit(self) -> None:
        if self._watchdog is not None and self._idle and self.deadline == inf:
            self._watchdog.limit(self, self._idle[0].idle_since + self._keep_alive - monotonic())


async def close_all(connections: Iterable[PooledConnection]) -> None:
    """Close all connections, even if closing one fails or is cancelled."""
    async with AsyncExitStack() as stack:
        for connection in connections:
            stack.push_async_callback(connection.aclose)
