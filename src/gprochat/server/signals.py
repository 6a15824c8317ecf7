"""A service on a command line runs until a signal asks it to stop."""

import asyncio
import signal
from contextlib import suppress

__all__ = ["stop_signal"]


async def stop_signal() -> signal.Signals:
    """Wait for SIGINT or SIGTERM and return the signal that came; for the main thread only.

    `async with serve(...) as server: await stop_signal()` is a server for a command line. When
    this returns, the signals have their earlier handlers again: a second Ctrl-C cancels.
    """
    loop = asyncio.get_running_loop()
    received: asyncio.Future[signal.Signals] = loop.create_future()

    def receive(number: int) -> None:
        if not received.done():
            received.set_result(signal.Signals(number))

    earlier = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    for each in earlier:
        try:
            # Unlike signal.signal, this wakes the loop also where the signal arrives just before
            # the loop begins to wait for I/O.
            loop.add_signal_handler(each, receive, each)
        except NotImplementedError:  # Windows, whose loop every signal wakes
            signal.signal(each, lambda number, _: loop.call_soon_threadsafe(receive, number))
    try:
        return await received
    finally:
        for each, handler in earlier.items():
            with suppress(NotImplementedError):
                loop.remove_signal_handler(each)
            signal.signal(each, handler)
