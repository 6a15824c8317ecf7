"""The response of aiohttp, and its body piece by piece."""

import asyncio
import gc
import gzip
from threading import Event
from typing import Any, Final

import aiohttp
import pytest

from gprochat_core import Cause, Phase, SendLimits, TransportError
from gprochat_transports.aiohttp.transport import AiohttpTransport
from gprochat_transports.options import Settings
from tests.peers.scripted import (
    Script,
    ScriptedPeer,
    Step,
    close,
    pause,
    receive,
    repeat,
    reset,
    send,
    set_event,
    until_client_closes,
)
from tests.peers.wire import LAST_CHUNK, answer, chunk, chunked, head
from tests.transports.aiohttp.test_transport import (
    HEAD,
    LONG,
    SHORT,
    SLACK,
    call,
    make_request,
    open_transport,
)

GZIPPED: Final = gzip.compress(b"fine")


@pytest.mark.parametrize("end", [close, reset])
def test_what_arrived_before_a_failure_comes_first(end: Step) -> None:
    ended = Event()

    async def main() -> None:
        async with open_transport() as transport:
            response = await transport.send(make_request(peer.url), LONG)
            await asyncio.to_thread(ended.wait, SLACK)
            # Both have arrived here, the bytes and the end, before the first read.
            await asyncio.sleep(SHORT)
            assert await response.read(SLACK) == b"ab"
            with pytest.raises(TransportError) as caught:
                await response.read(SLACK)
            assert (caught.value.cause, caught.value.phase) == (Cause.LOST, Phase.READING)
            await response.aclose()

    script: Script = [
        receive,
        send(HEAD + chunk("a") + chunk("b")),
        pause(SHORT),
        end,
        set_event(ended),
    ]
    with ScriptedPeer(script) as peer:
        asyncio.run(main())


def test_a_body_that_ends_with_its_connection_ends_properly() -> None:
    async def main() -> None:
        async with open_transport() as transport:
            assert await call(transport, make_request(peer.url)) == b"fine"

    with ScriptedPeer([receive, send(head(200, "connection: close") + b"fine"), close]) as peer:
        asyncio.run(main())


async def read_in_middleware(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    response = await handler(request)
    await response.read()
    return response


async def read_in_trace(_session: object, _context: object, end: Any) -> None:
    await end.response.read()


@pytest.mark.parametrize("by", ["a middleware", "a trace"])
@pytest.mark.parametrize("body", [b"fine", GZIPPED, b""], ids=["plain", "gzip", "empty"])
def test_a_body_that_the_callers_session_has_read_is_given_all_the_same(
    by: str, body: bytes
) -> None:
    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(read_in_trace)
    settings: dict[str, Any] = {"middlewares": [read_in_middleware]}
    if by == "a trace":
        settings = {"trace_configs": [trace]}

    async def main() -> None:
        async with aiohttp.ClientSession(**settings) as session:
            transport = AiohttpTransport(session, Settings(), None)
            # Twice, because a connection that served before must not matter.
            for _ in range(2):
                assert await call(transport, make_request(peer.url)) == (body and b"fine")
            await transport.aclose()

    coding = ["content-encoding: gzip"] if body is GZIPPED else []
    with ScriptedPeer([repeat(receive, send(answer(200, body, *coding)))]) as peer:
        asyncio.run(main())
    assert len(peer.connections) == 1


def test_each_read_has_a_time_limit_of_its_own() -> None:
    async def main() -> None:
        async with open_transport() as transport:
            response = await transport.send(make_request(peer.url), LONG)
            # Longer in all than each of them may take.
            for _ in range(6):
                assert await response.read(4 * SHORT) == b"a"
            assert await response.read(None) == b""
            await response.aclose()

    script = [receive, send(HEAD, *[chunk("a")] * 6, b"0\r\n\r\n", every=SHORT)]
    with ScriptedPeer(script) as peer:
        asyncio.run(main())


def test_after_a_time_limit_the_body_stays_ended() -> None:
    async def main() -> None:
        async with open_transport() as transport:
            response = await transport.send(make_request(peer.url), LONG)
            for _ in range(2):
                with pytest.raises(TransportError) as caught:
                    await response.read(SHORT)
                assert caught.value.cause is Cause.TIMED_OUT
            await response.aclose()

    with ScriptedPeer([receive, send(HEAD), until_client_closes]) as peer:
        asyncio.run(main())


def test_a_response_that_was_not_read_to_its_end_closes_its_connection() -> None:
    async def main() -> None:
        async with open_transport() as transport:
            response = await transport.send(make_request(peer.url), LONG)
            assert await response.read(SLACK) == b"a"
            await response.aclose()
            assert await asyncio.to_thread(peer.connection(0).client_closed.wait, SLACK)
            await response.aclose()

    with ScriptedPeer([receive, send(HEAD + chunk("a")), until_client_closes]) as peer:
        asyncio.run(main())


def test_closing_a_response_ends_a_read_under_way() -> None:
    async def main() -> None:
        async with open_transport() as transport:
            response = await transport.send(make_request(peer.url), LONG)
            reading = asyncio.create_task(response.read(SLACK))
            await asyncio.sleep(SHORT)
            await response.aclose()
            with pytest.raises(TransportError) as caught:
                await asyncio.wait_for(reading, SLACK)
            assert caught.value.cause is Cause.LOST

    with ScriptedPeer([receive, send(HEAD), until_client_closes]) as peer:
        asyncio.run(main())


@pytest.mark.parametrize("decompressed", [True, False])
def test_a_content_coding_that_the_session_undid_is_not_told(decompressed: bool) -> None:
    async def main() -> None:
        async with aiohttp.ClientSession(auto_decompress=decompressed) as session:
            transport = AiohttpTransport(session, Settings(), None)
            response = await transport.send(make_request(peer.url), SendLimits(SLACK, SLACK))
            names = [name.lower() for name, _ in response.headers]
            assert (b"content-encoding" in names) is not decompressed
            assert await response.read(SLACK) == (b"fine" if decompressed else GZIPPED)
            await response.aclose()
            await transport.aclose()

    with ScriptedPeer([receive, send(answer(200, GZIPPED, "Content-Encoding: gzip"))]) as peer:
        asyncio.run(main())


def test_a_connection_that_ends_after_its_replies_leaves_no_exception_behind() -> None:
    """asyncio would report one that was never retrieved."""
    reported: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        async with open_transport() as transport:
            for _ in range(2):
                assert await call(transport, make_request(peer.url)) == b"fine"
            await asyncio.to_thread(peer.connection(0).ended.wait, SLACK)
            await asyncio.sleep(SHORT)
            # This one has a new connection, and then nothing holds the old one.
            assert await call(transport, make_request(peer.url)) == b"fine"
            gc.collect()

    # In two packets: a reply that arrives in one has left its connection when it is read.
    answered = send(HEAD + chunk("fine"), LAST_CHUNK, every=SHORT / 4)
    script = [receive, answered, receive, answered, pause(SHORT / 4), reset]
    with ScriptedPeer(script, [receive, answered]) as peer:
        asyncio.run(main())
    assert reported == []


def test_the_watchdog_forgets_a_response_that_was_closed() -> None:
    async def main() -> None:
        async with open_transport() as transport:
            for _ in range(3):
                assert await call(transport, make_request(peer.url)) == b"fine"
            assert transport._watchdog.waits == set()

    with ScriptedPeer([repeat(receive, send(chunked("fine")))]) as peer:
        asyncio.run(main())
