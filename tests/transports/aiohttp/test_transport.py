"""Requests with a session of aiohttp's: one made here, and one that the caller made."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from threading import Event
from time import monotonic
from typing import Final

import aiohttp
import pytest

from gprochat_core import Cause, Limits, Phase, Request, SendLimits, TransportError
from gprochat_transports.aiohttp.transport import AiohttpTransport, connect_timeout
from gprochat_transports.options import Settings
from tests.faults.certificates import CERTIFICATES, client_context
from tests.peers.scripted import (
    Script,
    ScriptedPeer,
    close,
    closed_port,
    deaf_port,
    pause,
    receive,
    receive_some,
    repeat,
    reset,
    send,
    until_client_closes,
    wait_for,
)
from tests.peers.wire import answer, chunk, chunked, head

SHORT: Final = 0.1

SLACK: Final = 5.0

LONG: Final = SendLimits(connect=SLACK, first_byte=SLACK)

HEAD: Final = head(200, "transfer-encoding: chunked")

both_sessions = pytest.mark.parametrize("own", [True, False], ids=["own session", "given session"])


def make_request(url: str) -> Request:
    return Request("POST", f"{url}/api/generate", (("x-thing", "1"),), b"the body")


@asynccontextmanager
async def open_transport(
    own: bool = True, *, proxy: str | None = None, max_connections: int = 100
) -> AsyncGenerator[AiohttpTransport, None]:
    limits = Limits(max_connections=max_connections)
    session = None if own else aiohttp.ClientSession()
    transport = AiohttpTransport(
        session, Settings(limits=limits, ssl_context=client_context()), proxy
    )
    try:
        yield transport
    finally:
        await transport.aclose()
        if session is not None:
            assert not session.closed
            await session.close()


async def call(
    transport: AiohttpTransport, request: Request, limits: SendLimits = LONG, idle: float = SLACK
) -> bytes:
    """Make a whole call; return the body."""
    response = await transport.send(request, limits)
    body = b""
    try:
        while data := await response.read(idle):
            body += data
    finally:
        await response.aclose()
    return body


async def fail(
    transport: AiohttpTransport, request: Request, limits: SendLimits = LONG, idle: float = SLACK
) -> tuple[Cause, Phase, bool]:
    """Make a call that fails; return the facts that are reported."""
    with pytest.raises(TransportError) as caught:
        await call(transport, request, limits, idle)
    assert caught.value.__cause__ is not None
    return caught.value.cause, caught.value.phase, caught.value.reused


@both_sessions
def test_a_response_has_a_head_and_a_body(own: bool) -> None:
    async def main() -> None:
        async with open_transport(own) as transport:
            before = monotonic()
            response = await transport.send(make_request(peer.url), LONG)
            assert before <= response.sent_at <= monotonic()
            assert response.status == 201
            assert (b"X-Thing", b"1") in list(response.headers)
            assert await response.read(SLACK) == b"fine"
            assert await response.read(SLACK) == b""
            await response.aclose()

    with ScriptedPeer([receive, send(answer(201, b"fine", "X-Thing: 1"))]) as peer:
        asyncio.run(main())
    assert peer.requests[0].body == b"the body"
    assert peer.requests[0].field("x-thing") == "1"


@both_sessions
def test_a_connection_whose_reply_was_read_to_its_end_is_used_again(own: bool) -> None:
    async def main() -> None:
        async with open_transport(own) as transport:
            for _ in range(3):
                assert await call(transport, make_request(peer.url)) == b"fine"

    with ScriptedPeer([repeat(receive, send(chunked("fine")))]) as peer:
        asyncio.run(main())
    assert len(peer.connections) == 1
    assert [request.field("x-thing") for request in peer.requests] == ["1", "1", "1"]


@both_sessions
def test_a_redirect_and_an_error_are_responses_like_any_other(own: bool) -> None:
    async def main() -> None:
        async with open_transport(own) as transport:
            for status in (307, 500):
                response = await transport.send(make_request(peer.url), LONG)
                assert response.status == status
                await response.aclose()

    moved = answer(307, b"", "location: /x")
    with ScriptedPeer([receive, send(moved), receive, send(answer(500))]) as peer:
        asyncio.run(main())
    assert len(peer.requests) == 2


FAILURES: Final[dict[str, tuple[Script, Cause, Phase]]] = {
    "closed": ([receive, close], Cause.LOST, Phase.AWAITING_HEAD),
    "reset": ([receive, reset], Cause.LOST, Phase.AWAITING_HEAD),
    "no HTTP": ([receive, send(b"nonsense\r\n\r\n")], Cause.MALFORMED, Phase.AWAITING_HEAD),
    "silent": ([receive, until_client_closes], Cause.TIMED_OUT, Phase.AWAITING_HEAD),
    "a head that trickles": (
        [receive, send(*[b"HTTP/1.1 200 OK\r\n", *[b"x: 1\r\n"] * 40], every=SHORT / 4)],
        Cause.TIMED_OUT,
        Phase.AWAITING_HEAD,
    ),
    "closed in the body": ([receive, send(HEAD + chunk("a")), close], Cause.LOST, Phase.READING),
    "reset in the body": (
        [receive, send(HEAD + chunk("a")), pause(SHORT / 2), reset],
        Cause.LOST,
        Phase.READING,
    ),
    "reset where the body ends by closing": (
        [receive, send(head(200, "connection: close") + b"a"), pause(SHORT / 2), reset],
        Cause.LOST,
        Phase.READING,
    ),
    "no chunk": (
        [receive, send(HEAD + chunk("a"), b"nonsense\r\n", every=SHORT / 2)],
        Cause.LOST,
        Phase.READING,
    ),
    "silent in the body": (
        [receive, send(HEAD + chunk("a")), until_client_closes],
        Cause.TIMED_OUT,
        Phase.READING,
    ),
}


@both_sessions
@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize("failure", FAILURES)
def test_each_failure_is_reported_with_its_cause_its_phase_and_whether_reused(
    own: bool, failure: str, reused: bool
) -> None:
    script, cause, phase = FAILURES[failure]
    limit = SHORT if cause is Cause.TIMED_OUT else SLACK

    async def main() -> None:
        limits = SendLimits(connect=SLACK, first_byte=limit)
        async with open_transport(own) as transport:
            request = make_request(peer.url)
            if reused:
                await call(transport, request)
            assert await fail(transport, request, limits, limit) == (cause, phase, reused)

    before: Script = [receive, send(chunked("fine"))] if reused else []
    with ScriptedPeer([*before, *script]) as peer:
        asyncio.run(main())
        assert peer.connection(0).ended.wait(SLACK)
    assert len(peer.connections) == 1


@both_sessions
def test_an_answer_to_a_request_that_is_not_read_to_its_end_is_read_at_once(own: bool) -> None:
    ended = Event()

    async def main() -> None:
        async with open_transport(own) as transport:
            request = Request("POST", f"{peer.url}/api/generate", (), bytes(8 << 20))
            async with asyncio.timeout(SLACK / 2):
                response = await transport.send(request, LONG)
            assert response.status == 413
            await response.aclose()

    # The peer reads no more of the request than the first packet.
    with ScriptedPeer([receive_some, send(answer(413)), wait_for(ended)]) as peer:
        asyncio.run(main())
        ended.set()


@both_sessions
def test_a_refused_connection_was_connecting(own: bool) -> None:
    async def main() -> None:
        async with open_transport(own) as transport:
            request = make_request(f"http://127.0.0.1:{port}")
            assert await fail(transport, request) == (Cause.LOST, Phase.CONNECTING, False)

    with closed_port() as port:
        asyncio.run(main())


@both_sessions
def test_connecting_takes_no_longer_than_its_limit(own: bool) -> None:
    async def main() -> None:
        async with open_transport(own) as transport:
            request = make_request(f"http://127.0.0.1:{port}")
            begun = monotonic()
            facts = await fail(transport, request, SendLimits(SHORT, SLACK))
            assert facts == (Cause.TIMED_OUT, Phase.CONNECTING, False)
            assert SHORT * 0.9 <= monotonic() - begun < SLACK

    with deaf_port() as port:
        asyncio.run(main())


def test_a_long_limit_for_connecting_is_not_rounded_up() -> None:
    """aiohttp rounds limits from 5 seconds up to whole seconds of the loop's clock."""
    limit = connect_timeout(60.5)
    assert limit.connect == limit.sock_connect == 60.5
    assert limit.ceil_threshold > 60.5


