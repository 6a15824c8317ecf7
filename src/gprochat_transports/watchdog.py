"""Ends the waits that take too long: one look over all of a client's calls, now and then.

To set and cancel a timer, or a cancel scope, for each piece of text costs more than to parse the
piece. So a wait only notes its deadline, and one timer or task of a client's looks when the first
of them may have passed.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import inf
from typing import Final, Protocol

__all__ = ["Wait", "Watch"]

GRACE: Final = 0.005
"""Seconds from the look that finds a wait too long to the one that ends it. A program that stood
still itself meets the deadline together with what it waited for, and has yet to take it."""


class Wait(Protocol):
    """Something that may wait for too long.

    Attributes:
        deadline: when the present wait is too long, on the watch's clock; infinity where there is
            none, and so as soon as the wait is over.
    """

    deadline: float

    def expire(self) -> None:
        """End the wait."""
        ...


class Watch(ABC):
    """Looks after the waits of one client; how it is woken is the event loop's.

    Args:
        clock: the event loop's.

    Attributes:
        waits: what may wait, at any time.
        next_look: when there is a look, by the clock; infinity for never.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.waits: set[Wait] = set()
        self.next_look = inf
        self._clock = clock
        self._late: list[tuple[Wait, float]] = []

    def limit(self, wait: Wait, seconds: float | None) -> None:
        """Have a wait end in that time from now; None for as long as it takes."""
        if seconds is None:
            wait.deadline = inf
            return
        wait.deadline = deadline = self._clock() + seconds
        if deadline < self.next_look:
            self.next_look = deadline
            self.wake_at(deadline)

    def look(self) -> None:
        """End what was too long at the last look and still is; arrange for the next look."""
        now = self._clock()
        for wait, deadline in self._late:
            if wait.deadline == deadline:
                wait.deadline = inf
                wait.expire()
        self._late = [(wait, wait.deadline) for wait in self.waits if wait.deadline <= now]
        if self._late:
            self.next_look = now + GRACE
        else:
            self.next_look = min((wait.deadline for wait in self.waits), default=inf)
        if self.next_look < inf:
            self.wake_at(self.next_look)

    @abstractmethod
    def wake_at(self, time: float) -> None:
        """Call `look` at that time, and at no other that was asked for before."""

    @abstractmethod
    async def stop(self) -> None:
        """Look no more, until there is another wait."""
