"""The loggers `gprochat.*`: at DEBUG what was sent and decided, never a text or a secret."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest

import gprochat_transports.aiohttp
from gprochat.server import serve
from gprochat_core import GPROChatError, Message, RetryPolicy, Service, TruncatedReply
from tests.contract.adapters import ADAPTERS, Adapter
from tests.peers.proxies import ProxyServer
from tests.peers.scripted import Script, ScriptedPeer, receive, repeat, send
from tests.peers.wire import answer, chunk, chunked, head

pytestmark = pytest.mark.usefixtures("everything_logged")

each_adapter = pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda each: each.name)

TEXT: Final = "Секретный вопрос"
REPLY: Final = "Секретный ответ"


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


@pytest.fixture
def hidden() -> list[str]:
    """A secret key, a password and a proxy's password."""
    return [f"{name}-{secrets.token_hex()}" for name in ("key", "password", "proxy")]


def call(adapter: Adapter, service: Service, **settings: Any) -> GPROChatError | None:
    """Make a call, and return its error if it fails."""
    errors: list[GPROChatError] = []

    async def main() -> None:
        async with adapter.make(service, **{"proxy": None} | settings) as client:
            try:
                assert await client.complete(TEXT) == REPLY
            except GPROChatError as error:
                errors.append(error)

    adapter.loop.run(main)
    return errors[0] if errors else None


