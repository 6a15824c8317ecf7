"""A service for code that is not on asyncio: it runs in a thread with an event loop of its own."""

import asyncio
from collections.abc import Generator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar

__all__ = ["in_thread"]

T = TypeVar("T")


@contextmanager
def in_thread(context: AbstractAsyncContextManager[T]) -> Generator[T, None, None]:
    """Enter an asynchronous context manager in a thread with an event loop of its own.

    `with in_thread(serve(answer)) as server:` is a service for synchronous code, and for code on
    trio. The answer runs in that thread.
    """
    entered: Future[T] = Future()
    leave: Future[None] = Future()

    async def run() -> None:
        async with context as value:
            entered.set_result(value)
            await asyncio.wrap_future(leave)

    with ThreadPoolExecutor(1, "gprochat-server") as executor:
        left = executor.submit(asyncio.run, run())
        either: list[Future[Any]] = [entered, left]
        try:
            wait(either, return_when=FIRST_COMPLETED)
            if entered.done():
                yield entered.result()
        finally:
            leave.set_result(None)
            left.result()
