"""Waiting for a signal to stop."""

import asyncio
import os
import signal
import sys

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
        waiting = asyncio.ensure_future(stop_signal())
        await asyncio.sleep(0)
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        await in_time(waiting)
        assert waiting.result() is number
        assert signal.getsignal(number) == before

    async def test_what_signals_mean_is_restored_after_a_cancellation(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        waiting = asyncio.ensure_future(stop_signal())
        await asyncio.sleep(0)
        assert signal.getsignal(signal.SIGTERM) != before
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert signal.getsignal(signal.SIGTERM) == before
