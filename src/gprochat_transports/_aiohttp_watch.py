"""The watch on aiohttp's waits: one timer for all calls of a client."""

import asyncio
from math import inf

from ._waits import Wait, Waits

__all__ = ["Watch"]


class Watch:
    """Ends waits that take too long.

    Attributes:
        waits: the calls that are under way.
        next_look: when there is a look, on the loop's clock; infinity for never.
    """

    def __init__(self) -> None:
        self.waits: set[Wait] = set()
        self.next_look = inf
        self._looker = Waits(self.waits)
        self._timer: asyncio.TimerHandle | None = None

    def look_by(self, deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        """See that there is a look at this time, or before."""
        if deadline < self.next_look:
            self.stop()
            self.next_look = deadline
            self._timer = loop.call_at(deadline, self._look, loop)

    def stop(self) -> None:
        """Look no more, until there is another wait."""
        self.next_look = inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self.stop()
        self.look_by(self._looker.look(loop.time()), loop)
