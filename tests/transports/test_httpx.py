"""What the httpx adapter does besides the contract: turns, and reads that end from outside."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from threading import Event
from time import monotonic
from typing import Any, Final

import anyio
import httpcore
import httpx
import pytest
import trio
import uvloop

from gprochat_core import ConnectTimeout, Limits, ReplyTimeout, Service, Timeouts
from gprochat_transports.httpx import Client
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


async def all_at_once(client: Client) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(CALLERS):
            group.start_soon(client.complete, "Hello")


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_call_asks_the_library_once_for_its_connection(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library looks at all connections when a call begins, and when it ends."""
    looks = 0
    look = httpcore.AsyncConnectionPool._assign_requests_to_connections

    def count(pool: httpcore.AsyncConnectionPool) -> Any:
        nonlocal looks
        looks += 1
        return look(pool)

    async def main() -> None:
        nonlocal looks
        async with Client(service, proxy=None) as client:
            for _ in range(2):
                looks = 0
                await all_at_once(client)
                assert looks == 2 * CALLERS

    monkeypatch.setattr(httpcore.AsyncConnectionPool, "_assign_requests_to_connections", count)
    with ScriptedPeer([repeat(receive, send(chunked("fine")))]) as peer:
        service = Service(peer.url, secret_key="made up")
        RUN[loop](main)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_all_that_wait_for_a_free_connection_end_in_time(loop: str) -> None:
    async def waits(client: Client) -> None:
        with pytest.raises(ConnectTimeout):
            await client.complete("Hello")

    async def main() -> None:
        async with (
            Client(
                Service(peer.url, secret_key="made up"),
                limits=Limits(max_connections=1),
                timeouts=Timeouts(connect=SHORT),
                proxy=None,
            ) as client,
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
def test_one_that_waits_for_a_free_connection_lets_the_next_ask_when_it_is_cancelled(
    loop: str,
) -> None:
    freed = Event()

    async def main() -> None:
        async with Client(
            Service(peer.url, secret_key="made up"),
            limits=Limits(max_connections=1),
            proxy=None,
        ) as client:
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
