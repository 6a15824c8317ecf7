"""Through HTTP and SOCKS5 proxies, with and without a password, given or from the environment."""

from base64 import b64encode
from collections.abc import Iterator
from ssl import SSLContext

import pytest

from gprochat_core import ConnectError, ConnectTimeout, GPROChatError, RetryPolicy, Timeouts
from tests.contract.conftest import Happens, MakeClient
from tests.peers.proxies import SECRET_HOST, ProxyServer
from tests.peers.scripted import (
    Connection,
    Script,
    ScriptedPeer,
    Step,
    close,
    closed_port,
    receive,
    receive_some,
    repeat,
    send,
    until_client_closes,
)
from tests.peers.tls import Authority
from tests.peers.wire import answer, chunked

OK: Script = [repeat(receive, send(chunked("fine")))]

CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"

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


CREDENTIALS = [
    ("us%C3%A9r:p%C3%A4ss%20word", "usér", "päss word"),
    ("usér:päss", "usér", "päss"),
    ("user", "user", ""),
    ("user:", "user", ""),
    (":password", "", "password"),
    ("us%3Aer:word", "us:er", "word"),
    ("us%3Aer", "us:er", ""),
]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(("written", "user", "password"), CREDENTIALS)
async def test_an_http_proxy_gets_the_user_and_the_password(
    make_client: MakeClient, written: str, user: str, password: str, scheme: str
) -> None:
    with ScriptedPeer([receive, send(answer(502)), close]) as proxy:
        url = f"http://{written}@127.0.0.1:{proxy.port}"
        async with make_client(f"{scheme}://x.invalid", proxy=url) as client:
            with pytest.raises(GPROChatError):
                await client.complete("Hello")
    expected = b64encode(f"{user}:{password}".encode()).decode()
    assert proxy.requests[0].field("proxy-authorization") == f"Basic {expected}"


async def test_a_socks_proxy_gets_the_user_and_the_password(make_client: MakeClient) -> None:
    received: list[bytes] = []

    def let_in(connection: Connection) -> None:
        connection.receive_some()
        connection.send(b"\x05\x02")
        connection._buffer = b""
        connection.receive_some()
        received.append(connection._buffer)

    with ScriptedPeer([let_in, send(b"\x01\x01"), close]) as proxy:
        url = f"socks5://us%3Aer:w%40rd@127.0.0.1:{proxy.port}"
        async with make_client("http://x.invalid", proxy=url) as client:
            with pytest.raises(ConnectError):
                await client.complete("Hello")
    assert received == [b"\x01\x05us:er\x04w@rd"]


def start_tls(context: SSLContext) -> Step:
    def step(connection: Connection) -> None:
        connection._socket = context.wrap_socket(connection._socket, server_side=True)

    return step


@pytest.mark.parametrize("credentials", ["", "user:word@"])
async def test_what_asks_a_proxy_for_a_tunnel_holds_no_header_of_the_request(
    make_client: MakeClient, authority: Authority, credentials: str
) -> None:
    tunnel = [receive, send(CONNECTED), start_tls(authority.server_context("x.invalid"))]
    with ScriptedPeer([*tunnel, *OK]) as proxy:
        async with make_client(
            "https://x.invalid/secret-path",
            proxy=f"http://{credentials}127.0.0.1:{proxy.port}",
            ssl_context=authority.client_context(),
        ) as client:
            assert await client.complete("Hello") == "fine"
    connect, request = proxy.requests
    # Host, credentials, and what each library says by itself to any server.
    allowed = {"host", "proxy-authorization", "accept", "accept-encoding", "connection"}
    assert {name.lower() for name, _ in connect.fields} <= {*allowed, "user-agent"}
    telling = {request.field(name) for name in ("origin", "referer", "user-agent")}
    assert len(telling) == 3
    assert telling.isdisjoint(value for _, value in connect.fields)


HTTPCORE = "httpcore leaves the brackets out, for clients that are passed"


@pytest.mark.not_on("given-httpx@asyncio", HTTPCORE)
@pytest.mark.not_on("httpx2@asyncio", HTTPCORE)
async def test_a_plain_service_at_an_ipv6_address_through_a_proxy(make_client: MakeClient) -> None:
    with ScriptedPeer(OK) as proxy:
        async with make_client("http://[::1]:8080", proxy=proxy.url) as client:
            assert await client.complete("Hello") == "fine"
    assert proxy.requests[0].line == "POST http://[::1]:8080/api/generate HTTP/1.1"
    assert proxy.requests[0].field("host") == "[::1]:8080"


@pytest.mark.not_on("given-httpx@asyncio", HTTPCORE)
@pytest.mark.not_on("httpx2@asyncio", HTTPCORE)
async def test_a_service_with_tls_at_an_ipv6_address_through_a_proxy(
    make_client: MakeClient, authority: Authority
) -> None:
    tunnel = [receive, send(CONNECTED), start_tls(authority.server_context("::1"))]
    with ScriptedPeer([*tunnel, *OK]) as proxy:
        async with make_client(
            "https://[::1]:8443", proxy=proxy.url, ssl_context=authority.client_context()
        ) as client:
            assert await client.complete("Hello") == "fine"
    assert proxy.requests[0].line == "CONNECT [::1]:8443 HTTP/1.1"
    assert proxy.requests[0].field("host") == "[::1]:8443"
    assert proxy.requests[1].line == "POST /api/generate HTTP/1.1"


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
