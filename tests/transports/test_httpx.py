"""What the httpx adapter does besides the contract: its connections, and how its reads end."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from threading import Event
from time import monotonic, sleep
from typing import Any, Final

import anyio
import httpcore
import httpx
import pytest
import trio
import uvloop

from gprochat_core import (
    ConnectTimeout,
    Limits,
    ReplyTimeout,
    Service,
    Timeouts,
    UsageError,
)
from gprochat_transports.httpx import Client, connections
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

RUN: Final[dict[str, Callable[[Callable[[], Coroutine[Any, Any, None]]], None]]] = {
    "asyncio": lambda main: asyncio.run(main()),
    "uvloop": lambda main: uvloop.run(main()),
    "trio": lambda main: trio.run(main),
}

CALLERS: Final = 20

SHORT: Final = 0.2

SLACK: Final = 2.0

STANDS_STILL: Final[Script] = [
    receive,
    send(head(200, "transfer-encoding: chunked") + chunk("a")),
    until_client_closes,
]


def with_one_connection(peer: ScriptedPeer, timeouts: Timeouts | None = None) -> Client:
    return Client(
        Service(peer.url, secret_key="made up"),
        limits=Limits(max_connections=1),
        timeouts=timeouts,
        proxy=None,
    )


async def all_at_once(client: Client) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(CALLERS):
            group.start_soon(client.complete, "Hello")


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_call_has_the_library_look_at_no_connection_but_its_own(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one pool for all, the time for a look grows with the square of idle connections."""
    looked_at: list[int] = []
    look = httpcore.AsyncConnectionPool._assign_requests_to_connections

    def count(pool: httpcore.AsyncConnectionPool) -> Any:
        closing = look(pool)
        looked_at.append(len(pool.connections))
        return closing

    async def main() -> None:
        async with Client(Service(peer.url, secret_key="made up"), proxy=None) as client:
            for _ in range(2):
                looked_at.clear()
                await all_at_once(client)
                # When a call begins, and when it ends.
                assert looked_at == [1] * 2 * CALLERS

    monkeypatch.setattr(httpcore.AsyncConnectionPool, "_assign_requests_to_connections", count)
    with ScriptedPeer([repeat(receive, send(chunked("fine")))]) as peer:
        RUN[loop](main)
    assert len(peer.connections) == CALLERS


def all_but_one_are_closed(peer: ScriptedPeer) -> bool:
    end = monotonic() + SLACK
    while monotonic() < end:
        if sum(each.client_closed.is_set() for each in peer.connections) == CALLERS - 1:
            return True
        sleep(0.01)
    return False


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_connections_that_are_kept_for_too_long_are_closed(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with Client(Service(peer.url, secret_key="made up"), proxy=None) as client:
            await all_at_once(client)
            monkeypatch.setattr(connections, "KEPT_SECONDS", SHORT)
            await anyio.sleep(1.5 * SHORT)
            await client.complete("Hello")
            assert await anyio.to_thread.run_sync(all_but_one_are_closed, peer)
            await client.complete("Hello")

    with ScriptedPeer([repeat(receive, send(chunked("fine")))]) as peer:
        RUN[loop](main)
    assert len(peer.connections) == CALLERS


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_closing_the_client_ends_the_calls_that_wait_for_a_free_connection(loop: str) -> None:
    async def waits(client: Client) -> None:
        with pytest.raises(UsageError):
            await client.complete("Hello")

    async def main() -> None:
        async with (
            anyio.create_task_group() as group,
            with_one_connection(peer) as client,
        ):
            reply = await client.stream("Hello").__aenter__()
            assert await anext(reply) == "a"
            for _ in range(3):
                group.start_soon(waits, client)
            await anyio.wait_all_tasks_blocked()

    with ScriptedPeer(STANDS_STILL) as peer:
        RUN[loop](main)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_all_that_wait_for_a_free_connection_end_in_time(loop: str) -> None:
    async def waits(client: Client) -> None:
        with pytest.raises(ConnectTimeout):
            await client.complete("Hello")

    async def main() -> None:
        async with (
            with_one_connection(peer, Timeouts(connect=SHORT)) as client,
            client.stream("Hello") as reply,
        ):
            assert await anext(reply) == "a"
            begun = monotonic()
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(waits, client)
            assert SHORT * 0.9 <= monotonic() - begun < SHORT + SLACK

    with ScriptedPeer(STANDS_STILL) as peer:
        RUN[loop](main)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_call_that_is_cancelled_while_it_waits_for_a_free_connection_keeps_none_from_it(
    loop: str,
) -> None:
    freed = Event()

    async def main() -> None:
        async with with_one_connection(peer) as client:
            async with client.stream("Hello") as reply, anyio.create_task_group() as group:
                assert await anext(reply) == "a"
                group.start_soon(client.complete, "Hello")
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
            freed.set()
            with anyio.fail_after(SLACK):
                assert await client.complete("Hello") == "fine"

    with ScriptedPeer(STANDS_STILL, [receive, wait_for(freed), send(chunked("fine"))]) as peer:
        RUN[loop](main)


@pytest.mark.parametrize("loop", RUN)
def test_a_reply_that_stands_still_ends_on_every_loop(loop: str) -> None:
    async def main() -> None:
        service = Service(peer.url, secret_key="made up")
        async with Client(service, timeouts=Timeouts(idle=SHORT), proxy=None) as client:
            begun = monotonic()
            with pytest.raises(ReplyTimeout) as caught:
                await client.complete("Hello")
            assert SHORT * 0.9 <= monotonic() - begun < SHORT + SLACK
            assert caught.value.text == "a"

    with ScriptedPeer(STANDS_STILL) as peer:
        RUN[loop](main)


class StandsStill(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"a"
        await anyio.sleep_forever()


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_clients_own_transport_without_a_socket_is_held_to_the_limits_too(loop: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=StandsStill())

    async def main() -> None:
        given = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        service = Service("http://chat.example", secret_key="made up")
        async with given, Client(service, client=given, timeouts=Timeouts(idle=SHORT)) as client:
            with pytest.raises(ReplyTimeout) as caught:
                await client.complete("Hello")
        assert (caught.value.limit, caught.value.text) == ("idle", "a")

    RUN[loop](main)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_clients_own_transport_may_answer_later_than_another_would_connect(loop: str) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        await anyio.sleep(SHORT)
        return httpx.Response(200, text="fine")

    async def main() -> None:
        given = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        service = Service("http://chat.example", secret_key="made up")
        timeouts = Timeouts(connect=SHORT / 4)
        async with given, Client(service, client=given, timeouts=timeouts) as client:
            assert await client.complete("Hello") == "fine"

    RUN[loop](main)
