"""Ends waits that take too long: one timer for all of a client's waits.

Setting and cancelling a timer, or entering a cancel scope, for each piece of text costs more than
parsing the piece. So a wait only notes its deadline, and a single task of the client looks at all
deadlines when the earliest of them may have passed. The task ends when no deadline is left.
"""

import sys
from abc import ABC, abstractmethod
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:  # each is imported where it is used: a program has one event loop
    import asyncio

    import trio

__all__ = ["AsyncioWatchdog", "TrioWatchdog", "Wait", "Watchdog", "make_watchdog"]

GRACE: Final = 0.005
"""Seconds between finding a wait overdue and ending it. If the whole program stood still, the
awaited bytes may have arrived too, and the event loop needs a moment to deliver them."""


class Wait(Protocol):
    """An object whose present wait may take too long, such as a connection.

    Attributes:
        deadline: when the present wait ends, by `time.monotonic`; infinity for no limit.
    """

    deadline: float

    async def expire(self) -> None:
        """End the wait. It must not raise, and must not wait for a peer."""


class Watchdog(ABC):
    """Watches the waits of one client on one event loop.

    Attributes:
        waits: everything that may wait; the owner of a wait adds and removes it.
        next_look: when the deadlines are looked at next, by `time.monotonic`; infinity for never.
        closed: whether the client has been closed.
    """

    def __init__(self) -> None:
        self.waits: set[Wait] = set()
        self.next_look: float = inf
        self.closed: bool = False

    def limit(self, wait: Wait, seconds: float | None) -> None:
        """Have a wait end so many seconds from now; None for no limit."""
        if seconds is None:
            wait.deadline = inf
            return
        wait.deadline = deadline = monotonic() + seconds
        if deadline < self.next_look and not self.closed:
            self.next_look = deadline
            self.wake_at(deadline)

    async def watch(self) -> None:
        """Look at the deadlines until none is left: the body of the task."""
        overdue: list[tuple[Wait, float]] = []
        try:
            while self.next_look < inf and not self.closed:
                await self.sleep_until(self.next_look)
                if (now := monotonic()) < self.next_look:
                    continue
                for wait, deadline in overdue:
                    if wait.deadline == deadline:
                        wait.deadline = inf
                        await wait.expire()
                overdue = [(wait, wait.deadline) for wait in self.waits if wait.deadline <= now]
                earliest = min((wait.deadline for wait in self.waits), default=inf)
                self.next_look = now + GRACE if overdue else earliest
        finally:
            self.next_look = inf  # If somebody cancelled the task, the next wait begins a new one.

    @abstractmethod
    def wake_at(self, time: float) -> None:
        """Make sure that the task runs, and looks at that time at the latest."""

    @abstractmethod
    async def sleep_until(self, time: float) -> None:
        """Sleep in the task until that time, or an earlier one that `wake_at` names meanwhile."""

    async def aclose(self) -> None:
        """End the task, and wait for its end; no later wait starts it anew."""
        self.closed = True


class AsyncioWatchdog(Watchdog):
    """The watchdog on asyncio: its task waits within an `asyncio.timeout` that is rescheduled."""

    _task: "asyncio.Task[None] | None" = None
    _nap: "asyncio.Timeout | None" = None

    def wake_at(self, time: float) -> None:
        import asyncio

        if self._task is None or self._task.done():
            self._nap = None
            self._task = asyncio.create_task(self.watch(), name="gprochat watchdog")
        elif self._nap is not None and not self._nap.expired():
            self._nap.reschedule(asyncio.get_running_loop().time() + time - monotonic())

    async def sleep_until(self, time: float) -> None:
        import asyncio

        try:
            async with asyncio.timeout(time - monotonic()) as self._nap:
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            self._nap = None

    async def aclose(self) -> None:
        import asyncio

        await super().aclose()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


class TrioWatchdog(Watchdog):
    """The watchdog on trio: a system task that sleeps within a cancel scope."""

    _nap: "trio.CancelScope | None" = None
    _ended: "trio.Event | None" = None

    def wake_at(self, time: float) -> None:
        import trio

        if self._ended is None:
            self._ended = trio.Event()
            trio.lowlevel.spawn_system_task(self._run, self._ended)
        elif self._nap is not None:
            self._nap.deadline = trio.current_time() + time - monotonic()

    async def sleep_until(self, time: float) -> None:
        import trio

        with trio.move_on_after(max(0.0, time - monotonic())) as self._nap:
            await trio.sleep_forever()
        self._nap = None

    async def aclose(self) -> None:
        import trio

        await super().aclose()
        if self._nap is not None:
            self._nap.cancel()
        if self._ended is not None:
            with trio.CancelScope(shield=True):
                await self._ended.wait()

    async def _run(self, ended: "trio.Event") -> None:
        try:
            await self.watch()
        finally:
            self._ended = None
            ended.set()


def make_watchdog() -> Watchdog:
    """Return a watchdog for the event loop that runs."""
    trio = sys.modules.get("trio")
    return TrioWatchdog() if trio and trio.lowlevel.in_trio_task() else AsyncioWatchdog()
