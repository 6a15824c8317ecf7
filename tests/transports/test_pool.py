"""The pool: slots in turn, the connection that was used last, idle connections closed in time."""

import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from gprochat_core import Cause, Limits, Phase, TransportError
from gprochat_transports import pool as pool_module
from gprochat_transports.pool import Pool
from gprochat_transports.sync import run
from gprochat_transports.watchdog import Watchdog, make_watchdog

pytestmark = pytest.mark.anyio

SHORT = 0.1

SLACK = 5.0

THREADS = 16


class FakeConnection:
    """A connection whose end a test decides.

    Attributes:
        silent: whether nothing has arrived on it.
        closed: how often it has been closed.
    """

    def __init__(self, checkpoint: Callable[[], Awaitable[object]] | None = None) -> None:
        self.idle_since = 0.0
        self.silent = True
        self.closed = 0
        self._checkpoint = checkpoint

    def is_silent(self) -> bool:
        return self.silent

    async def aclose(self) -> None:
        self.closed += 1
        if self._checkpoint is not None:
            await self._checkpoint()


class OwnError(Exception):
    """What a test has a connection raise."""


async def fail() -> None:
    raise OwnError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pool's clock: the last of these times."""
    times = [1000.0]
    monkeypatch.setattr(pool_module, "monotonic", lambda: times[-1])
    return times


def make_pool(max_connections: int = 100, keep_alive: float = 4.0) -> Pool[FakeConnection]:
    limits = Limits(max_connections=max_connections, keep_alive=keep_alive)
    return Pool(limits, anyio.Event)


async def make_connection() -> FakeConnection:
    return FakeConnection()


async def refuse() -> FakeConnection:
    raise OwnError


async def take(pool: Pool[FakeConnection]) -> FakeConnection:
    """Take a slot with a connection, made if there is no idle one."""
    return await pool.acquire(make_connection)


async def take_idle(pool: Pool[FakeConnection]) -> FakeConnection | None:
    """Take a slot with an idle connection; None, and no slot, if there is none."""
    with suppress(OwnError):
        return await pool.acquire(refuse)
    return None


async def test_the_connection_that_was_used_last_is_used_first() -> None:
    pool = make_pool()
    connections = [await take(pool) for _ in range(3)]
    for connection in connections:
        await pool.release(connection, reusable=True)
    assert [await take_idle(pool) for _ in range(4)] == [*reversed(connections), None]


async def test_a_connection_that_is_not_reusable_is_closed_and_not_given_again() -> None:
    pool = make_pool()
    connection = await take(pool)
    await pool.release(connection)
    assert connection.closed == 1
    assert await take_idle(pool) is None


async def test_a_connection_on_which_something_arrived_is_closed_and_the_next_is_taken() -> None:
    pool = make_pool()
    connections = [await take(pool) for _ in range(3)]
    for connection in connections:
        await pool.release(connection, reusable=True)
    for connection in connections[1:]:
        connection.silent = False
    assert await take_idle(pool) is connections[0]
    assert [connection.closed for connection in connections] == [0, 1, 1]


async def test_a_connection_on_which_something_arrived_is_closed_once() -> None:
    pool = make_pool()
    connection = await take(pool)
    await pool.release(connection, reusable=True)
    connection.silent = False
    assert await take_idle(pool) is None
    await pool.aclose()
    assert connection.closed == 1


async def test_a_failure_to_close_such_a_connection_gives_the_slot_back() -> None:
    pool = make_pool(1)

    async def connect() -> FakeConnection:
        return FakeConnection(fail)

    connection = await pool.acquire(connect)
    await pool.release(connection, reusable=True)
    connection.silent = False
    with pytest.raises(OwnError):
        await take(pool)
    with anyio.fail_after(SLACK):
        await take(pool)


async def test_a_failure_to_connect_gives_the_slot_back() -> None:
    pool = make_pool(1)
    with pytest.raises(OwnError):
        await pool.acquire(refuse)
    with anyio.fail_after(SLACK):
        await take(pool)