def test_a_handshake_that_fails_was_connecting_and_closes_its_connection() -> None:
    async def main() -> None:
        async with open_transport() as transport:
            request = make_request(peer.url)
            assert await fail(transport, request) == (Cause.LOST, Phase.CONNECTING, False)

    context = CERTIFICATES["unknown authority"]()
    with ScriptedPeer([until_client_closes], ssl_context=context) as peer:
        asyncio.run(main())
        assert peer.connection(0).ended.wait(SLACK)


def test_closing_the_client_ends_the_calls_that_wait_for_a_slot() -> None:
    """aiohttp cancels what they wait for, and nobody has cancelled the calls."""

    async def main() -> None:
        async with open_transport(max_connections=1) as transport:
            response = await transport.send(make_request(peer.url), LONG)
            waiting = asyncio.create_task(fail(transport, make_request(peer.url)))
            await asyncio.sleep(SHORT)
            await transport.aclose()
            assert (await waiting)[0] is Cause.LOST
            await response.aclose()

    with ScriptedPeer([receive, send(HEAD), until_client_closes]) as peer:
        asyncio.run(main())


@both_sessions
def test_closing_the_client_ends_the_calls_that_wait_for_a_head(own: bool) -> None:
    """The caller's session stays open, and nothing limits its calls any more."""

    async def main() -> None:
        async with open_transport(own) as transport:
            waiting = asyncio.create_task(fail(transport, make_request(peer.url)))
            await asyncio.sleep(SHORT)
            await transport.aclose()
            async with asyncio.timeout(SLACK / 2):
                assert await waiting == (Cause.LOST, Phase.AWAITING_HEAD, False)

    with ScriptedPeer([receive, until_client_closes]) as peer:
        asyncio.run(main())


