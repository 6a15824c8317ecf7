"""Connections are reused, and released on every way out of a reply; the client goes on working."""

import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from gprochat_core import ConnectError, GPROChatError, Limits, ServiceFailed, UsageError
from tests.contract.adapters import LOOPS
from tests.contract.conftest import Happens, MakeClient
from tests.peers.scripted import (
    Script,
    ScriptedPeer,
    receive,
    repeat,
    send,
    until_client_closes,
    wait_for,
)
from tests.peers.wire import LAST_CHUNK, answer, chunk, chunked, head

OK: Script = [repeat(receive, send(chunked("fine")))]

CHUNKED = head(200, "transfer-encoding: chunked")

ENDLESS: Script = [receive, send(CHUNKED + chunk("Раз"), chunk("два")), until_client_closes]


HTTPCORES = "httpcore decides about the connections of clients that are passed"


class OwnError(Exception):
    """An exception of the caller's own code."""


async def test_calls_one_after_the_other_use_one_connection(make_client: MakeClient) -> None:
    with ScriptedPeer(OK) as peer:
        async with make_client(peer.url) as client:
            for _ in range(3):
                assert await client.complete("Hello") == "fine"
    assert len(peer.connections) == 1


async def test_a_reply_read_to_its_end_leaves_its_connection_for_the_next(
    make_client: MakeClient,
) -> None:
    with ScriptedPeer(OK) as peer:
        async with make_client(peer.url) as client:
            async with client.stream("Hello") as reply:
                assert [text async for text in reply] == ["fine"]
            assert await client.complete("Hello") == "fine"
    assert len(peer.connections) == 1


STRAY = [
    b"\r\n",
    b"H",
    b"HTTP/1.1 200 OK\r\nx-junk: ",
    b"garbage\r\n\r\n",
    b"0\r\n\r\n",
    b"a" * 70_000,
    chunked("not asked for"),
]


@pytest.mark.not_on("given-httpx@asyncio", HTTPCORES)
@pytest.mark.not_on("httpx2@asyncio", HTTPCORES)
@pytest.mark.parametrize("stray", STRAY, ids=lambda stray: repr(stray[:9]))
async def test_bytes_behind_a_reply_cost_no_reply_and_reach_no_other_call(
    make_client: MakeClient, stray: bytes
) -> None:
    begin, end = chunked("fine")[:-5], LAST_CHUNK
    busy: Script = [receive, send(answer(503, b"busy"))]
    for script in (
        [receive, send(chunked("fine") + stray), *busy],
        [receive, send(answer(200, b"fine") + stray), *busy],
        [receive, send(begin, end + stray, every=0.01), *busy],
    ):
        with ScriptedPeer(script, busy) as peer:
            async with make_client(peer.url) as client:
                assert await client.complete("Hello") == "fine"
                with pytest.raises(ServiceFailed):
                    await client.complete("Hello")


@pytest.mark.not_on("given-httpx@asyncio", HTTPCORES)
@pytest.mark.not_on("httpx2@asyncio", HTTPCORES)
@pytest.mark.not_on("aiohttp@asyncio", "aiohttp drops them, and parses each response anew")
@pytest.mark.parametrize("stray", STRAY, ids=lambda stray: repr(stray[:9]))
async def test_bytes_behind_a_reply_end_its_connection(
    make_client: MakeClient, happens: Happens, stray: bytes
) -> None:
    script: Script = [receive, send(chunked("fine") + stray), until_client_closes]
    with ScriptedPeer(script) as peer:
        async with make_client(peer.url) as client:
            assert await client.complete("Hello") == "fine"
            assert await happens(peer.connections[0].client_closed)


async def test_closing_the_client_closes_its_kept_connections(
    make_client: MakeClient, happens: Happens
) -> None:
    with ScriptedPeer(OK) as peer:
        async with make_client(peer.url) as client:
            await client.complete("Hello")
        assert await happens(peer.connections[0].client_closed)


async def test_leaving_the_loop_early_closes_the_connection(
    make_client: MakeClient, happens: Happens
) -> None:
    with ScriptedPeer(ENDLESS, OK) as peer:
        async with make_client(peer.url) as client:
            async with client.stream("Hello") as reply:
                async for text in reply:
                    assert text.startswith("Раз")
                    break
            assert await happens(peer.connections[0].client_closed)
            assert await client.complete("Hello") == "fine"


async def test_leaving_before_reading_closes_the_connection(
    make_client: MakeClient, happens: Happens
) -> None:
    with ScriptedPeer(ENDLESS, OK) as peer:
        async with make_client(peer.url) as client:
            async with client.stream("Hello"):
                pass
            assert await happens(peer.connections[0].client_closed)
            assert await client.complete("Hello") == "fine"


async def test_an_exception_of_the_callers_passes_and_closes_the_connection(
    make_client: MakeClient,
    happens: Happens,
) -> None:
    own = OwnError()
    with ScriptedPeer(ENDLESS, OK) as peer:
        async with make_client(peer.url) as client:

            async def fail_within_a_reply() -> None:
                async with client.stream("Hello") as reply:
                    async for _ in reply:
                        raise own

            with pytest.raises(OwnError) as caught:
                await fail_within_a_reply()
            assert caught.value is own
            assert await happens(peer.connections[0].client_closed)
            assert await client.complete("Hello") == "fine"