async def test_there_are_never_more_connections_than_slots() -> None:
    slots, in_use, most = 3, 0, 0
    pool = make_pool(slots)

    async def call() -> None:
        nonlocal in_use, most
        connection = await take(pool)
        in_use += 1
        most = max(most, in_use)
        await anyio.lowlevel.checkpoint()
        in_use -= 1
        await pool.release(connection, reusable=True)

    async with anyio.create_task_group() as group:
        for _ in range(10 * slots):
            group.start_soon(call)
    assert most == slots


async def test_slots_are_handed_over_in_turn() -> None:
    pool = make_pool(1)
    served: list[int] = []

    async def call(number: int) -> None:
        connection = await take(pool)
        served.append(number)
        await pool.release(connection, reusable=True)

    connection = await take(pool)
    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(call, number)
            await anyio.wait_all_tasks_blocked()
        await pool.release(connection, reusable=True)
        # A call that comes when the slot has been handed over does not overtake.
        group.start_soon(call, 5)
    assert served == [*range(6)]


async def test_a_slot_whose_connection_was_closed_is_handed_over_too() -> None:
    pool = make_pool(1)
    connection = await take(pool)
    async with anyio.create_task_group() as group:
        group.start_soon(take, pool)
        await anyio.wait_all_tasks_blocked()
        await pool.release(connection)


@pytest.mark.parametrize("handed_over", [False, True])
async def test_a_call_that_is_cancelled_while_it_waits_takes_no_slot_with_it(
    handed_over: bool,
) -> None:
    pool = make_pool(1)
    connection = await take(pool)

    async def call() -> None:
        await pool.release(await take(pool), reusable=True)

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        if handed_over:
            await pool.release(connection, reusable=True)
        group.cancel_scope.cancel()
    if not handed_over:
        await pool.release(connection, reusable=True)
    with anyio.fail_after(SLACK):
        assert await take_idle(pool) is connection


async def test_closing_closes_the_idle_connections_and_those_in_use() -> None:
    pool = make_pool()
    idle, in_use = await take(pool), await take(pool)
    await pool.release(idle, reusable=True)
    await pool.aclose()
    assert (idle.closed, in_use.closed) == (1, 1)
    await pool.aclose()
    assert idle.closed == 1


async def test_closing_ends_the_calls_that_wait() -> None:
    pool = make_pool(1)
    ended: list[TransportError] = []

    async def wait() -> None:
        with pytest.raises(TransportError) as caught:
            await take(pool)
        ended.append(caught.value)

    await take(pool)
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await pool.aclose()
    assert [(error.cause, error.phase, error.detail) for error in ended] == [
        (Cause.LOST, Phase.WAITING, "the client was closed")
    ] * 3


async def test_a_closed_pool_has_no_connection_to_give() -> None:
    pool = make_pool()
    connection = await take(pool)
    await pool.release(connection, reusable=True)
    await pool.aclose()
    with pytest.raises(TransportError, match="closed"):
        await take(pool)


async def test_a_connection_that_was_opened_while_the_pool_was_closed_is_closed() -> None:
    pool, connection = make_pool(), FakeConnection()

    async def connect() -> FakeConnection:
        await pool.aclose()
        return connection

    with pytest.raises(TransportError, match="closed"):
        await pool.acquire(connect)
    assert connection.closed == 1


async def test_a_closed_pool_keeps_no_connection() -> None:
    pool = make_pool()
    connection = await take(pool)
    await pool.aclose()
    await pool.release(connection, reusable=True)
    assert connection.closed == 2


async def test_all_connections_are_closed_even_if_closing_some_of_them_is_cancelled() -> None:
    pool = make_pool()

    async def connect() -> FakeConnection:
        return FakeConnection(anyio.lowlevel.checkpoint)

    connections = [await pool.acquire(connect) for _ in range(4)]
    await pool.release(connections[0], reusable=True)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await pool.aclose()
    assert scope.cancelled_caught
    assert [connection.closed for connection in connections] == [1] * 4


async def test_all_connections_are_closed_even_if_closing_one_of_them_fails() -> None:
    pool = make_pool()
    ways_to_close = iter([None, fail, None])

    async def connect() -> FakeConnection:
        return FakeConnection(next(ways_to_close))

    connections = [await pool.acquire(connect) for _ in range(3)]
    with pytest.raises(OwnError):
        await pool.aclose()
    assert [connection.closed for connection in connections] == [1] * 3


