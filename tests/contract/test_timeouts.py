"""Each time limit ends a call that is not over in time, says which it was, and keeps the text."""

from time import monotonic

import pytest

from gprochat_core import (
    ConnectTimeout,
    Limits,
    ReplyTimeout,
    RetryPolicy,
    ServiceFailed,
    Timeouts,
)
from tests.contract.adapters import Adapter
from tests.contract.conftest import Happens, MakeClient
from tests.peers.scripted import (
    Script,
    ScriptedPeer,
    deaf_port,
    pause,
    receive,
    repeat,
    send,
    until_client_closes,
)
from tests.peers.wire import answer, chunk, chunked, head

SHORT = 0.2

SLACK = 2.0
"""Seconds by which a limit may be late on a machine that is busy."""

OK: Script = [repeat(receive, send(chunked("fine")))]

CHUNKED = head(200, "transfer-encoding: chunked")

LAST_CHUNK = b"0\r\n\r\n"


async def times_out(
    make_client: MakeClient,
    happens: Happens,
    script: Script,
    timeouts: Timeouts,
    prompt: str = "Hello",
) -> ReplyTimeout:
    """Return the error of a call that runs into a limit; the next call must succeed."""
    with ScriptedPeer(script, OK) as peer:
        async with make_client(peer.url, timeouts=timeouts) as client:
            begun = monotonic()
            with pytest.raises(ReplyTimeout) as caught:
                await client.complete(prompt)
            assert SHORT * 0.9 <= monotonic() - begun < SHORT + SLACK
            assert await happens(peer.connections[0].client_closed)
            assert await client.complete("Hello") == "fine"
    assert caught.value.seconds == SHORT
    return caught.value


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([receive, until_client_closes], id="no-head"),
        pytest.param([receive, send(CHUNKED), until_client_closes], id="no-body"),
        pytest.param([receive, send(head(103)), until_client_closes], id="no-final-head"),
        pytest.param([receive, send(answer(503)[:-9]), until_client_closes], id="half-a-head"),
        pytest.param(
            [receive, send(*(bytes([byte]) for byte in CHUNKED), every=0.05)], id="slow-head"
        ),
    ],
)
async def test_a_reply_that_does_not_begin(
    make_client: MakeClient, happens: Happens, script: Script
) -> None:
    error = await times_out(make_client, happens, script, Timeouts(first_byte=SHORT))
    assert (error.limit, error.text) == ("first_byte", "")


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(CHUNKED + chunk("Привет"), id="chunked"),
        pytest.param(head(200, "content-length: 100") + "Привет".encode(), id="with-length"),
        pytest.param(head(200) + "Привет".encode(), id="until-closed"),
    ],
)
async def test_a_reply_that_stands_still(
    make_client: MakeClient, happens: Happens, begin: bytes
) -> None:
    script = [receive, send(begin), until_client_closes]
    error = await times_out(make_client, happens, script, Timeouts(first_byte=8, idle=SHORT))
    assert (error.limit, error.text) == ("idle", "Привет")


async def test_a_reply_that_stands_still_may_have_had_longer_to_begin(
    make_client: MakeClient,
    happens: Happens,
) -> None:
    script = [receive, send(CHUNKED + chunk("Привет")), until_client_closes]
    error = await times_out(make_client, happens, script, Timeouts(first_byte=5, idle=SHORT))
    assert (error.limit, error.text) == ("idle", "Привет")


async def test_a_reply_may_be_slow_to_begin_and_quick_to_go_on(make_client: MakeClient) -> None:
    with ScriptedPeer([receive, pause(0.4), send(chunked("ok"))]) as peer:
        async with make_client(peer.url, timeouts=Timeouts(first_byte=5, idle=SHORT)) as client:
            assert await client.complete("Hello") == "ok"


