"""Waiting for a signal to stop."""

import asyncio
import os
import signal
import sys
import threading
from time import sleep

import pytest

from gprochat.server import (
    stop_signal,
)

from .serving import (
    in_time,
)

pytestmark = pytest.mark.anyio


@pytest.mark.skipif(sys.platform == "win32", reason="signals are raised otherwise")
class TestAStopSignal:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    async def test_it_is_waited_for(self, number: signal.Signals) -> None:
        before = signal.getsignal(number)
        with stop_signal() as stopped:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            await in_time(stopped)
            assert stopped.result() is number
            assert signal.getsignal(number) == before
        assert signal.getsignal(number) == before

    async def test_it_wakes_a_loop_that_no_system_call_of_its_own_tells(self) -> None:
        """The signal interrupts another thread, so the loop goes on waiting for I/O."""

        def interrupt() -> None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            sleep(0.05)  # Until the loop waits; the test passes all the same if it does not yet.
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)

        earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with stop_signal() as stopped:
                thread = threading.Thread(target=interrupt)
                thread.start()
                # Without a limit of time, whose timer would wake the loop.
                await stopped
                thread.join()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, earlier)

    async def test_it_is_waited_for_where_loops_take_no_signal_handlers(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As on Windows."""

        def refuse(*_: object) -> None:
            raise NotImplementedError

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "add_signal_handler", refuse)
        monkeypatch.setattr(loop, "remove_signal_handler", refuse)
        with stop_signal() as stopped:
            signal.raise_signal(signal.SIGINT)
            await in_time(stopped)
            assert stopped.result() is signal.SIGINT

    async def test_what_signals_mean_is_restored_where_none_has_come(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        with stop_signal() as stopped:
            assert signal.getsignal(signal.SIGTERM) != before
            stopped.cancel()
        assert signal.getsignal(signal.SIGTERM) == before
