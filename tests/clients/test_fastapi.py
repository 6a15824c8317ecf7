"""FastAPI: the recipe's application, over a deployment that fails and callers who leave."""

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Final

import httpx
import pytest
import uvicorn

import gprochat
from gprochat.server import in_thread, serve
from gprochat_core.reply import FAILURE_MARKER
from tests.docs.pages import module_of
from tests.peers.scripted import (
    Script,
    ScriptedPeer,
    close,
    closed_port,
    receive,
    repeat,
    send,
    until_client_closes,
    wait_for,
)
from tests.peers.wire import LAST_CHUNK, answer, chunk, chunked, head

CHUNKED: Final = head(200, "content-type: text/plain", "transfer-encoding: chunked")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application's client has a key, and does not pause between attempts."""
    client = partial(gprochat.Client, retry=gprochat.RetryPolicy(base_delay=0.0))
    monkeypatch.setattr(gprochat, "Client", client)
    monkeypatch.setenv("GPROCHAT_SECRET_KEY", "made up")
    monkeypatch.delenv("GPROCHAT_PASSWORD", raising=False)


@contextmanager
def application(url: str) -> Generator[httpx.Client, None, None]:
    """Run the recipe's application over the deployment at a URL; give a client of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPROCHAT_URL", url)
        app = module_of("fastapi", "app.py").app
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            base = f"http://127.0.0.1:{listener.getsockname()[1]}"
            try:
                with httpx.Client(base_url=base, trust_env=False) as client:
                    yield client
            finally:
                server.should_exit = True
                thread.join()


def ask(client: httpx.Client, prompt: str = "Hello") -> httpx.Response:
    return client.post("/ask", json={"prompt": prompt})


def test_a_reply() -> None:
    with (
        in_thread(serve(secret_key="made up", grace=0.0)) as server,
        application(server.url) as client,
    ):
        response = ask(client, "Привет, 🙂")
    assert (response.status_code, response.text) == (200, "Привет, 🙂")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


def test_each_piece_is_passed_on_at_once() -> None:
    read = threading.Event()
    script: Script = [receive, send(CHUNKED + chunk("one")), wait_for(read)]
    with (
        ScriptedPeer([*script, send(chunk("two") + LAST_CHUNK)]) as peer,
        application(peer.url) as client,
        client.stream("POST", "/ask", json={"prompt": "Hello"}) as response,
    ):
        pieces = response.iter_text()
        assert next(pieces) == "one"
        read.set()
        assert list(pieces) == ["two"]


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        pytest.param(
            [send(answer(401, '{"error":{"message":"Invalid signature."}}'))], 502, id="401"
        ),
        pytest.param([send(answer(404, "<html>", "content-type: text/html"))], 502, id="404"),
        pytest.param([send(answer(503))], 502, id="503"),
        pytest.param([send(answer(429, "", "retry-after: 300"))], 429, id="429"),
        pytest.param([send(chunked(FAILURE_MARKER))], 502, id="the marker alone"),
        pytest.param([send(CHUNKED), close], 502, id="broken off before the first word"),
    ],
)
def test_an_error_before_the_first_word_is_a_status(fault: Script, status: int) -> None:
    with (
        ScriptedPeer([repeat(receive, *fault)]) as peer,
        application(peer.url) as client,
    ):
        response = ask(client)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert response.json()["error"].startswith(("The chat service", "Too many"))
    assert response.headers.get("retry-after") == ("300" if status == 429 else None)


def test_silence_is_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    hasty = partial(gprochat.Client, timeouts=gprochat.Timeouts(first_byte=0.05))
    monkeypatch.setattr(gprochat, "Client", hasty)
    with ScriptedPeer([until_client_closes]) as peer, application(peer.url) as caller:
        assert ask(caller).status_code == 504


def test_a_prompt_that_cannot_be_sent_is_the_caller_s_mistake() -> None:
    headers = {"content-type": "application/json"}
    with closed_port() as port, application(f"http://127.0.0.1:{port}") as client:
        response = client.post("/ask", content=rb'{"prompt": "\ud800"}', headers=headers)
    assert response.status_code == 400
    assert "lone surrogate" in response.json()["error"]


def test_a_deployment_that_is_down_is_a_status() -> None:
    with closed_port() as port, application(f"http://127.0.0.1:{port}") as client:
        assert ask(client).status_code == 502


def test_an_error_after_the_first_word_breaks_the_response_off() -> None:
    with (
        ScriptedPeer([receive, send(chunked("one", FAILURE_MARKER))]) as peer,
        application(peer.url) as client,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        ask(client)


def test_a_browser_that_leaves_ends_the_reply_of_the_deployment() -> None:
    with (
        ScriptedPeer([receive, send(CHUNKED + chunk("one")), until_client_closes]) as peer,
        application(peer.url) as client,
    ):
        with client.stream("POST", "/ask", json={"prompt": "Hello"}) as response:
            assert next(response.iter_text()) == "one"
        assert peer.connection(0).client_closed.wait(10)
