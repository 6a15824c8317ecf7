"""Which adapter a command uses, and the event loop that the adapter runs on.

The event loop runs in a thread of its own for as long as the command needs it. The main thread
owns the terminal: it waits for what the event loop's thread reports, and so can show that time
passes, and Ctrl-C reaches it on every event loop in the same way.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

import click

from gprochat_core import Limits, RetryPolicy, Service, Timeouts
from gprochat_transports import Client, OnRetry
from gprochat_transports.environment import Proxy

from ..client import first_installed

__all__ = ["TICK", "TRANSPORTS", "Loop", "Start", "choose", "reports"]

T = TypeVar("T")

TICK: Final = 0.1
"""Seconds after which the main thread is told that nothing was reported."""

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

Start: TypeAlias = Callable[[Work], Callable[[], object]]
"""Starts a coroutine function on an event loop of another thread; returns what cancels it."""


class MakeClient(Protocol):
    """The `Client` class of any adapter."""

    def __call__(
        self,
        service: Service,
        *,
        proxy: Proxy = ...,
        retry: RetryPolicy | None = ...,
        on_retry: OnRetry | None = ...,
        timeouts: Timeouts | None = ...,
        limits: Limits | None = ...,
    ) -> Client:
        """Make a client."""
        ...


@contextmanager
def in_thread(run: Callable[[], None]) -> Generator[None, None, None]:
    # A daemon: a second Ctrl-C while the thread ends must be able to end the process.
    thread = Thread(target=run, name="gprochat-client", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@contextmanager
def asyncio_thread() -> Generator[Start, None, None]:
    ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        leave = asyncio.Event()
        ready.set_result((asyncio.get_running_loop(), leave))
        await leave.wait()

    with in_thread(lambda: asyncio.run(main())):
        loop, leave = ready.result()
        try:
            yield lambda work: asyncio.run_coroutine_threadsafe(work(), loop).cancel
        finally:
            loop.call_soon_threadsafe(leave.set)


@contextmanager
def trio_thread() -> Generator[Start, None, None]:
    import trio

    ready: Future[tuple[trio.lowlevel.TrioToken, trio.Nursery]] = Future()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            ready.set_result((trio.lowlevel.current_trio_token(), nursery))
            await trio.sleep_forever()

    with in_thread(lambda: trio.run(main)):
        token, nursery = ready.result()

        def start(work: Work) -> Callable[[], object]:
            scope = trio.CancelScope()

            async def cancellable() -> None:
                with scope:
                    await work()

            token.run_sync_soon(nursery.start_soon, cancellable)
            return lambda: token.run_sync_soon(scope.cancel)

        try:
            yield start
        finally:
            token.run_sync_soon(nursery.cancel_scope.cancel)


TRANSPORTS: Final[dict[str, Callable[[], AbstractContextManager[Start]]]] = {
    "aiohttp": asyncio_thread,
    "httpx": asyncio_thread,
    "trio": trio_thread,
}


@dataclass(frozen=True, slots=True)
class Ended:
    """The last report: the work has ended.

    Attributes:
        error: what it raised; None if it returned, or was cancelled.
    """

    error: Exception | None


class Reports(Generic[T]):
    """What work reports to the main thread, in order."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[T | Ended] = SimpleQueue()

    def put(self, report: T | Ended) -> None:
        """Report something, from any thread."""
        self._queue.put(report)

    def get(self) -> T | Ended | None:
        """Return the next report, or None after `TICK` seconds without one."""
        try:
            # Never without a limit: on Windows, Ctrl-C would not end the wait.
            return self._queue.get(timeout=TICK)
        except Empty:
            return None


def reports(
    start: Start, work: Callable[[Callable[[T], None]], Coroutine[Any, Any, None]]
) -> Generator[T | None, None, None]:
    """Run work on an event loop of another thread, and yield what it reports, until it ends.

    The work is cancelled if the generator is left earlier, by Ctrl-C too. It has ended when the
    generator has.

    Args:
        start: starts a coroutine function on the event loop.
        work: a coroutine function that is given a function to report with.

    Yields:
        a report, or None whenever `TICK` seconds have passed without one.

    Raises:
        Exception: what the work raised.
    """
    queue: Reports[T] = Reports()

    async def report() -> None:
        error: Exception | None = None
        try:
            await work(queue.put)
        except Exception as raised:
            error = raised
        finally:
            queue.put(Ended(error))
            # The error's traceback holds this frame: without it there is no cycle.
            del error

    cancel = start(report)
    last: T | Ended | None = None
    try:
        while not isinstance(last := queue.get(), Ended):
            yield last
        if last.error is not None:
            raise last.error
    finally:
        if not isinstance(last, Ended):
            cancel()
            while not isinstance(last, Ended):
                last = queue.get()


@dataclass(frozen=True, slots=True)
class Loop:
    """An adapter that is installed.

    Attributes:
        make_client: the adapter's `Client`.
        thread: runs the adapter's event loop in a thread until its block is left.
    """

    make_client: MakeClient
    thread: Callable[[], AbstractContextManager[Start]]

    def run(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine function to its end on an event loop of its own, and return its result.

        Raises:
            KeyboardInterrupt: Ctrl-C cancelled it.
        """

        results: list[T] = []

        async def work(_report: Callable[[None], None]) -> None:
            results.append(await function())

        with self.thread() as start, closing(reports(start, work)) as heard:
            for _ in heard:
                pass
        return results[0]


def choose(name: str | None) -> Loop:
    """Return an adapter by its name, or the first adapter that is installed.

    Raises:
        click.UsageError: the adapter's library is not installed, or no adapter's.
    """
    try:
        adapter = first_installed(TRANSPORTS if name is None else [name])
    except ImportError as error:
        raise click.UsageError(str(error)) from None
    return Loop(adapter.Client, TRANSPORTS[adapter.__name__.rpartition(".")[2]])
