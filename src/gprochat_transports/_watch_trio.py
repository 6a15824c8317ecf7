"""The watch on trio: a task that sleeps until the next look, and is gone when there is none."""

from math import inf

import trio

from .watchdog import Watch

__all__ = ["TrioWatch"]


class TrioWatch(Watch):
    """Ends waits in the running trio."""

    def __init__(self) -> None:
        super().__init__(trio.current_time)
        self._nap: trio.CancelScope | None = None
        self._stopped = False
        self._over = trio.Event()

    def wake_at(self, time: float) -> None:
        """Call `look` at that time, and at no other that was asked for before."""
        if self._nap is None:
            self._nap = trio.CancelScope(deadline=time)
            self._over = trio.Event()
            trio.lowlevel.spawn_system_task(self._run, self._nap)
        else:
            self._nap.deadline = time

    async def stop(self) -> None:
        """Look no more, until there is another wait."""
        if self._nap is not None:
            self._stopped = True
            self._nap.cancel()
            with trio.CancelScope(shield=True):
                await self._over.wait()

    async def _run(self, nap: trio.CancelScope) -> None:
        try:
            while not self._stopped:
                with nap:
                    await trio.sleep_forever()
                self.look()
                if self.next_look == inf:
                    break
                self._nap = nap = trio.CancelScope(deadline=self.next_look)
        finally:
            self._nap = None
            self._stopped = False
            self.next_look = inf
            self._over.set()
