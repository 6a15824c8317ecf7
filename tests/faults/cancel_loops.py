"""Event loops that can interrupt a call at any point: something happens at its n-th turn.

A turn is all that a loop does between two looks at its sockets and clocks (asyncio), or one step
of any task (trio). An await that really waits ends a turn. So a test that interrupts at the first
turn, the second, the third and so on until the call is over has interrupted the call at every
await: both when the wait has just begun and when it is over but its task does not know yet.
"""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, Protocol, TypeAlias

import trio

__all__ = ["LOOPS", "Body", "Interruptible", "Outcome"]

Body: TypeAlias = Callable[[], Coroutine[Any, Any, str]]

HANG: Final = 10.0
"""Seconds after which a call that neither ends nor fails is said to hang."""


@dataclass
class Outcome:
    """How an interrupted body ended.

    Attributes:
        interrupted: whether its end came only after the interruption.
        stopped: whether it was ended by cancellation, or by running out of time.
        text: what it returned.
        error: what it raised.
        lag: seconds from the interruption to its end.
    """

    interrupted: bool = False
    stopped: bool = False
    text: str | None = None
    error: BaseException | None = None
    lag: float = 0.0


class Interruptible(Protocol):
    """A loop to run tests on.

    Attributes:
        complaints: what the loop would only log.
    """

    complaints: list[str]

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a test."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let the rest of the loop go on."""
        ...

    def tasks(self) -> set[object]:
        """Return all tasks of the loop."""
        ...

    async def cancel_at(self, turn: int, body: Body) -> Outcome:
        """Run a body and cancel it at that turn."""
        ...

    async def time_out_at(self, turn: int, body: Body) -> Outcome:
        """Run a body whose time limit runs out at that turn."""
        ...

    async def meanwhile_at(
        self, turn: int, body: Body, other: Callable[[], Awaitable[object]]
    ) -> Outcome:
        """Run a body, and from that turn on `other` at the same time."""
        ...


class Turns:
    """Counts turns, and calls back at one of them."""

    def __init__(self) -> None:
        self._left = 0
        self._callback: Callable[[], object] | None = None
        self._called_back_at: float | None = None

    def arm(self, turn: int, callback: Callable[[], object]) -> None:
        self._left = turn
        self._callback = callback
        self._called_back_at = None

    def disarm(self) -> float:
        """Stop counting; return how many seconds ago the callback was called, 0 for never."""
        self._callback = None
        return 0.0 if self._called_back_at is None else monotonic() - self._called_back_at

    def count(self) -> bool:
        """Count one more turn, and tell whether the callback was called at it."""
        if self._callback is None:
            return False
        self._left -= 1
        if self._left:
            return False
        callback, self._callback = self._callback, None
        self._called_back_at = monotonic()
        callback()
        return True


