"""The watchdog: it finds a wait overdue at one look and ends it at the next; it looks in time on
either loop; and its task is gone when no deadline is left."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from math import inf

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing

from gprochat_transports import watchdog as watchdog_module
from gprochat_transports.watchdog import (
    GRACE,
    AsyncioWatchdog,
    TrioWatchdog,
    Watchdog,
    make_watchdog,
)

SHORT = 0.05

SLACK = 5.0


async def nothing() -> None:
    """What a wait does besides counting that it was ended."""


class FakeWait:
    """A wait.

    Attributes:
        expired: how often it was ended.
    """

    def __init__(
        self, deadline: float = inf, then: Callable[[], Awaitable[object]] = nothing
    ) -> None:
        self.deadline = deadline
        self.expired = 0
        self._then = then

    async def expire(self) -> None:
        self.expired += 1
        await self._then()


class UntilNextLook:
    """An awaitable that gives the test the time of the next look."""

    def __init__(self, time: float) -> None:
        self._time = time

    def __await__(self) -> Generator[float, None, None]:
        yield self._time


class FakeWatchdog(Watchdog):
    """A watchdog whose clock and task are in the test's hands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *waits: FakeWait) -> None:
        super().__init__()
        self.now = 0.0
        self.wakings: list[float] = []
        self.waits.update(waits)
        monkeypatch.setattr(watchdog_module, "monotonic", lambda: self.now)
        self._task: Coroutine[float, None, None] | None = None

    def wake_at(self, time: float) -> None:
        self.wakings.append(time)

    async def sleep_until(self, time: float) -> None:
        await UntilNextLook(time)

    async def aclose(self) -> None:
        raise NotImplementedError

    def look_at(self, now: float) -> float:
        """Have the task look at a time; return when it will look next, infinity for never."""
        self.now = now
        self._task = self._task or self.watch()
        try:
            return self._task.send(None)
        except StopIteration:
            return inf


def test_a_limit_counts_from_now_and_brings_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    wait = FakeWait()
    watchdog = FakeWatchdog(monkeypatch, wait)
    watchdog.now = 10
    watchdog.limit(wait, 2)
    assert wait.deadline == watchdog.next_look == 12
    assert watchdog.wakings == [12]


def test_only_an_earlier_deadline_brings_an_earlier_look(monkeypatch: pytest.MonkeyPatch) -> None:
    watchdog = FakeWatchdog(monkeypatch)
    for seconds in (5, 7, 3):
        watchdog.limit(FakeWait(), seconds)
    assert watchdog.wakings == [5, 3]


def test_without_a_limit_there_is_neither_deadline_nor_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wait = FakeWait(3)
    watchdog = FakeWatchdog(monkeypatch, wait)
    watchdog.limit(wait, None)
    assert wait.deadline == watchdog.next_look == inf
    assert watchdog.wakings == []


def test_where_nothing_waits_the_task_ends_at_its_first_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watchdog = FakeWatchdog(monkeypatch, FakeWait())
    watchdog.limit(FakeWait(), 1)
    assert watchdog.look_at(0) == 1
    assert watchdog.look_at(1) == inf
    assert watchdog.next_look == inf


def test_the_next_look_is_when_the_first_wait_is_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    watchdog = FakeWatchdog(monkeypatch, FakeWait(3), FakeWait(2), FakeWait())
    watchdog.limit(FakeWait(), 1)
    watchdog.look_at(0)
    assert watchdog.look_at(1) == watchdog.next_look == 2


def test_a_look_that_comes_too_early_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another clock than the watchdog's may wake it, and an earlier deadline does."""
    wait = FakeWait()
    watchdog = FakeWatchdog(monkeypatch, wait)
    watchdog.limit(wait, 5)
    assert watchdog.look_at(0) == 5
    watchdog.limit(FakeWait(), 3)
    assert watchdog.look_at(2) == 3


