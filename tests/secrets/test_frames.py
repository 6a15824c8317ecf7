"""Tracebacks with local variables, as reporters of errors send them, show no secret of ours.

The frames looked at are those of this project's files. Frames of other libraries and of the caller
hold what these hold.
"""

import asyncio
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, cast

import pytest

import gprochat
import gprochat_core
import gprochat_transports.httpx
import gprochat_transports.trio
from gprochat_core import GPROChatError, Service, Signer, generate_signature
from gprochat_transports.environment import service_from_environment
from tests.contract.adapters import ADAPTERS, Adapter
from tests.peers.scripted import Script, ScriptedPeer, close, closed_port, receive
from tests.peers.scripted import until_client_closes as wait
from tests.peers.tls import Authority
from tests.peers.wire import answer, chunk, head
from tests.transports.fake import FakeTransport

from .test_errors import ECHOES, PROXY_ANSWERS, QUICK, Secrets, error_body, fail

each_adapter = pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda each: each.name)

OURS: Final = (gprochat, gprochat_core, gprochat_transports)
SOURCES: Final = [Path(*package.__path__) for package in OURS]


def chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and all that led to it."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        left += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
        yield one


def locals_of(error: BaseException) -> Iterator[tuple[str, str]]:
    """Where a local variable of ours is in an error's tracebacks, and how it is shown."""
    for one in chain(error):
        for frame, line in traceback.walk_tb(one.__traceback__):
            file = Path(frame.f_code.co_filename)
            if any(file.is_relative_to(folder) for folder in SOURCES):
                for name, value in frame.f_locals.items():
                    yield f"{file}:{line} {frame.f_code.co_name}: {name}", repr(value)


def see_that_no_frame_tells(error: BaseException, hidden: Secrets) -> None:
    seen = list(locals_of(error))
    assert seen, "no frame of this project"
    secrets = (hidden.key, hidden.password, hidden.proxy_password)
    told = [f"{at} = {value}" for at, value in seen if set(hidden.found_in(value)) & {*secrets}]
    assert told == []


@each_adapter
@pytest.mark.parametrize("where", ECHOES)
def test_a_service_that_sends_secrets_back(adapter: Adapter, where: str) -> None:
    hidden = Secrets()
    with ScriptedPeer([receive, ECHOES[where], close]) as peer:
        error = fail(adapter, hidden, peer.url)
    see_that_no_frame_tells(error, hidden)


SCRIPTS: Final[dict[str, Script]] = {
    "a wrong key": [receive, lambda c: c.send(answer(401, error_body("Invalid signature.")))],
    "a redirect": [receive, lambda c: c.send(answer(307, "", "location: https://other.example/"))],
    "a connection closed at once": [],
    "a connection closed after the request": [receive],
    "silence": [receive, wait],
    "what is not HTTP": [receive, lambda c: c.send(b"garbage\r\n\r\n")],
    "a body cut off": [receive, lambda c: c.send(head(200, "content-length: 9") + b"a")],
    "a chunk that is none": [
        receive,
        lambda c: c.send(head(200, "transfer-encoding: chunked") + chunk("a") + b"?\r\n"),
    ],
    "a reply that stands still": [
        receive,
        lambda c: c.send(head(200, "transfer-encoding: chunked") + chunk("a")),
        wait,
    ],
    "a body that cannot be inflated": [
        receive,
        lambda c: c.send(answer(200, b"not gzip", "content-encoding: gzip")),
    ],
    "a failed reply": [receive, lambda c: c.send(answer(200, "aInternal server error"))],
}


@each_adapter
@pytest.mark.parametrize("what", SCRIPTS)
def test_a_call_that_fails(adapter: Adapter, what: str) -> None:
    hidden = Secrets()
    with ScriptedPeer(SCRIPTS[what]) as peer:
        error = fail(adapter, hidden, peer.url)
    see_that_no_frame_tells(error, hidden)


@each_adapter
def test_a_refused_connection(adapter: Adapter) -> None:
    hidden = Secrets()
    with closed_port() as port:
        error = fail(adapter, hidden, f"http://127.0.0.1:{port}")
    see_that_no_frame_tells(error, hidden)


@each_adapter
def test_a_certificate_that_nobody_trusts(adapter: Adapter) -> None:
    hidden = Secrets()
    with ScriptedPeer([receive], ssl_context=Authority().server_context()) as peer:
        error = fail(adapter, hidden, peer.url)
    see_that_no_frame_tells(error, hidden)


@each_adapter
@pytest.mark.parametrize("service", ["http", "https"])
@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_proxy_that_is_not_there(adapter: Adapter, scheme: str, service: str) -> None:
    hidden = Secrets()
    with closed_port() as port:
        url = f"{service}://service.invalid"
        error = fail(adapter, hidden, url, password=False, proxy=hidden.proxy(scheme, port))
    see_that_no_frame_tells(error, hidden)


