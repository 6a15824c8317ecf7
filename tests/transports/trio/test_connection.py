"""The network of trio, besides what http11/test_network.py asks of every network."""

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from gprochat_core import Cause, Phase, TransportError
from gprochat_transports.http11.network import READ_SIZE
from gprochat_transports.trio.connection import CAUSES, TrioNetwork, TrioStream
from gprochat_transports.watchdog import TrioWatchdog

SLACK = 5.0


@asynccontextmanager
async def open_stream() -> AsyncGenerator[tuple[TrioStream, socket.socket], None]:
    """A stream, and the socket at its other end."""
    ours, theirs = socket.socketpair()
    stream = TrioStream(trio.socket.from_stdlib_socket(ours))
    with theirs, trio.fail_after(SLACK):
        yield stream, theirs
        await stream.aclose()


def test_a_receive_waits_and_takes_at_most_so_much() -> None:
    async def main() -> None:
        async with open_stream() as (stream, theirs), trio.open_nursery() as nursery:

            @nursery.start_soon
            async def receive() -> None:
                assert await stream.receive_some(2) == b"ab"
                assert await stream.receive_some() == b"c"

            await trio.testing.wait_all_tasks_blocked()
            theirs.send(b"abc")

    trio.run(main)


def test_a_receive_takes_no_more_than_what_costs_little() -> None:
    async def main() -> None:
        async with open_stream() as (stream, theirs):
            theirs.setblocking(False)
            sent = theirs.send(bytes(2 * READ_SIZE))
            assert sent > READ_SIZE
            assert len(await stream.receive()) <= READ_SIZE

    trio.run(main)


def test_a_socket_that_was_readable_and_is_not_is_waited_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        waits = 0
        wait_readable = trio.lowlevel.wait_readable

        async def wait(sock: socket.socket) -> None:
            nonlocal waits
            waits += 1
            if waits > 1:
                theirs.send(b"a")
                await wait_readable(sock)

        monkeypatch.setattr(trio.lowlevel, "wait_readable", wait)
        async with open_stream() as (stream, theirs):
            assert await stream.receive_some() == b"a"
        assert waits == 2

    trio.run(main)


def test_what_the_socket_does_not_take_at_once_is_sent_as_it_takes_it() -> None:
    data = bytes(range(256)) * 20_000
    received = b""

    async def main() -> None:
        async with open_stream() as (stream, theirs), trio.open_nursery() as nursery:
            reader = trio.SocketStream(trio.socket.from_stdlib_socket(theirs.dup()))

            @nursery.start_soon
            async def send() -> None:
                # The second finds the socket full from its first byte.
                await stream.send_all(data)
                await stream.send_all(data)
                await stream.aclose()

            await trio.testing.wait_all_tasks_blocked()
            nonlocal received
            async with reader:
                received = b"".join([piece async for piece in reader])

    trio.run(main)
    assert received == 2 * data


def test_a_full_socket_is_waited_for() -> None:
    async def main() -> None:
        async with open_stream() as (stream, theirs):
            with trio.move_on_after(0.05) as scope:
                await stream.send_all(bytes(50_000_000))
            assert scope.cancelled_caught
            with trio.move_on_after(0.05) as scope:
                await stream.send_all(b"a")
            assert scope.cancelled_caught
            with trio.move_on_after(0.05) as scope:
                await stream.wait_send_all_might_not_block()
            assert scope.cancelled_caught
            assert theirs.recv(1)

    trio.run(main)


def test_a_send_may_be_cancelled_before_it_begins() -> None:
    async def main() -> None:
        async with open_stream() as (stream, theirs):
            with trio.CancelScope() as scope:
                scope.cancel()
                await stream.send_all(b"a")
            theirs.setblocking(False)
            with pytest.raises(BlockingIOError):
                theirs.recv(1)

    trio.run(main)


def test_nothing_is_received_from_or_sent_over_a_stream_that_was_closed() -> None:
    async def main() -> None:
        async with open_stream() as (stream, _):
            await stream.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()
            with pytest.raises((trio.ClosedResourceError, OSError)):
                await stream.send_all(b"a")
            await stream.aclose()

    trio.run(main)


def test_closing_a_stream_waits_for_nothing() -> None:
    async def main() -> None:
        async with open_stream() as (stream, theirs):
            with trio.CancelScope() as scope:
                scope.cancel()
                await stream.aclose()
            assert not scope.cancelled_caught
            assert theirs.recv(1) == b""

    trio.run(main)


def test_an_event_wakes_the_task_that_waits() -> None:
    async def main() -> None:
        event = TrioNetwork().make_event()
        with trio.fail_after(SLACK):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(event.wait)
                await trio.testing.wait_all_tasks_blocked()
                event.set()

    trio.run(main)


def test_without_a_time_limit_a_block_takes_as_long_as_it_takes() -> None:
    async def main() -> None:
        async with TrioNetwork().time_limit(None):
            assert trio.current_effective_deadline() == float("inf")

    trio.run(main)


def test_each_network_has_a_watchdog_of_its_own() -> None:
    first, second = TrioNetwork(), TrioNetwork()
    assert isinstance(first.watchdog, TrioWatchdog)
    assert first.watchdog is first.watchdog
    assert first.watchdog is not second.watchdog


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (TimeoutError(), Cause.TIMED_OUT),
        (trio.BrokenResourceError(), Cause.LOST),
        (trio.ClosedResourceError(), Cause.LOST),
        (ConnectionResetError(), Cause.LOST),
        (socket.gaierror(), Cause.LOST),
        (UnicodeError(), Cause.LOST),
    ],
    ids=repr,
)
def test_each_exception_of_the_library_has_its_cause(error: Exception, cause: Cause) -> None:
    assert TransportError.wrap(error, CAUSES, Phase.READING).cause is cause