async def test_two_replies_at_once_do_not_mix(make_client: MakeClient) -> None:
    go_on = threading.Event()

    def script(first: str, second: str) -> Script:
        begin = CHUNKED + chunk(first)
        return [receive, send(begin), wait_for(go_on), send(chunk(second) + LAST_CHUNK)]

    with ScriptedPeer(script("раз", "два"), script("one", "two")) as peer:
        async with (
            make_client(peer.url) as client,
            client.stream("Привет") as russian,
            client.stream("Hello") as english,
        ):
            assert await anext(english) == "one"
            assert await anext(russian) == "раз"
            go_on.set()
            assert [text async for text in english] == ["two"]
            assert [text async for text in russian] == ["два"]
    assert len(peer.connections) == 2


async def test_closing_the_client_ends_a_reply_that_streams(
    make_client: MakeClient, happens: Happens
) -> None:
    with ScriptedPeer(ENDLESS) as peer:
        client = make_client(peer.url)
        async with client, client.stream("Hello") as reply:
            begin = await anext(reply)
            await client.aclose()
            assert await happens(peer.connections[0].client_closed)
            with pytest.raises(UsageError, match="this client has been closed"):
                await anext(reply)
            assert reply.text.startswith(begin)


@pytest.mark.not_on("given-httpx@asyncio", "the caller closes the client that was passed")
@pytest.mark.not_on("httpx2@asyncio", "the caller closes the client that was passed")
@pytest.mark.not_on("httpx@blocking", "threads wait there; tests/transports/httpx has this test")
async def test_closing_the_client_ends_a_call_that_waits_for_its_reply_without_a_retry(
    make_client: MakeClient, happens: Happens
) -> None:
    retries: list[int] = []
    ended = threading.Event()

    async def wait() -> None:
        with pytest.raises(UsageError, match="this client has been closed"):
            await client.complete("Hello")
        ended.set()

    with ScriptedPeer([receive, until_client_closes]) as peer:
        client = make_client(peer.url, on_retry=lambda attempt, *_: retries.append(attempt))
        async with client, anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.sleep(0.05)
            await client.aclose()
            assert await happens(ended)
    assert retries == []


@pytest.mark.not_on("httpx@blocking", "a blocking client has no event loop")
@pytest.mark.parametrize("elsewhere", ["asyncio", "trio"])
async def test_a_client_is_used_and_closed_on_one_event_loop(
    make_client: MakeClient, elsewhere: str
) -> None:
    with ScriptedPeer(OK) as peer:
        async with make_client(peer.url) as client:
            assert await client.complete("Hello") == "fine"

            async def use_elsewhere() -> None:
                with pytest.raises(UsageError, match="another event loop"):
                    await client.complete("Hello")
                with pytest.raises(UsageError, match="another event loop"):
                    await client.aclose()

            with ThreadPoolExecutor() as threads:
                threads.submit(LOOPS[elsewhere].run, use_elsewhere).result()
            assert await client.complete("Hello") == "fine"
    assert len(peer.connections) == 1


@pytest.mark.not_on("given-httpx@asyncio", "the client that was passed limits its connections")
@pytest.mark.not_on("httpx2@asyncio", "a client that is passed is not closed")
@pytest.mark.not_on("httpx@blocking", "threads wait there; tests/transports/httpx has this test")
async def test_a_call_that_waits_for_a_connection_sends_nothing_once_the_client_is_closed(
    make_client: MakeClient,
) -> None:
    async def wait() -> None:
        with pytest.raises((ConnectError, UsageError)):
            await client.complete("Hello")

    with ScriptedPeer(ENDLESS) as peer:
        client = make_client(peer.url, limits=Limits(max_connections=1))
        async with client, client.stream("Hello") as reply, anyio.create_task_group() as tasks:
            await anext(reply)
            for _ in range(3):
                tasks.start_soon(wait)
            await anyio.sleep(0.05)
            await client.aclose()
    assert len(peer.requests) == 1


async def test_a_client_closed_twice_is_closed(make_client: MakeClient) -> None:
    client = make_client("http://127.0.0.1:1")
    async with client:
        await client.aclose()
    await client.aclose()


async def test_a_closed_client_says_so(make_client: MakeClient) -> None:
    with ScriptedPeer(OK) as peer:
        async with make_client(peer.url) as client:
            before = client.stream("Hello")
        with pytest.raises(UsageError):
            client.stream("Hello")
        with pytest.raises(UsageError):
            await client.complete("Hello")
        with pytest.raises(UsageError):
            await before.__aenter__()
        with pytest.raises(UsageError):
            await client.__aenter__()
    assert peer.connections == []


async def test_a_reply_is_read_inside_its_block_only(make_client: MakeClient) -> None:
    with ScriptedPeer(OK) as peer:
        async with make_client(peer.url) as client:
            reply = client.stream("Hello")
            with pytest.raises(UsageError):
                await anext(reply)
            async with reply:
                pass
            with pytest.raises(UsageError):
                await anext(reply)


async def test_a_reply_is_entered_once(make_client: MakeClient) -> None:
    with ScriptedPeer(OK) as peer:
        async with make_client(peer.url) as client, client.stream("Hello") as reply:
            with pytest.raises(UsageError):
                await reply.__aenter__()
            assert [text async for text in reply] == ["fine"]


async def test_nothing_is_sent_for_a_conversation_that_cannot_be(make_client: MakeClient) -> None:
    with ScriptedPeer(OK) as peer:
        async with make_client(peer.url) as client:
            with pytest.raises(GPROChatError):
                await client.complete([])
    assert peer.connections == []