async def test_a_reply_that_began_in_time_may_be_read_late(
    adapter: Adapter, make_client: MakeClient
) -> None:
    with ScriptedPeer(OK) as peer:
        async with (
            make_client(peer.url, timeouts=Timeouts(first_byte=0.5)) as client,
            client.stream("Hello") as reply,
        ):
            await adapter.loop.sleep(0.6)
            assert [text async for text in reply] == ["fine"]


async def test_pauses_shorter_than_the_limit_do_not_add_up(make_client: MakeClient) -> None:
    script = [receive, send(CHUNKED, *[chunk("a")] * 8, b"0\r\n\r\n", every=0.08)]
    with ScriptedPeer(script) as peer:
        timeouts = Timeouts(first_byte=0.4, idle=0.4)
        async with make_client(peer.url, timeouts=timeouts) as client:
            assert await client.complete("Hello") == "a" * 8


async def test_a_call_that_drags_on(make_client: MakeClient, happens: Happens) -> None:
    dribble = repeat(pause(0.03), send(chunk("a")))
    error = await times_out(
        make_client, happens, [receive, send(CHUNKED), dribble], Timeouts(idle=5, total=SHORT)
    )
    assert error.limit == "total"
    assert error.text.strip("a") == ""


async def test_the_total_ends_connecting_too(make_client: MakeClient) -> None:
    with deaf_port() as port:
        timeouts = Timeouts(connect=8, total=SHORT)
        async with make_client(f"http://127.0.0.1:{port}", timeouts=timeouts) as client:
            with pytest.raises(ReplyTimeout) as caught:
                await client.complete("Hello")
    assert caught.value.limit == "total"
    assert "Errno" not in str(caught.value)


async def test_all_attempts_count_towards_the_total(make_client: MakeClient) -> None:
    slow_503 = repeat(receive, pause(0.07), send(answer(503)))
    retry = RetryPolicy(max_attempts=100, base_delay=0)
    with ScriptedPeer([slow_503]) as peer:
        async with make_client(peer.url, retry=retry, timeouts=Timeouts(total=SHORT)) as client:
            begun = monotonic()
            # If time runs out between the head and the body of a 503, the 503 is the error.
            with pytest.raises((ReplyTimeout, ServiceFailed)) as caught:
                await client.complete("Hello")
            assert monotonic() - begun < SHORT + SLACK
    if isinstance(caught.value, ReplyTimeout):
        assert caught.value.limit == "total"


async def test_a_service_that_stops_reading(make_client: MakeClient) -> None:
    script = [pause(60)]
    with ScriptedPeer(script, OK) as peer:
        timeouts = Timeouts(first_byte=SHORT)
        async with make_client(peer.url, timeouts=timeouts) as client:
            with pytest.raises(ReplyTimeout) as caught:
                await client.complete("long " * 2_000_000)
            assert await client.complete("Hello") == "fine"
    assert caught.value.limit == "first_byte"


async def test_a_service_that_lets_nobody_in(make_client: MakeClient) -> None:
    with deaf_port() as port:
        timeouts = Timeouts(connect=SHORT)
        async with make_client(f"http://127.0.0.1:{port}", timeouts=timeouts) as client:
            begun = monotonic()
            with pytest.raises(ConnectTimeout) as caught:
                await client.complete("Hello")
            assert SHORT * 0.9 <= monotonic() - begun < SHORT + SLACK
    assert caught.value.seconds == SHORT


@pytest.mark.not_on("given-httpx@asyncio", "the client that was passed limits its connections")
async def test_waiting_for_a_free_connection_is_part_of_connecting(
    make_client: MakeClient,
) -> None:
    with ScriptedPeer([receive, send(CHUNKED + chunk("a")), until_client_closes], OK) as peer:
        async with make_client(
            peer.url, limits=Limits(max_connections=1), timeouts=Timeouts(connect=SHORT)
        ) as client:
            async with client.stream("Hello") as reply:
                assert await anext(reply) == "a"
                with pytest.raises(ConnectTimeout):
                    await client.complete("Hello")
            assert await client.complete("Hello") == "fine"


