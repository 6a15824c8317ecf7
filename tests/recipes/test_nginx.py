"""nginx before a service and a gateway, with the configuration of the page."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import urlsplit

import httpx
import pytest

from gprochat.gateway import Deployment, gateway
from gprochat.server import in_thread, serve
from gprochat_core import (
    AuthenticationError,
    Message,
    RateLimited,
    RetryPolicy,
    Service,
    TruncatedReply,
)
from gprochat_transports.httpx import SyncClient
from tests.docs.pages import file_of
from tests.peers.nginx import Nginx, nginx, resolve_examples
from tests.peers.scripted import Script, ScriptedPeer, close, receive, send, wait_for
from tests.peers.wire import LAST_CHUNK, chunk, head

CHUNKED: Final = head(200, "content-type: text/plain", "transfer-encoding: chunked")

Front: TypeAlias = Callable[[Service], AbstractContextManager[SyncClient]]


@contextmanager
def playing(folder: Path, service: str, gateway: str = "127.0.0.1:9") -> Generator[Nginx]:
    behind = {"127.0.0.1:8080": service, "127.0.0.1:8081": gateway}
    with nginx(file_of("nginx", "gprochat.conf"), behind, folder) as running:
        yield running


@pytest.fixture
def through_nginx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Front:
    """Makes a client that reaches a service through nginx, as https://chat.example."""
    resolve_examples(monkeypatch)

    @contextmanager
    def client(service: Service) -> Generator[SyncClient, None, None]:
        with playing(tmp_path, urlsplit(service.url).netloc) as front:
            public = Service(f"https://chat.example:{front.port}", secret_key=service.secret_key)
            retry = RetryPolicy(max_attempts=1)
            with SyncClient(public, ssl_context=front.trust, proxy=None, retry=retry) as client:
                yield client

    return client


def test_each_piece_is_passed_on_at_once(through_nginx: Front) -> None:
    read = threading.Event()
    script: Script = [receive, send(CHUNKED + chunk("one")), wait_for(read)]
    with (
        ScriptedPeer([*script, send(chunk("two") + LAST_CHUNK)]) as peer,
        through_nginx(Service(peer.url, secret_key="made up")) as client,
        client.stream("Hello") as reply,
    ):
        assert next(reply) == "one"
        read.set()
        assert list(reply) == ["two"]


def test_a_reply_that_breaks_off_is_truncated_behind_nginx_too(through_nginx: Front) -> None:
    with (
        ScriptedPeer([receive, send(CHUNKED + chunk("one")), close]) as peer,
        through_nginx(Service(peer.url, secret_key="made up")) as client,
        pytest.raises(TruncatedReply) as caught,
    ):
        client.complete("Hello")
    assert caught.value.text == "one"


def test_a_caller_who_leaves_ends_the_reply_of_the_service(through_nginx: Front) -> None:
    ended = threading.Event()

    async def endless(messages: tuple[Message, ...]) -> AsyncIterator[str]:
        yield "one"
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with (
        in_thread(serve(endless, allowed_hosts=["chat.example"], grace=0.0)) as server,
        through_nginx(server.service) as client,
    ):
        with client.stream("Hello") as reply:
            assert next(reply) == "one"
        assert ended.wait(10)


def outcome(client: SyncClient) -> str:
    try:
        return client.complete("Hello")
    except RateLimited as error:
        return type(error).__name__


def test_a_long_conversation_passes_and_too_many_questions_at_once_do_not(
    through_nginx: Front,
) -> None:
    conversation = [
        Message("user", "x" * 1_800_000),
        Message("assistant", "?"),
        Message("user", "Hello"),
    ]
    with (
        in_thread(serve(allowed_hosts=["chat.example"], grace=0.0)) as server,
        through_nginx(server.service) as client,
    ):
        assert client.complete(conversation) == "Hello"
        outcomes = [outcome(client) for _ in range(20)]
    assert outcomes[0] == "Hello"
    assert "RateLimited" in outcomes


def test_a_service_that_was_not_told_its_public_name_refuses(through_nginx: Front) -> None:
    with (
        in_thread(serve(grace=0.0)) as server,
        through_nginx(server.service) as client,
        pytest.raises(AuthenticationError, match="does not answer to this Host"),
    ):
        client.complete("Hello")


def test_the_gateway_streams_through_nginx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_examples(monkeypatch)
    with in_thread(serve(grace=0.0)) as server:
        models = {"gprochat": [Deployment("main", server.service)]}
        with (
            in_thread(gateway(models, allowed_hosts=["ai.example"], grace=0.0)) as running,
            playing(tmp_path, "127.0.0.1:9", urlsplit(running.url).netloc) as front,
            httpx.Client(verify=front.trust, trust_env=False) as client,
        ):
            response = client.post(
                f"https://ai.example:{front.port}/v1/chat/completions",
                headers={"authorization": f"Bearer {running.key}"},
                json={"model": "gprochat", "messages": [{"role": "user", "content": "Hello"}]},
            )
    assert response.status_code == 200
    assert json.loads(response.text)["choices"][0]["message"]["content"] == "Hello"
