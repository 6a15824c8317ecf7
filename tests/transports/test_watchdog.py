"""The watch on waits: it finds what is too long at one look and ends it at the next; it looks in
time on either loop, and is gone when there is nothing to look after."""

import asyncio
from collections.abc import Callable
from math import inf

import pytest
import trio
import trio.testing
from gprochat_transports._watch_asyncio import AsyncioWatch
from gprochat_transports._watch_trio import TrioWatch

from gprochat_transports.watchdog import GRACE, Watch


class FakeWait:
    def __init__(self, deadline: float = inf, then: Callable[[], object] = bool) -> None:
        self.deadline = deadline
        self.expired = 0
        self._then = then

    def expire(self) -> None:
        self.expired += 1
        self._then()


class FakeWatch(Watch):
    """One that the test wakes."""

    def __init__(self, *waits: FakeWait) -> None:
        self.now = 0.0
        self.wakings: list[float] = []
        super().__init__(lambda: self.now)
        self.waits.update(waits)

    def wake_at(self, time: float) -> None:
        self.wakings.append(time)

    async def stop(self) -> None:
        raise NotImplementedError

    def look_at(self, now: float) -> None:
        self.now = now
        self.look()


def test_a_limit_counts_from_now_and_brings_a_look() -> None:
    wait = FakeWait()
    watch = FakeWatch(wait)
    watch.now = 10
    watch.limit(wait, 2)
    assert wait.deadline == watch.next_look == 12
    assert watch.wakings == [12]


def test_only_an_earlier_limit_brings_an_earlier_look() -> None:
    watch = FakeWatch()
    for seconds in (5, 7, 3):
        watch.limit(FakeWait(), seconds)
    assert watch.wakings == [5, 3]


def test_without_a_limit_there_is_neither_deadline_nor_look() -> None:
    wait = FakeWait(3)
    watch = FakeWatch(wait)
    watch.limit(wait, None)
    assert wait.deadline == watch.next_look == inf
    assert watch.wakings == []


def test_where_nothing_waits_there_is_no_next_look() -> None:
    for watch in FakeWatch(), FakeWatch(FakeWait()):
        watch.look_at(1)
        assert watch.next_look == inf
        assert watch.wakings == []


def test_the_next_look_is_when_the_first_wait_may_be_too_long() -> None:
    watch = FakeWatch(FakeWait(3), FakeWait(2), FakeWait())
    watch.look_at(1)
    assert watch.next_look == 2
    assert watch.wakings == [2]


@pytest.mark.parametrize("now", [2, 5])
def test_a_wait_ends_at_the_second_look_that_finds_it_too_long(now: float) -> None:
    late, fine = FakeWait(2), FakeWait(100)
    watch = FakeWatch(late, fine)
    watch.look_at(now)
    assert watch.next_look == now + GRACE
    assert not late.expired
    watch.look_at(now + GRACE)
    assert watch.next_look == 100
    assert late.expired
    assert not fine.expired


def test_a_wait_ends_once() -> None:
    late = FakeWait(2)
    watch = FakeWatch(late)
    for now in (3, 4, 5):
        watch.look_at(now)
    assert watch.next_look == inf
    assert late.expired == 1


def test_what_came_between_the_looks_saves_a_wait() -> None:
    over, renewed = FakeWait(2), FakeWait(2)
    watch = FakeWatch(over, renewed)
    watch.look_at(3)
    over.deadline = inf
    renewed.deadline = 33
    watch.look_at(3 + GRACE)
    assert watch.next_look == 33
    assert not over.expired
    assert not renewed.expired


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


def test_on_trio_the_watch_lives_while_something_waits() -> None:
    async def main() -> None:
        watch = TrioWatch()
        wait = FakeWait(5)
        watch.waits |= {wait, FakeWait()}
        before = tasks()
        watch.limit(FakeWait(), 1)
        await trio.testing.wait_all_tasks_blocked()
        assert tasks() == before + 1
        clock.jump(2)
        await trio.testing.wait_all_tasks_blocked()
        assert tasks() == before + 1
        clock.jump(10)
        await trio.testing.wait_all_tasks_blocked()
        assert not wait.expired
        clock.jump(1)
        await trio.testing.wait_all_tasks_blocked()
        assert wait.expired
        assert tasks() == before

    clock = trio.testing.MockClock()
    trio.run(main, clock=clock)


def test_on_trio_an_earlier_deadline_brings_an_earlier_look() -> None:
    async def main() -> None:
        watch = TrioWatch()
        wait = FakeWait()
        watch.waits.add(wait)
        watch.limit(FakeWait(), 100)
        watch.limit(wait, 1)
        for _ in range(2):
            clock.jump(2)
            await trio.testing.wait_all_tasks_blocked()
        assert wait.expired

    clock = trio.testing.MockClock()
    trio.run(main, clock=clock)


def test_on_trio_a_watch_that_is_stopped_is_gone_and_may_begin_again() -> None:
    async def main() -> None:
        watch = TrioWatch()
        watch.waits.add(FakeWait(trio.current_time() + 100))
        before = tasks()
        for _ in range(2):
            watch.limit(FakeWait(), 100)
            assert tasks() == before + 1
            with trio.move_on_after(0):
                await watch.stop()
            assert tasks() == before
            await watch.stop()

    trio.run(main)


def test_on_asyncio_the_watch_has_a_timer_while_something_waits() -> None:
    async def main() -> None:
        watch = AsyncioWatch()
        ended = asyncio.Event()
        wait = FakeWait(inf, ended.set)
        watch.waits.add(wait)
        watch.limit(FakeWait(), 100)
        watch.limit(wait, 0.01)
        assert watch.next_look == wait.deadline
        await ended.wait()
        # The timer is set anew, or not, when all that was too long has ended.
        await asyncio.sleep(0)
        assert watch.next_look == inf

    asyncio.run(asyncio.wait_for(main(), 5))


def test_on_asyncio_a_watch_that_is_stopped_looks_no_more_and_may_begin_again() -> None:
    async def main() -> None:
        watch = AsyncioWatch()
        await watch.stop()
        ended = asyncio.Event()
        wait = FakeWait(inf, ended.set)
        watch.waits.add(wait)
        watch.limit(wait, 0.01)
        await watch.stop()
        await asyncio.sleep(0.03)
        assert not wait.expired
        watch.limit(wait, 0.01)
        await ended.wait()

    asyncio.run(asyncio.wait_for(main(), 5))