async def test_idle_connections_are_closed_when_they_have_been_kept_long_enough(
    clock: list[float],
) -> None:
    pool = make_pool(keep_alive=4)
    older, newer = await take(pool), await take(pool)
    await pool.release(older, reusable=True)
    clock.append(1003.0)
    await pool.release(newer, reusable=True)
    assert (older.idle_since, newer.idle_since) == (1000, 1003)
    clock.append(1003.9)
    await pool.expire()
    assert (older.closed, newer.closed) == (0, 0)
    clock.append(1004.0)
    await pool.expire()
    assert (older.closed, newer.closed) == (1, 0)
    assert await take_idle(pool) is newer


async def test_a_connection_that_has_been_kept_long_enough_is_not_given(
    clock: list[float],
) -> None:
    pool = make_pool(keep_alive=4)
    connection = await take(pool)
    await pool.release(connection, reusable=True)
    clock.append(1004.0)
    assert await take_idle(pool) is None
    assert connection.closed == 1


async def test_with_a_keep_alive_of_nothing_each_connection_is_closed_after_its_call() -> None:
    pool = make_pool(keep_alive=0)
    connection = await take(pool)
    await pool.release(connection, reusable=True)
    assert connection.closed == 1
    assert await take_idle(pool) is None


class FakeWatchdog(Watchdog):
    """A watchdog that a test asks what it was told."""

    def __init__(self, clock: list[float]) -> None:
        super().__init__()
        self._clock = clock
        self.limits: list[float | None] = []

    def limit(self, wait: object, seconds: float | None) -> None:
        assert isinstance(wait, Pool)
        self.limits.append(seconds)
        wait.deadline = inf if seconds is None else self._clock[-1] + seconds

    def wake_at(self, time: float) -> None:
        raise NotImplementedError

    async def sleep_until(self, time: float) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


async def test_the_watchdog_is_told_when_the_oldest_idle_connection_expires(
    clock: list[float],
) -> None:
    pool, watchdog = make_pool(keep_alive=4), FakeWatchdog(clock)
    pool.watch(watchdog)
    assert watchdog.waits == {pool}
    older, newer = await take(pool), await take(pool)
    await pool.release(older, reusable=True)
    clock.append(1003.0)
    await pool.release(newer, reusable=True)
    # One limit at a time: that of the oldest.
    assert (watchdog.limits, pool.deadline) == ([4], 1004)
    clock.append(1004.0)
    pool.deadline = inf
    await pool.expire()
    assert (watchdog.limits, pool.deadline) == ([4, 3], 1007)
    clock.append(1007.0)
    pool.deadline = inf
    await pool.expire()
    assert (watchdog.limits, pool.deadline) == ([4, 3], inf)
    assert (older.closed, newer.closed) == (1, 1)


async def test_the_watchdog_closes_idle_connections_without_a_further_call() -> None:
    pool, watchdog = make_pool(keep_alive=SHORT), make_watchdog()
    pool.watch(watchdog)
    closed = [anyio.Event(), anyio.Event()]
    left = iter(closed)

    async def connect() -> FakeConnection:
        event = next(left)

        async def note() -> None:
            event.set()

        return FakeConnection(note)

    connections = [await pool.acquire(connect) for _ in closed]
    for connection in connections:
        await pool.release(connection, reusable=True)
        await anyio.sleep(SHORT / 2)
    with anyio.fail_after(SLACK):
        for each in closed:
            await each.wait()
    await watchdog.aclose()


