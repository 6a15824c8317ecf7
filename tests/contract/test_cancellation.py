"""A cancelled call closes its connection at once, and the client goes on working."""

import threading

import pytest

from gprochat_core import Limits, RetryPolicy
from tests.contract.conftest import Cancel, Happens, MakeClient
from tests.peers.scripted import (
    Script,
    ScriptedPeer,
    deaf_port,
    receive,
    repeat,
    send,
    set_event,
    until_client_closes,
)
from tests.peers.wire import answer, chunk, chunked, head

OK: Script = [repeat(receive, send(chunked("fine")))]

CHUNKED = head(200, "transfer-encoding: chunked")


async def test_while_waiting_for_the_head(
    make_client: MakeClient, happens: Happens, cancel: Cancel
) -> None:
    asked = threading.Event()
    with ScriptedPeer([receive, set_event(asked), until_client_closes], OK) as peer:
        async with make_client(peer.url) as client:

            async def body() -> None:
                await client.complete("Hello")

            await cancel(asked, body)
            assert await happens(peer.connections[0].client_closed)
            assert await client.complete("Hello") == "fine"


async def test_while_waiting_for_the_first_text(
    make_client: MakeClient, happens: Happens, cancel: Cancel
) -> None:
    begun = threading.Event()
    with ScriptedPeer([receive, send(CHUNKED), until_client_closes], OK) as peer:
        async with make_client(peer.url) as client:

            async def body() -> None:
                async with client.stream("Hello") as reply:
                    begun.set()
                    await anext(reply)

            await cancel(begun, body)
            assert await happens(peer.connections[0].client_closed)
            assert await client.complete("Hello") == "fine"


async def test_in_the_middle_of_a_reply(
    make_client: MakeClient, happens: Happens, cancel: Cancel
) -> None:
    begun = threading.Event()
    seen: list[str] = []
    with ScriptedPeer([receive, send(CHUNKED + chunk("Раз")), until_client_closes], OK) as peer:
        async with make_client(peer.url) as client:

            async def body() -> None:
                async with client.stream("Hello") as reply:
                    async for text in reply:
                        seen.append(text)
                        begun.set()

            await cancel(begun, body)
            assert await happens(peer.connections[0].client_closed)
            assert await client.complete("Hello") == "fine"
    assert seen == ["Раз"]


async def test_while_an_error_is_read(
    make_client: MakeClient, happens: Happens, cancel: Cancel
) -> None:
    begun = threading.Event()
    half_an_error = answer(500, b"x" * 100)[:-50]
    script = [receive, send(half_an_error), set_event(begun), until_client_closes]
    with ScriptedPeer(script, OK) as peer:
        async with make_client(peer.url) as client:

            async def body() -> None:
                await client.complete("Hello")

            await cancel(begun, body)
            assert await happens(peer.connections[0].client_closed)
            assert await client.complete("Hello") == "fine"


async def test_while_connecting(make_client: MakeClient, cancel: Cancel) -> None:
    begun = threading.Event()
    with deaf_port() as port:
        async with make_client(f"http://127.0.0.1:{port}") as client:

            async def body() -> None:
                begun.set()
                await client.complete("Hello")

            await cancel(begun, body)


@pytest.mark.not_on("given-httpx@asyncio", "the client that was passed limits its connections")
async def test_while_waiting_for_a_free_connection(make_client: MakeClient, cancel: Cancel) -> None:
    begun = threading.Event()
    with ScriptedPeer([receive, send(CHUNKED + chunk("a")), until_client_closes], OK) as peer:
        async with make_client(peer.url, limits=Limits(max_connections=1)) as client:

            async def body() -> None:
                begun.set()
                await client.complete("Hello")

            async with client.stream("Hello") as reply:
                assert await anext(reply) == "a"
                await cancel(begun, body)
            assert await client.complete("Hello") == "fine"


async def test_in_the_pause_between_two_attempts(make_client: MakeClient, cancel: Cancel) -> None:
    failed = threading.Event()
    script = [receive, send(answer(503, b"", "retry-after: 60")), set_event(failed), *OK]
    with ScriptedPeer(script, OK) as peer:
        async with make_client(peer.url, retry=RetryPolicy()) as client:

            async def body() -> None:
                await client.complete("Hello")

            await cancel(failed, body)
            assert await client.complete("Hello") == "fine"