def test_a_call_that_is_cancelled_while_it_waits_for_a_slot_is_cancelled() -> None:
    async def main() -> None:
        async with open_transport(max_connections=1) as transport:
            response = await transport.send(make_request(peer.url), LONG)
            waiting = asyncio.create_task(call(transport, make_request(peer.url)))
            await asyncio.sleep(SHORT)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await response.aclose()

    with ScriptedPeer([receive, send(HEAD), until_client_closes]) as peer:
        asyncio.run(main())


def test_a_call_that_is_cancelled_closes_its_connection() -> None:
    async def main() -> None:
        async with open_transport() as transport:
            under_way = asyncio.create_task(call(transport, make_request(peer.url)))
            await asyncio.sleep(SHORT)
            under_way.cancel()
            with pytest.raises(asyncio.CancelledError):
                await under_way
            assert await asyncio.to_thread(peer.connection(0).client_closed.wait, SLACK)

    with ScriptedPeer([receive, until_client_closes]) as peer:
        asyncio.run(main())


def test_an_http_proxy_is_told_its_password_and_the_whole_url() -> None:
    async def main() -> None:
        proxy = f"http://user:made%20up@127.0.0.1:{peer.port}"
        async with open_transport(proxy=proxy) as transport:
            assert await call(transport, make_request("http://chat.example")) == b"fine"

    with ScriptedPeer([receive, send(chunked("fine"))]) as peer:
        asyncio.run(main())
    request = peer.requests[0]
    assert request.line == "POST http://chat.example/api/generate HTTP/1.1"
    assert request.field("proxy-authorization") == "Basic dXNlcjptYWRlIHVw"


def test_to_https_an_http_proxy_is_told_its_password_in_the_request_for_a_tunnel() -> None:
    async def main() -> None:
        proxy = f"http://user:made%20up@127.0.0.1:{peer.port}"
        async with open_transport(proxy=proxy) as transport:
            request = make_request("https://chat.example")
            with pytest.raises(TransportError) as caught:
                await transport.send(request, LONG)
            assert caught.value.phase is Phase.CONNECTING

    with ScriptedPeer([receive, send(answer(403))]) as peer:
        asyncio.run(main())
    request = peer.requests[0]
    assert request.line == "CONNECT chat.example:443 HTTP/1.1"
    assert request.field("proxy-authorization") == "Basic dXNlcjptYWRlIHVw"


def test_what_stands_for_the_loop_is_the_running_one() -> None:
    async def main() -> None:
        async with open_transport() as transport:
            assert transport.current_loop() is asyncio.get_running_loop()
            begun = monotonic()
            await transport.sleep(SHORT)
            assert SHORT * 0.9 <= monotonic() - begun < SLACK

    asyncio.run(main())


def test_a_transport_that_sent_nothing_has_nothing_to_close() -> None:
    async def main() -> None:
        transport = AiohttpTransport(None, Settings(), None)
        await transport.aclose()
        await transport.aclose()

    asyncio.run(main())
