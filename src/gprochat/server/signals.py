"""A service on a command line runs until a signal asks it to stop."""

import asyncio
import signal
from collections.abc import Generator
from contextlib import contextmanager, suppress

__all__ = ["stop_signal"]


@contextmanager
def stop_signal() -> Generator[asyncio.Future[signal.Signals], None, None]:
    """Handle SIGINT and SIGTERM while the block runs; for the main thread only.

    `with stop_signal() as stopped:` gives a future, which is done when a signal has come; its
    result is the signal. As soon as a signal has come, the signals have their earlier handlers
    again: a second Ctrl-C cancels.
    """
    loop = asyncio.get_running_loop()
    received: asyncio.Future[signal.Signals] = loop.create_future()
    earlier = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}

    def receive(number: int) -> None:
        restore()
        if not received.done():
            received.set_result(signal.Signals(number))

    def restore() -> None:
        while earlier:
            each, handler = earlier.popitem()
            with suppress(NotImplementedError):
                loop.remove_signal_handler(each)
            signal.signal(each, handler)

    for each in earlier:
        try:
            # Unlike signal.signal, this wakes the loop also if the signal arrives just before
            # the loop begins to wait for I/O.
            loop.add_signal_handler(each, receive, each)
        except NotImplementedError:  # Windows, whose loop every signal wakes
            signal.signal(each, lambda number, _: loop.call_soon_threadsafe(receive, number))
    try:
        yield received
    finally:
        restore()
