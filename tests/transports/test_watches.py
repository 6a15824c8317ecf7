"""The watches on waits: they look in time, and are gone when there is nothing to look after."""

import asyncio
from collections.abc import Callable
from math import inf
from typing import cast

import trio
import trio.testing

from gprochat_transports._aiohttp_watch import Watch as AsyncioWatch
from gprochat_transports._trio_connection import Connection
from gprochat_transports._trio_connection import Watch as TrioWatch


class FakeWait:
    def __init__(self, deadline: float, then: Callable[[], object] = bool) -> None:
        self.deadline = deadline
        self.expired = False
        self._then = then

    def expire(self) -> None:
        self.expired = True
        self._then()


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


def test_on_trio_the_watch_lives_while_something_waits() -> None:
    async def main() -> None:
        waits = {FakeWait(5), FakeWait(inf)}
        watch = TrioWatch(cast("set[Connection]", waits))
        before = tasks()
        watch.look_by(trio.current_time() + 1)
        await trio.testing.wait_all_tasks_blocked()
        assert tasks() == before + 1
        clock.jump(2)
        await trio.testing.wait_all_tasks_blocked()
        assert tasks() == before + 1
        clock.jump(10)
        await trio.testing.wait_all_tasks_blocked()
        assert not any(wait.expired for wait in waits)
        clock.jump(1)
        await trio.testing.wait_all_tasks_blocked()
        assert sum(wait.expired for wait in waits) == 1
        assert tasks() == before

    clock = trio.testing.MockClock()
    trio.run(main, clock=clock)


def test_on_trio_an_earlier_deadline_brings_an_earlier_look() -> None:
    async def main() -> None:
        wait = FakeWait(inf)
        watch = TrioWatch(cast("set[Connection]", {wait}))
        watch.look_by(trio.current_time() + 100)
        wait.deadline = trio.current_time() + 1
        watch.look_by(wait.deadline)
        for _ in range(2):
            clock.jump(2)
            await trio.testing.wait_all_tasks_blocked()
        assert wait.expired

    clock = trio.testing.MockClock()
    trio.run(main, clock=clock)


def test_on_trio_a_watch_that_is_stopped_is_gone_and_may_begin_again() -> None:
    async def main() -> None:
        watch = TrioWatch(set())
        before = tasks()
        for _ in range(2):
            watch.look_by(trio.current_time() + 100)
            assert tasks() == before + 1
            with trio.move_on_after(0):
                await watch.stop()
            assert tasks() == before
            await watch.stop()

    trio.run(main)


def test_on_asyncio_the_watch_has_a_timer_while_something_waits() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        watch = AsyncioWatch()
        ended = asyncio.Event()
        wait = FakeWait(loop.time() + 0.01, ended.set)
        watch.waits.add(wait)
        watch.look_by(loop.time() + 100, loop)
        watch.look_by(wait.deadline, loop)
        assert watch.next_look == wait.deadline
        await ended.wait()
        # The timer is set anew, or not, when all that was too long has ended.
        await asyncio.sleep(0)
        assert watch.next_look == inf
        watch.look_by(loop.time() + 100, loop)
        watch.stop()
        assert watch.next_look == inf

    asyncio.run(asyncio.wait_for(main(), 5))
