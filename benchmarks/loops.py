"""Event loops, and threads, behind one small face: each task of the worker is written once."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Protocol, TypeAlias

Function: TypeAlias = Callable[[], Coroutine[object, object, None]]


class Loop(Protocol):
    """What a task of the worker needs of an event loop."""

    def run(self, main: Function) -> None: ...

    async def sleep(self, seconds: float) -> None: ...

    async def all(self, functions: list[Function]) -> None:
        """Run all at once, to their ends."""

    def background(self, functions: list[Function]) -> AbstractAsyncContextManager[None]:
        """Run all, which are endless, for as long as the block lasts."""


async def endless(function: Function) -> None:
    await function()
    raise RuntimeError("a stream ended")


class Asyncio:
    def run(self, main: Function) -> None:
        asyncio.run(main())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def all(self, functions: list[Function]) -> None:
        await asyncio.gather(*(function() for function in functions))

    @asynccontextmanager
    async def background(self, functions: list[Function]) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(endless(function)) for function in functions]
            yield
            for task in tasks:
                task.cancel()


class Uvloop(Asyncio):
    def run(self, main: Function) -> None:
        import uvloop

        uvloop.run(main())


class Trio:
    def run(self, main: Function) -> None:
        import trio

        trio.run(main)

    async def sleep(self, seconds: float) -> None:
        import trio

        await trio.sleep(seconds)

    async def all(self, functions: list[Function]) -> None:
        import trio

        async with trio.open_nursery() as nursery:
            for function in functions:
                nursery.start_soon(function)

    @asynccontextmanager
    async def background(self, functions: list[Function]) -> AsyncIterator[None]:
        import trio

        async with trio.open_nursery() as nursery:
            for function in functions:
                nursery.start_soon(endless, function)
            yield
            nursery.cancel_scope.cancel()


class Threads:
    """Threads for clients that block: their coroutines never suspend."""

    def run(self, main: Function) -> None:
        with suppress(StopIteration):
            main().send(None)
            raise RuntimeError("a blocking client suspended")

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - there is no event loop

    async def all(self, functions: list[Function]) -> None:
        with ThreadPoolExecutor(len(functions)) as threads:
            for _ in threads.map(self.run, functions):
                pass

    @asynccontextmanager
    async def background(self, functions: list[Function]) -> AsyncIterator[None]:
        # Nothing wakes a thread that reads: the threads end with the process.
        for function in functions:
            threading.Thread(target=self._run_to_the_end, args=[function], daemon=True).start()
        yield

    def _run_to_the_end(self, function: Function) -> None:
        with suppress(Exception):
            self.run(function)


LOOPS: dict[str, Loop] = {
    "asyncio": Asyncio(),
    "uvloop": Uvloop(),
    "trio": Trio(),
    "threads": Threads(),
}
