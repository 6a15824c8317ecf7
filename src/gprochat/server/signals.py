"""A service on a command line runs until a signal asks it to stop."""

import asyncio
import signal
from types import FrameType

__all__ = ["stop_signal"]


async def stop_signal() -> signal.Signals:
    """Wait for SIGINT or SIGTERM and return the signal that came; for the main thread only.

    `async with serve(...) as server: await stop_signal()` is a server for a command line. When
    this returns, the signals have their earlier handlers again: a second Ctrl-C cancels.
    """
    loop = asyncio.get_running_loop()
    received: asyncio.Future[signal.Signals] = loop.create_future()

    def set_result(number: int) -> None:
        if not received.done():
            received.set_result(signal.Signals(number))

    def receive(number: int, _frame: FrameType | None) -> None:
        # The thread-safe call wakes a loop that waits for I/O, uvloop's too.
        loop.call_soon_threadsafe(set_result, number)

    earlier = {each: signal.signal(each, receive) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        return await received
    finally:
        for each, handler in earlier.items():
            signal.signal(each, handler)