class CountingSelector(selectors.DefaultSelector):
    """A selector that counts turns: asyncio's loop asks it once in each turn."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = Turns()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.turns.count():
            timeout = 0
        return super().select(timeout)


class Asyncio:
    """asyncio, on the loop of its own."""

    _turns: Turns

    def __init__(self) -> None:
        self.complaints: list[str] = []

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.complaints.clear()
        selector = CountingSelector()
        self._turns = selector.turns

        async def run() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: self.complaints.append(str(context)))
            await main()

        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
            runner.run(run())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def tasks(self) -> set[object]:
        return set(asyncio.all_tasks())

    async def cancel_at(self, turn: int, body: Body) -> Outcome:
        outcome = Outcome()
        task = asyncio.create_task(body())

        def cancel() -> None:
            outcome.interrupted = task.cancel("for the test")

        self._turns.arm(turn, cancel)
        await self._finish(task, outcome)
        # On asyncio a cancellation that was delivered must end the task.
        assert outcome.stopped == outcome.interrupted, outcome
        return outcome

    async def time_out_at(self, turn: int, body: Body) -> Outcome:
        outcome = Outcome()

        async def limited() -> str:
            loop = asyncio.get_running_loop()
            task = asyncio.current_task()
            assert task is not None
            limit = asyncio.timeout(None)
            try:
                async with limit:
                    self._turns.arm(turn, lambda: limit.reschedule(loop.time()))
                    return await body()
            finally:
                self._turns.disarm()
                outcome.interrupted = outcome.stopped = limit.expired()
                # Code that swallows a cancellation of its own must call `uncancel`.
                assert task.cancelling() == 0

        await self._finish(asyncio.create_task(limited()), outcome)
        if outcome.stopped:
            assert type(outcome.error) is TimeoutError
            outcome.error = None
        return outcome

    async def meanwhile_at(
        self, turn: int, body: Body, other: Callable[[], Awaitable[object]]
    ) -> Outcome:
        outcome = Outcome()
        now = asyncio.Event()

        async def wait() -> None:
            await now.wait()
            await other()

        meanwhile = asyncio.create_task(wait())
        self._turns.arm(turn, now.set)
        await self._finish(asyncio.create_task(body()), outcome)
        outcome.interrupted = now.is_set()
        if not now.is_set():
            meanwhile.cancel()
        await asyncio.wait([meanwhile], timeout=HANG)
        assert meanwhile.done(), "what happened meanwhile hangs"
        if now.is_set():
            meanwhile.result()
        return outcome

    async def _finish(self, task: "asyncio.Task[str]", outcome: Outcome) -> None:
        await asyncio.wait([task], timeout=HANG)
        outcome.lag = self._turns.disarm()
        assert task.done(), f"the call hangs: {task.get_stack()}"
        if task.cancelled():
            outcome.stopped = True
        elif error := task.exception():
            outcome.error = error
        else:
            outcome.text = task.result()


class StepCounter(trio.abc.Instrument):
    """Counts the steps of all tasks."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._turns.count()


class Trio:
    """trio."""

    _turns: Turns

    def __init__(self) -> None:
        # Always empty: trio raises where asyncio logs.
        self.complaints: list[str] = []

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._turns = Turns()
        trio.run(main, instruments=[StepCounter(self._turns)])

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    def tasks(self) -> set[object]:
        root = trio.lowlevel.current_root_task()
        assert root is not None
        found: set[object] = set()
        left = [root]
        while left:
            task = left.pop()
            found.add(task)
            left.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
        return found

    async def cancel_at(self, turn: int, body: Body) -> Outcome:
        outcome = Outcome()
        with trio.CancelScope() as scope:
            self._turns.arm(turn, scope.cancel)
            await self._finish(body, outcome)
        outcome.interrupted = scope.cancel_called
        outcome.stopped = scope.cancelled_caught
        return outcome

    async def time_out_at(self, turn: int, body: Body) -> Outcome:
        outcome = Outcome()
        with trio.CancelScope() as scope:

            def run_out() -> None:
                outcome.interrupted = True
                scope.deadline = trio.current_time()

            self._turns.arm(turn, run_out)
            await self._finish(body, outcome)
        outcome.stopped = scope.cancelled_caught
        return outcome

    async def meanwhile_at(
        self, turn: int, body: Body, other: Callable[[], Awaitable[object]]
    ) -> Outcome:
        outcome = Outcome()
        now = trio.Event()

        async def wait() -> None:
            await now.wait()
            with trio.fail_after(HANG):
                await other()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            self._turns.arm(turn, now.set)
            await self._finish(body, outcome)
            outcome.interrupted = now.is_set()
            if not outcome.interrupted:
                nursery.cancel_scope.cancel()
        return outcome

    async def _finish(self, body: Body, outcome: Outcome) -> None:
        try:
            with trio.fail_after(HANG):
                outcome.text = await body()
        except trio.TooSlowError:
            raise AssertionError("the call hangs") from None
        except Exception as error:
            outcome.error = error
        finally:
            outcome.lag = self._turns.disarm()


LOOPS: Final[dict[str, Interruptible]] = {"asyncio": Asyncio(), "trio": Trio()}
