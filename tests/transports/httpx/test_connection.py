"""The network of anyio, besides what http11/test_network.py asks of every network."""

import socket

import anyio
import pytest

from gprochat_core import Cause, Phase, TransportError
from gprochat_transports.httpx.connection import CAUSES, AnyioNetwork, is_readable
from gprochat_transports.watchdog import AsyncioWatchdog, TrioWatchdog


@pytest.mark.anyio
async def test_the_watchdog_is_that_of_the_running_loop_and_one_for_all(
    anyio_backend_name: str,
) -> None:
    network = AnyioNetwork()
    kind = {"asyncio": AsyncioWatchdog, "trio": TrioWatchdog}[anyio_backend_name]
    assert type(network.watchdog) is kind
    assert network.watchdog is network.watchdog


@pytest.mark.anyio
async def test_an_event_wakes_the_task_that_waits() -> None:
    event = AnyioNetwork().make_event()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(event.wait)
            await anyio.wait_all_tasks_blocked()
            event.set()


def test_a_network_may_be_made_before_a_loop_runs() -> None:
    AnyioNetwork()


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (TimeoutError(), Cause.TIMED_OUT),
        (anyio.EndOfStream(), Cause.LOST),
        (anyio.BrokenResourceError(), Cause.LOST),
        (anyio.ClosedResourceError(), Cause.LOST),
        (ConnectionResetError(), Cause.LOST),
        (socket.gaierror(), Cause.LOST),
        (UnicodeError(), Cause.LOST),
    ],
    ids=repr,
)
def test_each_exception_of_the_library_has_its_cause(error: Exception, cause: Cause) -> None:
    assert TransportError.wrap(error, CAUSES, Phase.READING).cause is cause


def test_a_socket_is_readable_once_bytes_or_the_end_have_arrived() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not is_readable(ours)
        theirs.send(b"a")
        # Looking takes nothing away.
        assert is_readable(ours)
        assert ours.recv(2) == b"a"
        assert not is_readable(ours)
        theirs.close()
        assert is_readable(ours)
