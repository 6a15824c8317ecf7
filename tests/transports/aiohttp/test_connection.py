"""The connections that the adapter makes with aiohttp, and what aiohttp's exceptions mean."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from gprochat_core import Cause, Limits, Phase, Service, Timeouts, TransportError
from gprochat_transports.aiohttp import Client
from gprochat_transports.aiohttp.connection import CAUSES, TLS_BUFFER, Protocol, make_connector
from gprochat_transports.http11.network import READ_SIZE
from tests.faults.certificates import client_context
from tests.peers.scripted import (
    ScriptedPeer,
    pause,
    receive,
    receive_some,
    repeat,
    send,
    set_event,
    until_client_closes,
)
from tests.peers.wire import LAST_CHUNK, chunk, chunked, head

SHORT = 0.1

SLACK = 10.0

GREETING = b"\x05\x00"
CONNECTED = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"


class FakeTransport(asyncio.Transport):
    """A transport of asyncio's that counts.

    Attributes:
        max_size: how much it reads at once.
        buffer: how much it keeps for a slow reader.
    """

    def __init__(self) -> None:
        super().__init__()
        self.max_size = 256 * 1024
        self.buffer: int | None = None

    def set_read_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.buffer = high


def test_a_connection_that_has_not_paused_is_not_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp resumes by having its parser parse nothing, for each read."""
    received: list[bytes] = []
    receive_data = ResponseHandler.data_received

    def note(protocol: ResponseHandler, data: bytes) -> None:
        received.append(data)
        receive_data(protocol, data)

    async def main(service: Service) -> None:
        async with Client(service, proxy=None) as client:
            assert await client.complete("Hello") == "aaaa"

    monkeypatch.setattr(ResponseHandler, "data_received", note)
    begin = head(200, "transfer-encoding: chunked")
    with ScriptedPeer([receive, send(begin, *[chunk("a")] * 4, LAST_CHUNK, every=0.01)]) as peer:
        asyncio.run(main(Service(peer.url, secret_key="made up")))
    assert received
    assert b"" not in received


def test_asyncio_reads_and_keeps_no_more_than_what_costs_little() -> None:
    async def main() -> None:
        protocol, transport = Protocol(asyncio.get_running_loop()), FakeTransport()
        protocol.connection_made(transport)
        assert (transport.max_size, transport.buffer) == (READ_SIZE, TLS_BUFFER)

    asyncio.run(main())


def test_a_transport_of_another_loop_is_taken_as_it_is() -> None:
    async def main() -> None:
        Protocol(asyncio.get_running_loop()).connection_made(asyncio.Transport())

    asyncio.run(main())


def test_a_connection_pauses_for_a_slow_reader_and_is_resumed_as_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []

    def counted(name: str) -> Callable[..., None]:
        method = getattr(ResponseHandler, name)

        def call(protocol: ResponseHandler, *args: Any, **kwargs: Any) -> None:
            calls.append(name)
            method(protocol, *args, **kwargs)

        return call

    async def main(service: Service) -> None:
        async with (
            Client(service, proxy=None) as client,
            client.stream("Hello", keep_text=False) as reply,
        ):
            await asyncio.sleep(SHORT)
            length = 0
            async for text in reply:
                length += len(text)
                await asyncio.sleep(0)
            assert length == 2_000_000

    for name in ("pause_reading", "resume_reading"):
        monkeypatch.setattr(ResponseHandler, name, counted(name))
    with ScriptedPeer([receive, send(chunked(*["a" * 50_000] * 40))]) as peer:
        asyncio.run(main(Service(peer.url, secret_key="made up")))
    assert "pause_reading" in calls
    assert calls.count("resume_reading") <= calls.count("pause_reading")


def test_a_connection_on_which_bytes_arrived_while_it_was_idle_is_not_used_again() -> None:
    async def main(service: Service) -> None:
        async with Client(service, proxy=None) as client:
            for _ in range(2):
                assert await client.complete("Hello") == "fine"
                await asyncio.sleep(3 * SHORT)

    script = [receive, send(chunked("fine")), pause(SHORT), send(chunked("unsolicited"))]
    with ScriptedPeer(
        [*script, pause(5 * SHORT)], [repeat(receive, send(chunked("fine")))]
    ) as peer:
        asyncio.run(main(Service(peer.url, secret_key="made up")))
    assert [len(connection.requests) for connection in peer.connections] == [1, 1]


@pytest.mark.parametrize("socks_proxy", [None, "socks5://user:made-up@proxy.example:1080"])
def test_a_connector_has_as_many_slots_as_the_client(socks_proxy: str | None) -> None:
    async def main() -> None:
        connector = make_connector(Limits(max_connections=7), client_context(), socks_proxy)
        assert (connector.limit, connector.force_close) == (7, False)
        await connector.close()

    asyncio.run(main())


def test_a_tls_handshake_through_a_socks_proxy_ends_at_once_when_it_is_cancelled() -> None:
    """aiohttp-socks's own handshake waits for its time limit, and may miss even that one."""
    handshaking = threading.Event()

    async def main() -> None:
        service = Service("https://chat.example", secret_key="made up")
        proxy = f"socks5://127.0.0.1:{peer.port}"
        async with Client(service, proxy=proxy, timeouts=Timeouts(connect=SLACK)) as client:
            call = asyncio.create_task(client.complete("Hello"))
            assert await asyncio.to_thread(handshaking.wait, SLACK)
            call.cancel()
            assert await asyncio.wait([call], timeout=SLACK / 2) == ({call}, set())
            assert call.cancelled()

    # RFC 1928: greeting, request. Then the client begins the handshake.
    proxying = [receive_some, send(GREETING), receive_some, send(CONNECTED), receive_some]
    with ScriptedPeer([*proxying, set_event(handshaking), until_client_closes]) as peer:
        asyncio.run(main())


def test_a_connector_without_keep_alive_closes_each_connection() -> None:
    async def main() -> None:
        connector = make_connector(Limits(keep_alive=0), None, None)
        assert connector.force_close
        await connector.close()

    asyncio.run(main())


def test_a_session_of_the_connectors_makes_other_requests_too() -> None:
    """A request whose body is not the adapter's gets a connection as from aiohttp's connector."""

    async def main(url: str) -> None:
        connector = make_connector(Limits(), None, None)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(url, data=b"Hello") as response,
        ):
            assert await response.text() == "fine"

    with ScriptedPeer([receive, send(chunked("fine"))]) as peer:
        asyncio.run(main(peer.url))


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (aiohttp.ServerTimeoutError(), Cause.TIMED_OUT),
        (aiohttp.ConnectionTimeoutError(), Cause.TIMED_OUT),
        (TimeoutError(), Cause.TIMED_OUT),
        (aiohttp.ServerDisconnectedError(), Cause.LOST),
        (aiohttp.ClientPayloadError(), Cause.LOST),
        (ConnectionResetError(), Cause.LOST),
        (UnicodeError(), Cause.LOST),
        (RuntimeError("Session is closed"), Cause.LOST),
        (asyncio.IncompleteReadError(b"", 1), Cause.LOST),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_exception_of_the_library_has_its_cause(error: Exception, cause: Cause) -> None:
    assert TransportError.wrap(error, CAUSES, Phase.READING).cause is cause


def test_an_answer_that_aiohttp_cannot_read_is_malformed() -> None:
    url = URL("http://chat.example")
    request = aiohttp.RequestInfo(url, "POST", CIMultiDictProxy(CIMultiDict()), url)
    error = aiohttp.ClientResponseError(request, (), message="made up")
    assert TransportError.wrap(error, CAUSES, Phase.READING).cause is Cause.MALFORMED
