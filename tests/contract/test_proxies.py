"""Through HTTP and SOCKS5 proxies, with and without a password, given or from the environment."""

from collections.abc import Iterator

import pytest

from gprochat_core import ConnectError, ConnectTimeout, RetryPolicy, Timeouts
from tests.contract.conftest import Happens, MakeClient
from tests.peers.proxies import SECRET_HOST, ProxyServer
from tests.peers.scripted import (
    Script,
    ScriptedPeer,
    close,
    closed_port,
    receive,
    receive_some,
    repeat,
    send,
    until_client_closes,
)
from tests.peers.tls import Authority
from tests.peers.wire import chunked

OK: Script = [repeat(receive, send(chunked("fine")))]

KINDS = ["http", "socks5", "socks5h"]


@pytest.fixture(scope="session")
def open_proxy() -> Iterator[ProxyServer]:
    with ProxyServer() as server:
        yield server


@pytest.fixture(scope="session")
def closed_proxy() -> Iterator[ProxyServer]:
    with ProxyServer("user", "s3cr3t:word") as server:
        yield server


@pytest.mark.parametrize("kind", KINDS)
async def test_a_plain_service_through_a_proxy(
    make_client: MakeClient, open_proxy: ProxyServer, kind: str
) -> None:
    with ScriptedPeer(OK) as peer:
        url = f"http://{SECRET_HOST}:{peer.port}"
        async with make_client(url, proxy=open_proxy.url(kind)) as client:
            assert await client.complete("Hello") == "fine"
            assert await client.complete("Hello") == "fine"
    request = peer.requests[0]
    assert request.line == "POST /api/generate HTTP/1.1"
    assert request.field("host") == f"{SECRET_HOST}:{peer.port}"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_service_with_tls_through_a_proxy(
    make_client: MakeClient, open_proxy: ProxyServer, authority: Authority, kind: str
) -> None:
    with ScriptedPeer(OK, ssl_context=authority.server_context(SECRET_HOST)) as peer:
        url = f"https://{SECRET_HOST}:{peer.port}"
        async with make_client(
            url, proxy=open_proxy.url(kind), ssl_context=authority.client_context()
        ) as client:
            assert await client.complete("Hello") == "fine"
            assert await client.complete("Hello") == "fine"


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_a_proxy_with_a_password(
    make_client: MakeClient,
    closed_proxy: ProxyServer,
    authority: Authority,
    kind: str,
    scheme: str,
) -> None:
    context = authority.server_context(SECRET_HOST) if scheme == "https" else None
    with ScriptedPeer(OK, ssl_context=context) as peer:
        url = f"{scheme}://{SECRET_HOST}:{peer.port}"
        proxy = closed_proxy.url(kind)
        async with make_client(url, proxy=proxy, ssl_context=authority.client_context()) as client:
            assert await client.complete("Hello") == "fine"
    names = {name.lower() for name, _ in peer.requests[0].fields}
    assert "proxy-authorization" not in names


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("kind", ["http", "socks5"])
@pytest.mark.parametrize("credentials", ["", "user:wrong@"])
async def test_a_proxy_that_does_not_let_in_is_no_connection(
    make_client: MakeClient,
    closed_proxy: ProxyServer,
    kind: str,
    scheme: str,
    credentials: str,
) -> None:
    with ScriptedPeer(OK) as peer:
        url = f"{scheme}://{SECRET_HOST}:{peer.port}"
        async with make_client(url, proxy=closed_proxy.url(kind, credentials)) as client:
            with pytest.raises(ConnectError) as caught:
                await client.complete("Hello")
    assert "wrong" not in str(caught.value)
    assert peer.requests == []


@pytest.mark.parametrize("kind", ["http", "socks5"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_not_there_is_no_connection(
    make_client: MakeClient, kind: str, scheme: str
) -> None:
    with closed_port() as port:
        url = f"{scheme}://{SECRET_HOST}"
        async with make_client(url, proxy=f"{kind}://user:word@127.0.0.1:{port}") as client:
            with pytest.raises(ConnectError) as caught:
                await client.complete("Hello")
    assert "word" not in str(caught.value)


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_a_proxy_that_says_nothing_is_no_connection_in_time(
    make_client: MakeClient, happens: Happens, kind: str
) -> None:
    with ScriptedPeer([until_client_closes]) as proxy:
        timeouts = Timeouts(connect=0.2, first_byte=5.0)
        url = f"{kind}://127.0.0.1:{proxy.port}"
        async with make_client("https://x.invalid", proxy=url, timeouts=timeouts) as client:
            with pytest.raises(ConnectTimeout):
                await client.complete("Hello")
            assert await happens(proxy.connections[0].client_closed)


@pytest.mark.parametrize("kind", ["http", "socks5"])
@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", b"\x05\xff"]
)
async def test_a_proxy_that_does_not_connect_is_no_connection(
    make_client: MakeClient, kind: str, answer: bytes
) -> None:
    with ScriptedPeer([receive_some, send(answer), close]) as proxy:
        url = f"https://{SECRET_HOST}"
        async with make_client(url, proxy=f"{kind}://127.0.0.1:{proxy.port}") as client:
            with pytest.raises(ConnectError):
                await client.complete("Hello")


async def test_the_environment_names_a_proxy(
    make_client: MakeClient, open_proxy: ProxyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", open_proxy.url("http"))
    with ScriptedPeer(OK) as peer:
        async with make_client(f"http://{SECRET_HOST}:{peer.port}") as client:
            assert await client.complete("Hello") == "fine"


async def test_the_environment_names_one_proxy_for_all(
    make_client: MakeClient, open_proxy: ProxyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", open_proxy.url("socks5"))
    with ScriptedPeer(OK) as peer:
        async with make_client(f"http://{SECRET_HOST}:{peer.port}") as client:
            assert await client.complete("Hello") == "fine"


async def test_the_environment_names_whom_to_reach_without_a_proxy(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closed_port() as nobody, ScriptedPeer(OK) as peer:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{nobody}")
        monkeypatch.setenv("NO_PROXY", "example.com,127.0.0.1")
        async with make_client(peer.url) as client:
            assert await client.complete("Hello") == "fine"


async def test_no_proxy_at_all_may_be_asked_for(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closed_port() as nobody, ScriptedPeer(OK) as peer:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{nobody}")
        monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{nobody}")
        async with make_client(peer.url, proxy=None) as client:
            assert await client.complete("Hello") == "fine"


async def test_a_proxy_given_comes_before_the_environments(
    make_client: MakeClient, open_proxy: ProxyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closed_port() as nobody, ScriptedPeer(OK) as peer:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{nobody}")
        url = f"http://{SECRET_HOST}:{peer.port}"
        async with make_client(url, proxy=open_proxy.url("http")) as client:
            assert await client.complete("Hello") == "fine"


async def test_a_proxy_that_refuses_is_tried_again(
    make_client: MakeClient, closed_proxy: ProxyServer
) -> None:
    async with make_client(
        f"https://{SECRET_HOST}",
        proxy=closed_proxy.url("http", ""),
        retry=RetryPolicy(base_delay=0),
    ) as client:
        reply = client.stream("Hello")
        with pytest.raises(ConnectError):
            await reply.__aenter__()
    assert reply.attempts == 3
