"""What the clients of all libraries do alike: wait for a slot, keep idle connections, time out."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from threading import Event
from time import monotonic
from typing import Any, Final

import anyio
import anyio.to_thread
import pytest

import gprochat_transports.aiohttp
import gprochat_transports.httpx
import gprochat_transports.trio
from gprochat_core import (
    ConnectTimeout,
    GPROChatError,
    Limits,
    ReplyTimeout,
    RetryPolicy,
    Service,
    Timeouts,
    UsageError,
)
from gprochat_transports import Client, Reply
from tests.peers.scripted import (
    Script,
    ScriptedPeer,
    receive,
    repeat,
    send,
    until_client_closes,
    wait_for,
)
from tests.peers.wire import chunk, chunked, head
from tests.transports.loops import RUN

SHORT: Final = 0.2

SLACK: Final = 5.0

NO_RETRY: Final = RetryPolicy(max_attempts=1)

ROOMS: Final[Mapping[str, tuple[Callable[..., Client], str]]] = {
    "aiohttp on asyncio": (gprochat_transports.aiohttp.Client, "asyncio"),
    "aiohttp on uvloop": (gprochat_transports.aiohttp.Client, "uvloop"),
    "httpx on asyncio": (gprochat_transports.httpx.Client, "asyncio"),
    "httpx on uvloop": (gprochat_transports.httpx.Client, "uvloop"),
    "httpx on trio": (gprochat_transports.httpx.Client, "trio"),
    "trio": (gprochat_transports.trio.Client, "trio"),
}

every_room = pytest.mark.parametrize("room", ROOMS)

STANDS_STILL: Final[Script] = [
    receive,
    send(head(200, "transfer-encoding: chunked") + chunk("a")),
    until_client_closes,
]


def make_client(room: str, peer: ScriptedPeer, max_connections: int = 1, **options: Any) -> Client:
    options.setdefault("limits", Limits(max_connections=max_connections))
    return ROOMS[room][0](Service(peer.url, secret_key="made up"), proxy=None, **options)


def hold(client: Client) -> AbstractAsyncContextManager[Reply]:
    """A reply that stands still, and holds its connection."""
    return client.stream("Hello")


async def wait_until_blocked() -> None:
    """Wait until the other tasks of the test wait for a slot."""
    # Not wait_all_tasks_blocked: on asyncio a task that awaits a future of aiohttp's is not seen.
    await anyio.sleep(SHORT / 4)


@every_room
def test_calls_that_wait_for_a_slot_end_in_time(room: str) -> None:
    async def wait(client: Client) -> None:
        with pytest.raises(ConnectTimeout):
            await client.complete("Hello")

    async def main() -> None:
        client = make_client(room, peer, timeouts=Timeouts(connect=SHORT), retry=NO_RETRY)
        async with client, hold(client) as reply:
            assert await anext(reply) == "a"
            begun = monotonic()
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(wait, client)
            assert SHORT * 0.9 <= monotonic() - begun < SLACK

    with ScriptedPeer(STANDS_STILL) as peer:
        RUN[ROOMS[room][1]](main)
    assert len(peer.requests) == 1


@every_room
def test_calls_that_wait_for_a_slot_end_when_the_client_is_closed(room: str) -> None:
    ended: list[GPROChatError] = []

    async def wait(client: Client) -> None:
        with pytest.raises(GPROChatError) as caught:
            await client.complete("Hello")
        ended.append(caught.value)

    async def main() -> None:
        with anyio.fail_after(SLACK):
            async with (
                anyio.create_task_group() as group,
                make_client(room, peer) as client,
            ):
                reply = await client.stream("Hello").__aenter__()
                assert await anext(reply) == "a"
                for _ in range(3):
                    group.start_soon(wait, client)
                await wait_until_blocked()

    with ScriptedPeer(STANDS_STILL) as peer:
        RUN[ROOMS[room][1]](main)
    assert len(ended) == 3
    assert len(peer.requests) == 1


@every_room
def test_calls_get_their_slots_in_turn(room: str) -> None:
    served: list[int] = []
    freed = Event()

    async def call(client: Client, number: int) -> None:
        assert await client.complete("Hello") == "fine"
        served.append(number)

    async def main() -> None:
        async with make_client(room, peer) as client, anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(call, client, number)
                await wait_until_blocked()
            freed.set()

    script = [receive, wait_for(freed), send(chunked("fine"))]
    with ScriptedPeer([*script, repeat(receive, send(chunked("fine")))]) as peer:
        RUN[ROOMS[room][1]](main)
    assert served == [*range(5)]
    assert len(peer.connections) == 1


@every_room
def test_a_call_that_is_cancelled_while_it_waits_takes_no_slot_with_it(room: str) -> None:
    async def main() -> None:
        async with make_client(room, peer) as client:
            async with hold(client) as reply, anyio.create_task_group() as group:
                assert await anext(reply) == "a"
                group.start_soon(client.complete, "Hello")
                await wait_until_blocked()
                group.cancel_scope.cancel()
            with anyio.fail_after(SLACK):
                assert await client.complete("Hello") == "fine"

    with ScriptedPeer(STANDS_STILL, [receive, send(chunked("fine"))]) as peer:
        RUN[ROOMS[room][1]](main)


@every_room
def test_a_reply_that_stands_still_ends_in_time(room: str) -> None:
    async def main() -> None:
        async with make_client(room, peer, timeouts=Timeouts(idle=SHORT)) as client:
            begun = monotonic()
            with pytest.raises(ReplyTimeout) as caught:
                await client.complete("Hello")
            assert SHORT * 0.9 <= monotonic() - begun < SLACK
            assert (caught.value.limit, caught.value.text) == ("idle", "a")

    with ScriptedPeer(STANDS_STILL) as peer:
        RUN[ROOMS[room][1]](main)


@every_room
def test_idle_connections_are_closed_in_time_without_a_further_call(room: str) -> None:
    callers = 4
    done_at: list[float] = []

    async def main() -> None:
        async def call() -> None:
            await client.complete("Hello")
            done_at.append(monotonic())

        limits = Limits(keep_alive=2 * SHORT)
        async with make_client(room, peer, limits=limits) as client:
            async with anyio.create_task_group() as group:
                for _ in range(callers):
                    group.start_soon(call)
            for connection in peer.connections:
                closed = connection.client_closed
                assert await anyio.to_thread.run_sync(closed.wait, SLACK)
            assert await client.complete("Hello") == "fine"

    with ScriptedPeer([repeat(receive, send(chunked("fine")))]) as peer:
        RUN[ROOMS[room][1]](main)
    closed_at = [connection.client_closed_at or 0.0 for connection in peer.connections[:-1]]
    assert len(closed_at) == len(peer.connections) - 1 >= 1
    assert all(time - min(done_at) >= 2 * SHORT * 0.9 for time in closed_at)
    assert all(time - max(done_at) < SLACK for time in closed_at)


@every_room
def test_with_a_keep_alive_of_nothing_each_call_has_its_own_connection(room: str) -> None:
    async def main() -> None:
        async with make_client(room, peer, limits=Limits(keep_alive=0)) as client:
            for _ in range(3):
                assert await client.complete("Hello") == "fine"

    with ScriptedPeer([repeat(receive, send(chunked("fine")))]) as peer:
        RUN[ROOMS[room][1]](main)
    assert len(peer.connections) == 3


@every_room
def test_calls_one_after_another_use_one_connection(room: str) -> None:
    async def main() -> None:
        async with make_client(room, peer, max_connections=10) as client:
            for _ in range(3):
                assert await client.complete("Hello") == "fine"

    with ScriptedPeer([repeat(receive, send(chunked("fine")))]) as peer:
        RUN[ROOMS[room][1]](main)
    assert len(peer.connections) == 1


@pytest.mark.parametrize(
    ("client", "loop"),
    [
        (gprochat_transports.aiohttp.Client, "trio"),
        (gprochat_transports.trio.Client, "asyncio"),
        (gprochat_transports.trio.Client, "uvloop"),
    ],
)
def test_a_client_on_an_event_loop_that_its_library_does_not_know_says_which_to_use(
    client: Callable[..., Client], loop: str
) -> None:
    async def main() -> None:
        async with client(Service("http://127.0.0.1:1", secret_key="made up")) as asked:
            with pytest.raises(UsageError, match="this client cannot run on this event loop"):
                await asked.complete("Hello")

    RUN[loop](main)