async def test_no_limit_waits(make_client: MakeClient) -> None:
    none = Timeouts(connect=None, first_byte=None, idle=None)
    with ScriptedPeer([receive, pause(0.1), send(chunked("ok"))]) as peer:
        async with make_client(peer.url, timeouts=none) as client:
            assert await client.complete("Hello") == "ok"


async def test_a_call_may_have_shorter_limits_than_its_client(
    make_client: MakeClient, happens: Happens
) -> None:
    begun: Script = [receive, send(CHUNKED + chunk("a")), until_client_closes]
    limits = {"first_byte": Timeouts(first_byte=SHORT), "idle": Timeouts(idle=SHORT)}
    with ScriptedPeer([receive, until_client_closes], begun, OK) as peer:
        async with make_client(peer.url) as client:
            for number, (limit, timeouts) in enumerate(limits.items()):
                with pytest.raises(ReplyTimeout) as caught:
                    await client.complete("Hello", timeouts=timeouts)
                assert (caught.value.limit, caught.value.seconds) == (limit, SHORT)
                assert await happens(peer.connections[number].client_closed)
            assert await client.complete("Hello") == "fine"


async def test_a_call_may_have_less_time_to_connect_than_its_client(
    make_client: MakeClient,
) -> None:
    with deaf_port() as port:
        async with make_client(f"http://127.0.0.1:{port}") as client:
            with pytest.raises(ConnectTimeout) as connecting:
                await client.complete("Hello", timeouts=Timeouts(connect=SHORT))
            with pytest.raises(ReplyTimeout) as total:
                await client.complete("Hello", timeouts=Timeouts(total=SHORT))
    assert (connecting.value.seconds, total.value.seconds) == (SHORT, SHORT)


@pytest.mark.not_on("given-httpx@asyncio", "the client that was passed limits its connections")
async def test_a_call_may_wait_less_for_a_free_connection(make_client: MakeClient) -> None:
    with ScriptedPeer([receive, send(CHUNKED + chunk("a")), until_client_closes]) as peer:
        async with (
            make_client(peer.url, limits=Limits(max_connections=1)) as client,
            client.stream("Hello") as reply,
        ):
            assert await anext(reply) == "a"
            with pytest.raises(ConnectTimeout) as caught:
                await client.complete("Hello", timeouts=Timeouts(connect=SHORT))
    assert caught.value.seconds == SHORT


async def test_a_call_may_have_longer_limits_than_its_client(make_client: MakeClient) -> None:
    late = pause(1.5 * SHORT)
    slow: Script = [receive, late, send(CHUNKED + chunk("o")), late, send(chunk("k") + LAST_CHUNK)]
    silent: Script = [receive, until_client_closes]
    short = Timeouts(first_byte=SHORT, idle=SHORT, total=SHORT)
    with ScriptedPeer([*slow, *silent], silent) as peer:
        async with make_client(peer.url, timeouts=short) as client:
            assert await client.complete("Hello", timeouts=Timeouts()) == "ok"
            with pytest.raises(ReplyTimeout) as caught:
                await client.complete("Hello")
    assert caught.value.seconds == SHORT


async def test_each_of_two_calls_at_once_has_its_own_limit(make_client: MakeClient) -> None:
    begun: Script = [receive, send(CHUNKED + chunk("a"))]
    end: Script = [pause(2 * SHORT), send(chunk("b") + LAST_CHUNK)]
    with ScriptedPeer([*begun, *end], [*begun, until_client_closes]) as peer:
        async with make_client(peer.url) as client, client.stream("Hello") as patient:
            assert await anext(patient) == "a"
            with pytest.raises(ReplyTimeout) as caught:
                await client.complete("Hello", timeouts=Timeouts(idle=SHORT))
            assert [text async for text in patient] == ["b"]
    assert (caught.value.limit, caught.value.text) == ("idle", "a")
