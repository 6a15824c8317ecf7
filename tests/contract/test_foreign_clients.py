"""A session or client that the caller passes is used as it is, and stays the caller's."""

import asyncio
import gzip
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
import trio

import gprochat_transports.aiohttp
import gprochat_transports.httpx
from gprochat_core import ConfigurationError, ConnectError, NotTheService, RetryPolicy, Service
from tests.contract.adapters import Adapter, load
from tests.peers.scripted import Script, ScriptedPeer, close, receive, repeat, send
from tests.peers.wire import answer, chunked

TEXT = "Привет 🙂"

GZIPPED = answer(200, gzip.compress(TEXT.encode()), "content-encoding: gzip")

SERVING: Script = [repeat(receive, send(chunked(TEXT)), receive, send(GZIPPED))]


async def with_aiohttp(service: Service, **session_settings: Any) -> None:
    async with aiohttp.ClientSession(**session_settings) as session:
        for _ in range(2):
            async with gprochat_transports.aiohttp.Client(service, session=session) as client:
                assert await client.complete("Hello") == TEXT
                assert await client.complete("Hello") == TEXT
            assert not session.closed


async def with_httpx(service: Service, module: Any) -> None:
    async with module.AsyncClient() as given:
        for _ in range(2):
            async with gprochat_transports.httpx.Client(service, client=given) as client:
                assert await client.complete("Hello") == TEXT
                assert await client.complete("Hello") == TEXT
            assert not given.is_closed


@pytest.mark.parametrize("settings", [{}, {"auto_decompress": False}, {"raise_for_status": True}])
def test_a_session_of_aiohttp(settings: dict[str, Any]) -> None:
    with ScriptedPeer(SERVING) as peer:
        asyncio.run(with_aiohttp(Service(peer.url, secret_key="k"), **settings))
    assert len(peer.connections) == 1


def test_a_connection_of_a_session_that_ends_at_the_next_request_costs_no_call() -> None:
    async def main(service: Service) -> None:
        async with (
            aiohttp.ClientSession() as session,
            gprochat_transports.aiohttp.Client(
                service, session=session, retry=RetryPolicy(max_attempts=1)
            ) as client,
        ):
            assert await client.complete("Hello") == TEXT
            assert await client.complete("Hello") == TEXT

    with ScriptedPeer([receive, send(chunked(TEXT)), receive, close], SERVING) as peer:
        asyncio.run(main(Service(peer.url, secret_key="k")))
    assert len(peer.connections) == 2


def test_a_proxy_that_a_session_cannot_use_is_no_connection() -> None:
    async def main() -> None:
        proxy = "http://us%3Aer:made-up@127.0.0.1:1"
        async with aiohttp.ClientSession(proxy=proxy) as session:
            service = Service("http://127.0.0.1:1", secret_key="k")
            retry = RetryPolicy(max_attempts=1)
            client = gprochat_transports.aiohttp.Client(service, session=session, retry=retry)
            with pytest.raises(ConnectError, match="login"):
                await client.complete("Hello")

    asyncio.run(main())


@pytest.mark.parametrize("module", [httpx, httpx2])
def test_a_client_of_httpx_on_asyncio(module: Any) -> None:
    with ScriptedPeer(SERVING) as peer:
        asyncio.run(with_httpx(Service(peer.url, secret_key="k"), module))
    assert len(peer.connections) == 1


@pytest.mark.parametrize("module", [httpx, httpx2])
def test_a_client_of_httpx_on_trio(module: Any) -> None:
    with ScriptedPeer(SERVING) as peer:
        trio.run(with_httpx, Service(peer.url, secret_key="k"), module)
    assert len(peer.connections) == 1


@pytest.mark.parametrize("module", [httpx, httpx2])
def test_a_client_of_httpx_that_blocks(module: Any) -> None:
    with ScriptedPeer(SERVING) as peer:
        service = Service(peer.url, secret_key="k")
        with module.Client() as given:
            for _ in range(2):
                with gprochat_transports.httpx.SyncClient(service, client=given) as client:
                    assert client.complete("Hello") == TEXT
                    assert client.complete("Hello") == TEXT
                assert not given.is_closed
    assert len(peer.connections) == 1


@pytest.mark.parametrize("module", [httpx, httpx2])
def test_redirects_are_not_followed_by_a_client_that_would(module: Any) -> None:
    with ScriptedPeer() as elsewhere:
        moved = answer(307, b"", f"location: {elsewhere.url}/api/generate")
        with (
            ScriptedPeer([repeat(receive, send(moved))]) as peer,
            module.Client(follow_redirects=True) as given,
        ):
            service = Service(peer.url, secret_key="k")
            client = gprochat_transports.httpx.SyncClient(service, client=given)
            with pytest.raises(NotTheService):
                client.complete("Hello")
        assert elsewhere.connections == []


@pytest.mark.parametrize("setting", [{"proxy": "http://127.0.0.1:1"}, {"ssl_context": object()}])
def test_what_belongs_to_a_client_is_not_set_beside_it(setting: dict[str, Any]) -> None:
    service = Service("https://chat.example", secret_key="k")

    async def pass_a_session() -> None:
        async with aiohttp.ClientSession() as session:
            gprochat_transports.aiohttp.Client(service, session=session, **setting)

    with pytest.raises(ConfigurationError):
        asyncio.run(pass_a_session())
    with httpx.Client() as given, pytest.raises(ConfigurationError):
        gprochat_transports.httpx.SyncClient(service, client=given, **setting)


def test_a_client_of_the_wrong_kind_is_refused() -> None:
    service = Service("https://chat.example", secret_key="k")
    with httpx.Client() as given, pytest.raises(ConfigurationError, match="AsyncClient"):
        gprochat_transports.httpx.Client(service, client=given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "loop"),
    [
        ("gprochat_transports.trio:Client@trio", "Trio"),
        ("gprochat_transports.aiohttp:Client", "Asyncio"),
        ("gprochat_transports.httpx:SyncClient@blocking", "Blocking"),
    ],
)
def test_the_contract_takes_a_transport_by_name(name: str, loop: str) -> None:
    adapter = load(name)
    assert isinstance(adapter, Adapter)
    assert type(adapter.loop).__name__ == loop
    client = adapter.make(Service("https://chat.example", secret_key="k"))
    assert client.stream("Hello").attempts == 0


def test_a_middleware_of_aiohttp_that_raises_for_a_status_hides_the_answer() -> None:
    """The limit that docs/guides/own-session.md tells of."""

    async def raising(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        response.raise_for_status()
        return response

    async def main(service: Service) -> None:
        async with aiohttp.ClientSession(middlewares=[raising]) as session:
            once = RetryPolicy(max_attempts=1)
            async with gprochat_transports.aiohttp.Client(
                service, session=session, retry=once
            ) as client:
                assert await client.complete("Hello") == TEXT
                with pytest.raises(NotTheService):
                    await client.complete("Hello")

    failing = answer(500, b"")
    with ScriptedPeer(
        [receive, send(chunked(TEXT)), receive, send(failing)], [receive, send(failing)]
    ) as peer:
        asyncio.run(main(Service(peer.url, secret_key="k")))
        assert len(peer.connections) == 2