def lines(caplog: pytest.LogCaptureFixture, logger: str) -> list[str]:
    """What a logger said at DEBUG and INFO, one line a record."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == logger and record.levelno <= logging.INFO
    ]


def number_of(line: str) -> int:
    """The number of the call that a line of the log is about."""
    return int(line.removeprefix("call ").partition(":")[0])


def written(caplog: pytest.LogCaptureFixture) -> str:
    """All that all loggers wrote, tracebacks and arguments included."""
    formatter = logging.Formatter("%(name)s %(levelname)s %(message)s")
    return "\n".join(f"{formatter.format(one)} {one.args!r}" for one in caplog.records)


@each_adapter
def test_a_call_tells_what_was_sent_and_what_came(
    adapter: Adapter, caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedPeer([receive, send(chunked(REPLY))]) as peer:
        assert call(adapter, Service(peer.url, secret_key="k")) is None
    size = len(peer.requests[0].body)
    said = lines(caplog, "gprochat.client")
    number = number_of(said[0])
    assert said == [
        f"call {number}: attempt 1: {size} bytes to {peer.url}/api/generate",
        f"call {number}: attempt 1: status 200",
        f"call {number}: reply complete",
    ]


@each_adapter
def test_another_attempt_tells_why_and_when(
    adapter: Adapter, caplog: pytest.LogCaptureFixture
) -> None:
    retry = RetryPolicy(max_attempts=2, base_delay=0.0)
    with ScriptedPeer([repeat(receive, send(answer(503)))]) as peer:
        assert call(adapter, Service(peer.url, secret_key="k"), retry=retry) is not None
    said = lines(caplog, "gprochat.client")
    number = number_of(said[0])
    assert said[2:4] == [
        f"call {number}: attempt 1: ServiceFailed",
        f"call {number}: attempt 2 in 0.00 s, after ServiceFailed with status 503",
    ]
    assert said[4].startswith(f"call {number}: attempt 2: ")
    assert said[-1] == f"call {number}: attempt 2: ServiceFailed"


@each_adapter
def test_a_reply_that_ends_badly_tells_how(
    adapter: Adapter, caplog: pytest.LogCaptureFixture
) -> None:
    cut = head(200, "transfer-encoding: chunked") + chunk("a")
    with ScriptedPeer([receive, send(cut)]) as peer:
        assert isinstance(call(adapter, Service(peer.url, secret_key="k")), TruncatedReply)
    assert lines(caplog, "gprochat.client")[-1].endswith(": reply ended: TruncatedReply")


SCRIPTS: Final[dict[str, Script]] = {
    "a reply": [receive, send(chunked(REPLY))],
    "an error": [receive, send(answer(401, '{"error":{"message":"Invalid password."}}'))],
    "nothing": [receive],
    "a cut": [receive, send(head(200, "transfer-encoding: chunked") + chunk("a"))],
}


@each_adapter
@pytest.mark.parametrize("what", SCRIPTS)
def test_no_logger_tells_a_secret_or_a_text(
    adapter: Adapter, caplog: pytest.LogCaptureFixture, hidden: list[str], what: str
) -> None:
    key, password, _ = hidden
    with ScriptedPeer(SCRIPTS[what]) as peer:
        service = Service(peer.url, secret_key=key, password=password)
        call(adapter, service, retry=RetryPolicy(max_attempts=1))
    assert lines(caplog, "gprochat.client")
    for secret in (*hidden, TEXT, REPLY):
        assert secret not in written(caplog)


@pytest.mark.parametrize(
    ("adapter", "kind"),
    [
        pytest.param(adapter, kind, id=f"{adapter.name}-{kind}")
        for adapter in ADAPTERS
        for kind in ("http", "socks5")
        # httpx logs the password of a client that is made without this project.
        if kind == "http" or not adapter.given
    ],
)
def test_no_logger_tells_a_proxys_password(
    adapter: Adapter, caplog: pytest.LogCaptureFixture, hidden: list[str], kind: str
) -> None:
    once = RetryPolicy(max_attempts=1)
    with (
        ScriptedPeer([repeat(receive, send(chunked(REPLY)))]) as peer,
        ProxyServer("user", hidden[2]) as proxy,
    ):
        service = Service(peer.url, secret_key=hidden[0])
        assert call(adapter, service, proxy=proxy.url(kind), retry=once) is None
        wrong = proxy.url(kind, "user:wrong@")
        assert call(adapter, service, proxy=wrong, retry=once) is not None
    for secret in (*hidden, TEXT, REPLY, "wrong"):
        assert secret not in written(caplog)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"secret_key": "another"},
        {"password": "another"},
        {"url": "{}/elsewhere"},
    ],
    ids=["right", "wrong key", "wrong password", "elsewhere"],
)
def test_the_embedded_service_logs_sizes_and_no_texts(
    caplog: pytest.LogCaptureFixture, hidden: list[str], change: dict[str, str]
) -> None:
    run_with_server(hidden, lambda service: changed(service, change), caplog)


def changed(service: Service, change: dict[str, str]) -> Service:
    return Service(
        change.get("url", "{}").format(service.url),
        secret_key=change.get("secret_key", service.secret_key),
        password=change.get("password", service.password),
    )


def run_with_server(
    hidden: list[str], change: Callable[[Service], Service], caplog: pytest.LogCaptureFixture
) -> None:
    key, password, _ = hidden

    async def main() -> None:
        async with serve(secret_key=key, password=password) as server:
            client = gprochat_transports.aiohttp.Client(change(server.service), proxy=None)
            async with client:
                try:
                    await client.complete(TEXT)
                except GPROChatError:
                    assert change(server.service) != server.service

    asyncio.run(main(), debug=True)
    assert lines(caplog, "gprochat.client")
    for secret in (*hidden, TEXT):
        assert secret not in written(caplog)


def test_an_answer_that_fails_is_logged_without_what_it_says(
    caplog: pytest.LogCaptureFixture, hidden: list[str]
) -> None:
    async def fail(messages: tuple[Message, ...]) -> AsyncIterator[str]:
        yield ""
        raise ValueError(f"{messages[-1].text} {hidden[0]}")

    async def main() -> None:
        async with serve(fail, secret_key=hidden[0]) as server:
            retry = RetryPolicy(max_attempts=1)
            client = gprochat_transports.aiohttp.Client(server.service, proxy=None, retry=retry)
            async with client:
                with pytest.raises(GPROChatError):
                    await client.complete(TEXT)

    asyncio.run(main())
    (warning,) = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert warning.name == "gprochat.server"
    assert "ValueError" in warning.getMessage()
    for secret in (*hidden, TEXT):
        assert secret not in written(caplog)


def test_nothing_is_written_unless_a_program_asks_for_it(capfd: pytest.CaptureFixture[str]) -> None:
    with ScriptedPeer([repeat(receive, send(answer(503)))]) as peer:
        call(ADAPTERS[0], Service(peer.url, secret_key="k"), retry=RetryPolicy(base_delay=0.0))
    assert capfd.readouterr() == ("", "")