@each_adapter
@pytest.mark.parametrize("service", ["http", "https"])
@pytest.mark.parametrize("what", PROXY_ANSWERS)
def test_a_proxy_that_fails(adapter: Adapter, what: str, service: str) -> None:
    hidden = Secrets()
    with ScriptedPeer([lambda c: c._read(), *PROXY_ANSWERS[what], close]) as proxy:
        url = f"{service}://service.invalid"
        error = fail(adapter, hidden, url, password=False, proxy=hidden.proxy("http", proxy.port))
    see_that_no_frame_tells(error, hidden)


@each_adapter
def test_a_socks_proxy_that_fails(adapter: Adapter) -> None:
    hidden = Secrets()
    with ScriptedPeer([lambda c: c._read(), close]) as proxy:
        url = "https://service.invalid"
        error = fail(adapter, hidden, url, proxy=hidden.proxy("socks5", proxy.port))
    see_that_no_frame_tells(error, hidden)


def refusal(make: Callable[[], object]) -> GPROChatError:
    with pytest.raises(GPROChatError) as caught:
        make()
    return caught.value


@each_adapter
def test_a_conversation_that_cannot_be_sent(adapter: Adapter) -> None:
    hidden = Secrets()

    async def main() -> None:
        service = hidden.service("https://chat.example")
        async with adapter.make(service, proxy=None) as client:
            see_that_no_frame_tells(refusal(lambda: client.stream([])), hidden)

    adapter.loop.run(main)


@each_adapter
@pytest.mark.parametrize("proxy", ["https://{}", "http://{}:port", "http://{}/path", "http://{} "])
def test_a_proxys_url_that_cannot_be_used(adapter: Adapter, proxy: str) -> None:
    hidden = Secrets()
    url = proxy.format(f"user:{hidden.key}@127.0.0.1")
    service = hidden.service("https://chat.example")

    async def main() -> None:
        error = refusal(lambda: adapter.make(service, proxy=url))
        see_that_no_frame_tells(error, hidden)

    adapter.loop.run(main)


def test_a_proxy_of_the_environment_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = Secrets()
    monkeypatch.setenv("HTTPS_PROXY", f"https://user:{hidden.key}@proxy.example")
    service = hidden.service("https://chat.example")
    for make in (gprochat_transports.trio.Client, gprochat_transports.httpx.SyncClient):
        see_that_no_frame_tells(refusal(partial(make, service)), hidden)


@each_adapter
def test_a_client_without_a_key(adapter: Adapter) -> None:
    hidden = Secrets()
    service = Service("https://chat.example", password=hidden.password)

    async def main() -> None:
        proxy = f"http://user:{hidden.key}@proxy.example:1"
        error = refusal(lambda: adapter.make(service, proxy=proxy))
        see_that_no_frame_tells(error, hidden)

    adapter.loop.run(main)


@each_adapter
def test_an_option_of_a_wrong_type(adapter: Adapter) -> None:
    hidden = Secrets()
    service = Service("https://chat.example", secret_key="made up")

    async def main() -> None:
        proxy = f"http://user:{hidden.proxy_password}@proxy.example:1"
        error = refusal(lambda: adapter.make(service, proxy=proxy, timeouts=3))
        see_that_no_frame_tells(error, hidden)

    adapter.loop.run(main)


def test_an_argument_of_a_wrong_type_beside_the_secrets_of_a_transport() -> None:
    hidden = Secrets()
    make: Callable[..., object] = partial(gprochat_transports.Client, retry=cast("None", 3))
    service = hidden.service("https://chat.example")
    transport = FakeTransport([])
    error = refusal(lambda: make(service, transport, secrets=[hidden.proxy_password]))
    see_that_no_frame_tells(error, hidden)


def test_a_secret_that_has_no_utf_8() -> None:
    hidden = Secrets()
    for make in (
        lambda: Signer(hidden.key + "\ud800"),
        lambda: generate_signature(0, "", hidden.key + "\ud800"),
        lambda: generate_signature(0, "\ud800", hidden.key),
        lambda: Service("https://chat.example", password=hidden.password + "\ud800"),
    ):
        see_that_no_frame_tells(refusal(make), hidden)


def test_an_environment_that_cannot_be_used() -> None:
    hidden = Secrets()
    secrets = {"GPROCHAT_SECRET_KEY": hidden.key, "GPROCHAT_PASSWORD": hidden.password}
    for environ in (secrets, {**secrets, "GPROCHAT_URL": "chat.example"}):
        error = refusal(partial(service_from_environment, environ))
        see_that_no_frame_tells(error, hidden)


def test_the_provider() -> None:
    hidden = Secrets()

    async def main() -> None:
        with closed_port() as port, pytest.raises(GPROChatError) as caught:
            async for _ in gprochat.GPROChat.create_async_generator(
                "",
                hidden.text,
                hidden.proxy("http", port),
                url="https://service.invalid",
                secret_key=hidden.key,
                password=hidden.password,
                timeouts=QUICK["timeouts"],
            ):
                pass
        see_that_no_frame_tells(caught.value, hidden)

    asyncio.run(main())