@pytest.mark.parametrize("now", [2.0, 5.0])
def test_a_wait_ends_at_the_second_look_that_finds_it_overdue(
    now: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    overdue, fine = FakeWait(), FakeWait(100)
    watchdog = FakeWatchdog(monkeypatch, overdue, fine)
    watchdog.limit(overdue, 2)
    watchdog.look_at(0)
    assert watchdog.look_at(now) == now + GRACE
    assert not overdue.expired
    assert watchdog.look_at(now + GRACE) == 100
    assert (overdue.expired, overdue.deadline) == (1, inf)
    assert not fine.expired


def test_a_wait_ends_once(monkeypatch: pytest.MonkeyPatch) -> None:
    overdue = FakeWait()
    watchdog = FakeWatchdog(monkeypatch, overdue, FakeWait(9))
    watchdog.limit(overdue, 2)
    for now in (0, 3, 4, 5, 6):
        watchdog.look_at(now)
    assert overdue.expired == 1


def test_a_wait_that_was_renewed_between_the_looks_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over, renewed = FakeWait(), FakeWait(2)
    watchdog = FakeWatchdog(monkeypatch, over, renewed)
    watchdog.limit(over, 2)
    watchdog.look_at(0)
    watchdog.look_at(3)
    watchdog.limit(over, None)
    watchdog.limit(renewed, 30)
    assert watchdog.look_at(3 + GRACE) == renewed.deadline == 33
    assert not over.expired
    assert not renewed.expired


def test_a_wait_that_begins_while_another_is_ended_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def begin() -> None:
        watchdog.limit(next_wait, 10)

    overdue, next_wait = FakeWait(then=begin), FakeWait()
    watchdog = FakeWatchdog(monkeypatch, overdue, next_wait)
    watchdog.limit(overdue, 2)
    for now in (0.0, 3.0):
        watchdog.look_at(now)
    assert watchdog.look_at(4) == 14


def test_a_closed_watchdog_brings_no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    watchdog = FakeWatchdog(monkeypatch)
    watchdog.closed = True
    wait = FakeWait()
    watchdog.limit(wait, 2)
    assert (wait.deadline, watchdog.wakings, watchdog.next_look) == (2, [], inf)


def tasks() -> int:
    """How many tasks live on the running loop."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return trio.lowlevel.current_statistics().tasks_living


@pytest.mark.anyio
async def test_the_watchdog_is_that_of_the_running_loop(anyio_backend_name: str) -> None:
    kinds = {"asyncio": AsyncioWatchdog, "trio": TrioWatchdog}
    assert type(make_watchdog()) is kinds[anyio_backend_name]


@pytest.mark.anyio
async def test_a_wait_ends_in_time_and_the_task_with_the_last_deadline() -> None:
    watchdog = make_watchdog()
    ended = anyio.Event()

    async def end() -> None:
        ended.set()

    wait = FakeWait(then=end)
    watchdog.waits |= {wait, FakeWait()}
    before = tasks()
    for seconds in (SHORT, 2 * SHORT):
        ended = anyio.Event()
        begun = time.monotonic()
        watchdog.limit(wait, seconds)
        assert tasks() == before + 1
        with anyio.fail_after(SLACK):
            await ended.wait()
            assert seconds <= time.monotonic() - begun < seconds + SLACK
            while tasks() != before:
                await anyio.lowlevel.checkpoint()
        assert watchdog.next_look == inf
    assert wait.expired == 2


@pytest.mark.anyio
@pytest.mark.parametrize("asleep", [False, True])
async def test_an_earlier_deadline_wakes_the_watchdog_earlier(asleep: bool) -> None:
    watchdog = make_watchdog()
    ended = anyio.Event()

    async def end() -> None:
        ended.set()

    wait = FakeWait(then=end)
    watchdog.waits.add(wait)
    watchdog.limit(FakeWait(), 100)
    if asleep:
        await anyio.wait_all_tasks_blocked()
    watchdog.limit(wait, SHORT)
    assert watchdog.next_look == wait.deadline
    with anyio.fail_after(SLACK):
        await ended.wait()
    await watchdog.aclose()


@pytest.mark.anyio
@pytest.mark.parametrize("asleep", [False, True])
async def test_closing_ends_the_task_and_no_later_wait_starts_it_anew(asleep: bool) -> None:
    watchdog = make_watchdog()
    wait = FakeWait()
    watchdog.waits.add(wait)
    before = tasks()
    watchdog.limit(wait, 100)
    if asleep:
        await anyio.wait_all_tasks_blocked()
    await watchdog.aclose()
    assert tasks() == before
    watchdog.limit(wait, SHORT)
    assert tasks() == before
    await watchdog.aclose()
    assert not wait.expired


def test_a_wait_after_the_task_was_cancelled_begins_a_new_one() -> None:
    """Programs that end cancel all their tasks, and some still make calls after that."""

    async def main() -> None:
        watchdog = AsyncioWatchdog()
        ended = asyncio.Event()

        async def end() -> None:
            ended.set()

        first, second, last = FakeWait(), FakeWait(), FakeWait(then=end)
        watchdog.waits |= {first, second, last}
        watchdog.limit(first, SHORT)
        await anyio.wait_all_tasks_blocked()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await anyio.wait_all_tasks_blocked()
        watchdog.limit(second, 100)
        watchdog.limit(last, SHORT * 2)
        async with asyncio.timeout(SLACK):
            await ended.wait()
        await watchdog.aclose()

    asyncio.run(main())


@pytest.mark.anyio
async def test_closing_a_watchdog_that_never_ran_does_nothing() -> None:
    before = tasks()
    await make_watchdog().aclose()
    assert tasks() == before


@pytest.mark.anyio
async def test_closing_ends_the_task_where_the_caller_is_cancelled() -> None:
    watchdog = make_watchdog()
    before = tasks()
    watchdog.limit(FakeWait(), 100)
    await anyio.wait_all_tasks_blocked()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await watchdog.aclose()
    with anyio.fail_after(SLACK):
        while tasks() != before:
            await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
async def test_closing_while_a_wait_is_being_ended_waits_for_that_and_for_no_other() -> None:
    watchdog = make_watchdog()
    ending = anyio.Event()

    async def end() -> None:
        ending.set()
        while not watchdog.closed:
            await anyio.lowlevel.checkpoint()

    wait = FakeWait(then=end)
    watchdog.waits |= {wait, FakeWait(time.monotonic() + 100)}
    watchdog.limit(wait, SHORT)
    with anyio.fail_after(SLACK):
        await ending.wait()
        await watchdog.aclose()


@pytest.mark.anyio
async def test_a_loop_that_stood_still_catches_up_before_a_wait_is_ended() -> None:
    ours, theirs = socket.socketpair()
    watchdog = make_watchdog()

    async def stand_still() -> None:
        await anyio.wait_all_tasks_blocked()
        theirs.send(b"a")
        time.sleep(2 * SHORT)  # noqa: ASYNC251 - the loop is to stand still

    with ours, theirs:
        for _ in range(5):
            wait = FakeWait()
            watchdog.waits = {wait}
            async with anyio.create_task_group() as group:
                group.start_soon(stand_still)
                watchdog.limit(wait, SHORT)
                await anyio.wait_readable(ours)
                # A stream has further steps between its socket and its reader.
                await anyio.lowlevel.checkpoint()
                watchdog.limit(wait, None)
                ours.recv(1)
            await anyio.sleep(3 * GRACE)
            assert not wait.expired
    await watchdog.aclose()


def test_on_trio_the_task_of_a_client_that_was_not_closed_ends_with_the_loop() -> None:
    async def main() -> None:
        watchdog = TrioWatchdog()
        watchdog.limit(FakeWait(), 100)
        await trio.testing.wait_all_tasks_blocked()

    begun = time.monotonic()
    trio.run(main)
    assert time.monotonic() - begun < SLACK
