"""The two event loops behind one small face, so that each task of the worker is written once."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
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


LOOPS: dict[str, Loop] = {"asyncio": Asyncio(), "trio": Trio()}