class ThreadEvent:
    """An event between threads, whose coroutine never suspends."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.set = self._event.set

    async def wait(self) -> None:
        assert self._event.wait(SLACK)


def test_threads_may_share_a_pool() -> None:
    slots = 3
    pool: Pool[FakeConnection] = Pool(Limits(max_connections=slots), ThreadEvent)
    lock = threading.Lock()
    in_use: list[FakeConnection] = []
    opened: list[FakeConnection] = []
    broken_rules: list[str] = []
    calls = 200

    async def connect() -> FakeConnection:
        connection = FakeConnection()
        opened.append(connection)
        return connection

    async def call(number: int) -> None:
        connection = await pool.acquire(connect)
        with lock:
            if connection in in_use or connection.closed:
                broken_rules.append("given to two calls, or after it was closed")
            in_use.append(connection)
            if len(in_use) > slots:
                broken_rules.append("more connections than slots")
        with lock:
            in_use.remove(connection)
        await pool.release(connection, reusable=number % 3 != 0)

    def work() -> None:
        for number in range(calls):
            run(call(number))

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SLACK)
        assert not thread.is_alive()
    run(pool.aclose())
    assert broken_rules == []
    assert len(opened) >= calls // 3
    assert all(connection.closed == 1 for connection in opened)


def test_closing_from_another_thread_ends_the_threads_that_wait() -> None:
    pool: Pool[FakeConnection] = Pool(Limits(max_connections=1), ThreadEvent)
    connection = run(take(pool))
    ended: list[Cause] = []

    def wait() -> None:
        with pytest.raises(TransportError) as caught:
            run(take(pool))
        ended.append(caught.value.cause)

    threads = [threading.Thread(target=wait) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    run(pool.aclose())
    # A thread that came after the pool was closed waits for the slot, which then comes back.
    run(pool.release(connection))
    for thread in threads:
        thread.join(SLACK)
    assert ended == [Cause.LOST] * THREADS


# Any order of events: coroutines stepped by hand, one await at a time.


class Suspend:
    """An awaitable that gives the machine what it waits for: an event, or nothing."""

    def __init__(self, until: "FakeEvent | None" = None) -> None:
        self._until = until

    def __await__(self) -> Generator["FakeEvent | None", None, None]:
        yield self._until


class FakeEvent:
    def __init__(self) -> None:
        self.is_set = False

    def set(self) -> None:
        self.is_set = True

    async def wait(self) -> None:
        while not self.is_set:
            await Suspend(self)


class Cancelled(BaseException):
    """What a loop throws into a coroutine to cancel it."""


class Task:
    """A coroutine on its way.

    Attributes:
        waits_for: the event that it waits for; None if it may go on.
        result: what it returned.
        failed: what it raised.
        ended: whether it has returned or raised.
    """

    def __init__(self, coroutine: Coroutine[Any, None, FakeConnection | None]) -> None:
        self._coroutine = coroutine
        self.waits_for: FakeEvent | None = None
        self.result: FakeConnection | None = None
        self.failed: BaseException | None = None
        self.ended = False
        self.step()

    @property
    def may_go_on(self) -> bool:
        return not self.ended and (self.waits_for is None or self.waits_for.is_set)

    def step(self) -> None:
        self._go_on(partial(self._coroutine.send, None))

    def cancel(self) -> None:
        self._go_on(lambda: self._coroutine.throw(Cancelled()))

    def _go_on(self, resume: Callable[[], Any]) -> None:
        try:
            self.waits_for = resume()
        except StopIteration as stop:
            self.result = stop.value
            self.ended = True
        except (Cancelled, OwnError, TransportError) as error:
            self.failed = error
            self.ended = True


class PoolMachine(RuleBasedStateMachine):
    """Calls that take slots, connect, fail, are cancelled and release, in any order."""

    calls = Bundle("calls")
    """The connections of the calls that have one."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = 0
        self.now = 0.0
        self.monkeypatch = pytest.MonkeyPatch()
        self.monkeypatch.setattr(pool_module, "monotonic", lambda: self.now)
        self.acquiring: list[Task] = []
        self.others: list[Task] = []
        self.in_use: list[FakeConnection] = []
        self.connecting = 0
        self.connections: list[FakeConnection] = []
        self.closed = False

    @initialize(slots=st.integers(1, 3), keep_alive=st.sampled_from([0.0, 4.0]))
    def make(self, slots: int, keep_alive: float) -> None:
        self.slots = slots
        limits = Limits(max_connections=slots, keep_alive=keep_alive)
        self.pool: Pool[FakeConnection] = Pool(limits, FakeEvent)

    def settle(self) -> Any:
        """Sort out the calls whose acquiring has ended; return the connections that they got."""
        got: list[FakeConnection] = []
        for task in [task for task in self.acquiring if task.ended]:
            self.acquiring.remove(task)
            if isinstance(task.failed, TransportError):
                assert self.closed
            elif task.result is not None:
                assert task.result not in self.in_use
                assert task.result.closed == 0
                assert task.result.silent
                got.append(task.result)
                self.in_use.append(task.result)
        return multiple(*got)

    def begin(self, coroutine: Coroutine[Any, None, None]) -> None:
        self.others.append(Task(coroutine))

    @rule(target=calls, refused=st.booleans(), closing_waits=st.booleans())
    def acquire(self, refused: bool, closing_waits: bool) -> Any:
        async def connect() -> FakeConnection:
            self.connecting += 1
            try:
                await Suspend()
            finally:
                self.connecting -= 1
            if refused:
                raise OwnError
            connection = FakeConnection(Suspend if closing_waits else None)
            self.connections.append(connection)
            return connection

        self.acquiring.append(Task(self.pool.acquire(connect)))
        return self.settle()

    @precondition(lambda self: any(task.may_go_on for task in self.acquiring))
    @rule(target=calls, data=st.data())
    def go_on(self, data: st.DataObject) -> Any:
        data.draw(st.sampled_from([task for task in self.acquiring if task.may_go_on])).step()
        return self.settle()

    @precondition(lambda self: self.acquiring)
    @rule(target=calls, data=st.data())
    def cancel(self, data: st.DataObject) -> Any:
        data.draw(st.sampled_from(self.acquiring)).cancel()
        return self.settle()

    @precondition(lambda self: any(task.may_go_on for task in self.others))
    @rule(data=st.data(), cancelled=st.booleans())
    def go_on_closing(self, data: st.DataObject, cancelled: bool) -> None:
        task = data.draw(st.sampled_from([task for task in self.others if task.may_go_on]))
        if cancelled:
            task.cancel()
        else:
            task.step()

    @rule(connection=consumes(calls), reusable=st.booleans())
    def release(self, connection: FakeConnection, reusable: bool) -> None:
        self.in_use.remove(connection)
        self.begin(self.pool.release(connection, reusable=reusable))

    @precondition(lambda self: self.connections)
    @rule(data=st.data())
    def something_arrives(self, data: st.DataObject) -> None:
        connection = data.draw(st.sampled_from(self.connections))
        # On one in use it is the reply.
        if connection not in self.in_use:
            connection.silent = False

    @rule(seconds=st.sampled_from([1.0, 3.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.begin(self.pool.expire())

    @rule()
    def close(self) -> None:
        self.closed = True
        self.begin(self.pool.aclose())

    @invariant()
    def there_are_no_more_calls_with_a_slot_than_slots(self) -> None:
        assert len(self.in_use) + self.connecting <= self.slots

    @invariant()
    def an_open_pool_closes_no_connection_in_use(self) -> None:
        if not self.closed:
            assert not any(connection.closed for connection in self.in_use)

    def teardown(self) -> None:
        try:
            if self.slots:
                self.all_comes_back()
        finally:
            self.monkeypatch.undo()

    def all_comes_back(self) -> None:
        while True:
            for connection in self.in_use:
                self.begin(self.pool.release(connection, reusable=True))
            self.in_use.clear()
            for task in self.others:
                self.finish(task)
            if not self.acquiring:
                break
            ready = [task for task in self.acquiring if task.may_go_on]
            assert ready, "all slots have come back, and yet a call waits for one"
            for task in ready:
                task.step()
            self.settle()
        if not self.closed:
            for _ in range(self.slots):
                self.finish(Task(take(self.pool)))
        self.finish(Task(self.pool.aclose()))
        assert all(connection.closed for connection in self.connections)

    def finish(self, task: Task) -> None:
        """Go on with a task, which waits for no slot, to its end."""
        while not task.ended:
            assert task.may_go_on, "a slot has been lost"
            task.step()


TestPoolInAnyOrder = PoolMachine.TestCase
