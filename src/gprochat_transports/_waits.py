"""Which waits have been too long: one look over all of a client's calls, now and then.

To set and cancel a timer, or a cancel scope, for each piece of text costs more than to parse the
piece. So a wait only notes its deadline, and one timer or task of a client's looks when the first
of them may have passed.
"""

from collections.abc import Collection
from math import inf
from typing import Final, Protocol

__all__ = ["Wait", "Waits"]

GRACE: Final = 0.005
"""Seconds from the look that finds a wait too long to the one that ends it. A program that stood
still itself meets the deadline together with what it waited for, and has yet to take it."""


class Wait(Protocol):
    """Something that may wait for too long.

    Attributes:
        deadline: when the present wait is too long, on the loop's clock; infinity where none is.
    """

    deadline: float

    def expire(self) -> None:
        """End the wait, and set no other deadline."""
        ...


class Waits:
    """Finds those that are too long.

    Args:
        waits: all there are, at any time.
    """

    def __init__(self, waits: Collection[Wait]) -> None:
        self._waits = waits
        self._late: list[tuple[Wait, float]] = []

    def look(self, now: float) -> float:
        """End what was too long at the last look and still is; return when to look next.

        Returns:
            a time on the clock of `now`; infinity where nothing waits with a deadline.
        """
        for wait, deadline in self._late:
            if wait.deadline == deadline:
                wait.expire()
                wait.deadline = inf
        self._late = [(wait, wait.deadline) for wait in self._waits if wait.deadline <= now]
        if self._late:
            return now + GRACE
        return min((wait.deadline for wait in self._waits), default=inf)
