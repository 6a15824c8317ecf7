"""Several services behind one nginx, with the configuration of the page."""

import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from gprochat.server import Answer, in_thread, serve
from gprochat_core import Draft, Message, RetryPolicy, Service
from gprochat_transports.httpx import SyncClient
from tests.docs.pages import file_of
from tests.peers.nginx import Nginx, nginx, resolve_examples
from tests.peers.scripted import closed_port

CALLS = 8
"""Fewer than the page's limit lets pass at once."""


def says(name: str) -> Answer:
    async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
        yield name

    return answer


def machine(stack: ExitStack, name: str) -> str:
    """Run a service as the page says; return its address."""
    context = serve(
        says(name), secret_key="shared", allowed_hosts=["chat.example"], replay="refuse", grace=0.0
    )
    return urlsplit(stack.enter_context(in_thread(context)).url).netloc


def front(stack: ExitStack, folder: Path, one: str, two: str) -> tuple[Nginx, Service]:
    """Run nginx; return it and the service as clients see it."""
    behind = {"10.0.0.1:8080": one, "10.0.0.2:8080": two}
    running = stack.enter_context(
        nginx(file_of("several-machines", "gprochat.conf"), behind, folder)
    )
    return running, Service(f"https://chat.example:{running.port}", secret_key="shared")


@pytest.mark.parametrize("down", [False, True], ids=["both up", "one down"])
def test_any_machine_answers_and_one_that_is_down_costs_no_call(
    down: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_examples(monkeypatch)
    with ExitStack() as stack:
        one = f"127.0.0.1:{stack.enter_context(closed_port())}" if down else machine(stack, "one")
        running, service = front(stack, tmp_path, one, machine(stack, "two"))
        once = RetryPolicy(max_attempts=1)
        client = stack.enter_context(
            SyncClient(service, ssl_context=running.trust, proxy=None, retry=once)
        )
        answers = {client.complete("Hello") for _ in range(CALLS)}
    assert answers == ({"two"} if down else {"one", "two"})


def test_a_request_sent_again_is_accepted_once_by_each_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_examples(monkeypatch)
    with ExitStack() as stack:
        running, service = front(stack, tmp_path, machine(stack, "one"), machine(stack, "two"))
        request = Draft(service, [Message("user", "Hello")]).sign(int(time.time() * 1000))
        client = stack.enter_context(httpx.Client(verify=running.trust, trust_env=False))
        responses = [
            client.post(request.url, content=request.body, headers=dict(request.headers))
            for _ in range(4)
        ]
    assert [each.status_code for each in responses] == [200, 200, 401, 401]
    assert {each.text for each in responses[:2]} == {"one", "two"}
