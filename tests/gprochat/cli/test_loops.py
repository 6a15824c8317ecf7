"""Which adapter a command uses, and how Ctrl-C ends what runs on its event loop."""

import signal

import pytest
import trio

from gprochat.cli import loops
from gprochat.cli.loops import TRANSPORTS

from .running import run_where_installed


def test_the_first_transport_that_is_installed_is_the_default() -> None:
    assert loops.choose(None) == loops.choose("aiohttp")
    done = run_where_installed(["gprochat[httpx]", "click"], "chat", "Hi")
    assert done.returncode == 1
    assert "check URL, network and proxy" in done.stderr


def test_ctrl_c_in_a_nursery_of_trio_is_still_ctrl_c() -> None:
    async def connect() -> None:
        async with trio.open_nursery():
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        TRANSPORTS["trio"](connect)


def test_other_failures_in_a_nursery_of_trio_stay_what_they_are() -> None:
    async def connect() -> None:
        async with trio.open_nursery():
            raise LookupError

    with pytest.raises(ExceptionGroup):
        TRANSPORTS["trio"](connect)
