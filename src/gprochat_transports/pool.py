"""The connections of one client: slots, reuse, and how long an idle connection is kept.

A call takes a slot first, so there are never more connections than slots; calls wait for a slot
in turn. With the slot it gets the connection that was used last, for that one is the least likely
to have been closed by the server. The pool opens no connection: it says when to open one. It
works on any event loop and between threads, with the events that it is given.
"""

from collections import deque
from collections.abc import Callable, Iterable
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

    def set(self) -> object:
        """Wake the call that waits."""
        ...

    async def wait(self) -> object:
        """Wait until `set` has been called."""
        ...


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
        """Close the connection. It does so even where it is cancelled."""
        ...


C = TypeVar("C", bound=PooledConnection)


class Pool(Generic[C]):
    """The slots and the idle connections of one client.

    Args:
        limits: how many connections there may be, and how long an idle one is kept.
        make_event: makes an event of the loop that the client runs on.

    Attributes:
        deadline: when the oldest idle connection has been kept long enough, for the watchdog.
    """

    def __init__(self, limits: Limits, make_event: Callable[[], Event]) -> None:
        self._keep_alive = limits.keep_alive
        self._free_slots = limits.max_connections
        self._make_event = make_event
        self._queue: deque[Event] = deque()
        self._idle: deque[C] = deque()
        self._in_use: set[C] = set()
        self._watchdog: Watchdog | None = None
        self._lock = Lock()
        self._closed = False
        self.deadline = inf

    def watch(self, watchdog: Watchdog) -> None:
        """Have a watchdog close idle connections in time, without a further call."""
        self._watchdog = watchdog
        watchdog.waits.add(self)

    async def acquire(self) -> C | None:
        """Take a slot, waiting for one in turn.

        Returns:
            an idle connection; None if there is none, and the caller is to open one and `add` it.

        Raises:
            TransportError: the pool was closed meanwhile.
        """
        with self._lock:
            turn = None
            if self._free_slots:
                self._free_slots -= 1
            else:
                turn = self._make_event()
                self._queue.append(turn)
        try:
            if turn is not None:
                await turn.wait()
            await self.expire()
            while (connection := self._pop_idle()) is not None:
                if connection.is_silent():
                    return connection
                self._in_use.discard(connection)
                await connection.aclose()
            if self._closed:
                raise TransportError(Cause.LOST, Phase.WAITING, detail="the client was closed")
        except BaseException:
            with self._lock:
                if turn is not None and turn in self._queue:
                    self._queue.remove(turn)
                else:
                    self._free_slot()
            raise
        return None

    def add(self, connection: C) -> bool:
        """Take note of a connection that was opened for a slot; False if the pool is closed."""
        with self._lock:
            self._in_use.add(connection)
            return not self._closed

    async def release(self, connection: C | None, *, reusable: bool = False) -> None:
        """Give a slot back, and its connection: to be kept for another call, or to be closed.

        Args:
            connection: None if none was opened.
            reusable: whether another request may follow on it.
        """
        with self._lock:
            if connection is not None:
                self._in_use.discard(connection)
                if reusable and self._keep_alive and not self._closed:
                    connection.idle_since = monotonic()
                    self._idle.append(connection)
                    if self._watchdog is not None and self.deadline == inf:
                        self._watchdog.limit(self, self._keep_alive)
                    connection = None
            self._free_slot()
        if connection is not None:
            await connection.aclose()

    async def expire(self) -> None:
        """Close the idle connections that have been kept long enough."""
        now = monotonic()
        expired: list[C] = []
        with self._lock:
            while self._idle and self._idle[0].idle_since + self._keep_alive <= now:
                expired.append(self._idle.popleft())
            if self._watchdog is not None and self._idle and self.deadline == inf:
                oldest = self._idle[0].idle_since
                self._watchdog.limit(self, oldest + self._keep_alive - now)
        await close_all(expired)

    async def aclose(self) -> None:
        """Close all connections, those in use too; calls that wait for a slot end."""
        with self._lock:
            self._closed = True
            connections = [*self._idle, *self._in_use]
            self._idle.clear()
            self.deadline = inf
            while self._queue:
                self._free_slot()
        await close_all(connections)

    def _pop_idle(self) -> C | None:
        with self._lock:
            if not self._idle:
                return None
            connection = self._idle.pop()
            self._in_use.add(connection)
            return connection

    def _free_slot(self) -> None:
        # A slot goes to the call that has waited longest, or back to the free ones.
        if self._queue:
            self._queue.popleft().set()
        else:
            self._free_slots += 1


async def close_all(connections: Iterable[PooledConnection]) -> None:
    """Close connections, each of them even where closing another one was cancelled."""
    async with AsyncExitStack() as stack:
        for connection in connections:
            stack.push_async_callback(connection.aclose)
