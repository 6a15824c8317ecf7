"""What goes over the wire is the protocol's request, and nothing more."""

import json
from time import time_ns

import pytest

from gprochat_core import Acceptance, Encoding, Service
from tests.contract.conftest import MakeClient
from tests.peers.scripted import ScriptedPeer, receive, repeat, send
from tests.peers.wire import chunked

OK = chunked("fine")

CONVERSATION = [
    {"role": "system", "content": "Отвечай кратко."},
    {"role": "user", "content": "Привет! 🙂"},
    {"role": "assistant", "content": "你好"},
    {
        "role": "user",
        "content": [{"type": "text", "text": "Как "}, {"type": "text", "text": "ты?"}],
    },
]

WIRE_MESSAGES = {
    "native": [
        {"role": "user", "parts": [{"text": "Отвечай кратко.\n\nПривет! 🙂"}]},
        {"role": "model", "parts": [{"text": "你好"}]},
        {"role": "user", "parts": [{"text": "Как ты?"}]},
    ],
    "flattened": [
        {
            "role": "user",
            "parts": [
                {
                    "text": "System: Отвечай кратко.\nUser: Привет! 🙂\nAssistant: 你好\n"
                    "User: Как ты?\nAssistant:"
                }
            ],
        }
    ],
    "content": [
        {"role": "system", "content": "Отвечай кратко."},
        {"role": "user", "content": "Привет! 🙂"},
        {"role": "assistant", "content": "你好"},
        {"role": "user", "content": "Как ты?"},
    ],
}


async def ask(make_client: MakeClient, service: Service, conversation: object) -> None:
    async with make_client(service=service) as client:
        assert await client.complete(conversation) == "fine"  # type: ignore[arg-type]


@pytest.mark.not_on("given-httpx@asyncio", "the client that was passed adds its own headers")
async def test_the_headers_are_the_protocols_in_its_order(make_client: MakeClient) -> None:
    with ScriptedPeer([repeat(receive, send(OK))]) as peer:
        await ask(make_client, Service(peer.url, secret_key="k"), "Hello")
    (request,) = peer.requests
    assert request.line == "POST /api/generate HTTP/1.1"
    transports = {"host": f"127.0.0.1:{peer.port}", "content-length": str(len(request.body))}
    fields = [(name.lower(), value) for name, value in request.fields]
    assert [field for field in fields if field[0] not in transports] == [
        ("accept", "*/*"),
        ("origin", peer.url),
        ("referer", f"{peer.url}/"),
        (
            "user-agent",
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
                "Chrome/129.0.0.0 Safari/537.36"
            ),
        ),
        ("content-type", "text/plain;charset=UTF-8"),
        ("accept-encoding", "identity"),
    ]
    assert {name: value for name, value in fields if name in transports} == transports


async def test_the_body_is_the_protocols_json_and_its_signature_holds(
    make_client: MakeClient,
) -> None:
    before = time_ns() // 1_000_000
    with ScriptedPeer([repeat(receive, send(OK))]) as peer:
        service = Service(peer.url, secret_key="ключ:k", password="пароль")
        await ask(make_client, service, "Как дела? 🙂")
    after = time_ns() // 1_000_000
    (request,) = peer.requests
    assert "Как дела? 🙂".encode() in request.body
    body = json.loads(request.body)
    assert list(body) == ["messages", "time", "pass", "sign"]
    assert body["messages"] == [{"role": "user", "parts": [{"text": "Как дела? 🙂"}]}]
    assert before <= body["time"] <= after
    assert body["pass"] == "пароль"
    assert Acceptance(service).accept(request.body, after).messages[-1].text == "Как дела? 🙂"


@pytest.mark.parametrize("encoding", ["native", "flattened", "content"])
async def test_a_conversation_is_written_in_the_services_dialect(
    make_client: MakeClient, encoding: Encoding
) -> None:
    with ScriptedPeer([repeat(receive, send(OK))]) as peer:
        service = Service(peer.url, secret_key="k", encoding=encoding)
        await ask(make_client, service, CONVERSATION)
    body = json.loads(peer.requests[0].body)
    assert body["messages"] == WIRE_MESSAGES[encoding]
    assert Acceptance(service).accept(peer.requests[0].body, body["time"])


async def test_a_path_prefix_is_sent_as_it_is_written(make_client: MakeClient) -> None:
    with ScriptedPeer([repeat(receive, send(OK))]) as peer:
        service = Service(f"{peer.url}/chat/%C3%A9%c3%a9%7E%41%2F/;a='(b)'/", secret_key="k")
        await ask(make_client, service, "Hello")
    path = "/chat/%C3%A9%c3%a9%7E%41%2F/;a='(b)'/api/generate"
    assert peer.requests[0].line == f"POST {path} HTTP/1.1"


async def test_a_long_conversation_arrives_whole(make_client: MakeClient) -> None:
    text = "Длинное сообщение. " * 50_000
    with ScriptedPeer([repeat(receive, send(OK))]) as peer:
        service = Service(peer.url, secret_key="k")
        await ask(make_client, service, text)
    body = json.loads(peer.requests[0].body)
    assert Acceptance(service).accept(peer.requests[0].body, body["time"]).messages[0].text == text


@pytest.mark.not_on("given-httpx@asyncio", "the client that was passed has a cookie jar")
async def test_cookies_are_not_kept(make_client: MakeClient) -> None:
    cookie = chunked("fine", fields=("set-cookie: a=b; path=/",))
    with ScriptedPeer([repeat(receive, send(cookie))]) as peer:
        async with make_client(peer.url) as client:
            await client.complete("Hello")
            await client.complete("Hello")
    assert [request.field("cookie") for request in peer.requests] == [None, None]
