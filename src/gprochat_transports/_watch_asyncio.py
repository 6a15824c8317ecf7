"""The watch on asyncio: a timer of the loop's."""

import asyncio
from math import inf

from .watchdog import Watch

__all__ = ["AsyncioWatch"]


class AsyncioWatch(Watch):
    """Ends waits on the running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        super().__init__(self._loop.time)

    def wake_at(self, time: float) -> None:
        """Call `look` at that time, and at no other that was asked for before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(time, self.look)

    async def stop(self) -> None:
        """Look no more, until there is another wait."""
        self.next_look = inf
        if self._timer is not None:
            self._timer.cancel()
