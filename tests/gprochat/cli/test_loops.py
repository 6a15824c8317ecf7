"""Which adapter a command uses, and what the main thread hears of its event loop."""

import signal
from collections.abc import Callable
from itertools import islice

import anyio
import anyio.lowlevel
import pytest

from gprochat.cli import loops
from gprochat.cli.loops import TRANSPORTS, reports

from .running import run_where_installed


def test_the_first_transport_that_is_installed_is_the_default() -> None:
    assert loops.choose(None) == loops.choose("aiohttp")
    done = run_where_installed(["gprochat[httpx]", "click"], "chat", "Hi")
    assert done.returncode == 1
    assert "check URL, network and proxy" in done.stderr


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_a_function_returns_or_raises_comes_back(transport: str) -> None:
    async def returns() -> int:
        await anyio.lowlevel.checkpoint()
        return 7

    async def raises() -> None:
        await anyio.lowlevel.checkpoint()
        raise LookupError("not here")

    loop = loops.choose(transport)
    assert loop.run(returns) == 7
    with pytest.raises(LookupError, match="not here"):
        loop.run(raises)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_reports_come_in_order_and_silence_is_reported(transport: str) -> None:
    async def work(report: Callable[[int], None]) -> None:
        report(1)
        report(2)
        await anyio.sleep(2.5 * loops.TICK)
        report(3)

    with TRANSPORTS[transport]() as start:
        heard = list(reports(start, work))
    assert heard[:2] == [1, 2]
    assert heard[-1] == 3
    assert None in heard


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_work_that_is_not_read_to_its_end_is_cancelled_and_has_ended(transport: str) -> None:
    ended: list[str] = []

    async def work(report: Callable[[str], None]) -> None:
        report("begun")
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("ended")

    with TRANSPORTS[transport]() as start:
        heard = reports(start, work)
        assert list(islice(heard, 1)) == ["begun"]
        heard.close()
        assert ended == ["ended"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_ctrl_c_cancels_what_runs(transport: str) -> None:
    ended: list[str] = []

    async def wait() -> None:
        signal.raise_signal(signal.SIGINT)
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("ended")

    with pytest.raises(KeyboardInterrupt):
        loops.choose(transport).run(wait)
    assert ended == ["ended"]
