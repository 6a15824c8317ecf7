"""The provider class, as an application uses it."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from contextlib import aclosing

import aiohttp
import pytest

from gprochat.provider import GPROChat
from gprochat.server import Server, serve
from gprochat_core import (
    ConfigurationError,
    InvalidMessages,
    Message,
    PasswordRejected,
    ReplyTimeout,
    SignatureRejected,
    Timeouts,
    generate_signature,
)
from tests.peers.scripted import Script, ScriptedPeer, receive, send, until_client_closes
from tests.peers.wire import chunk, chunked, head

pytestmark = pytest.mark.anyio

HI = [{"role": "user", "content": "Hi"}]
ENDLESS: Script = [
    receive,
    send(head(200, "transfer-encoding: chunked") + chunk("first")),
    until_client_closes,
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.startswith("GPROCHAT_"):
            monkeypatch.delenv(name)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("GPROCHAT_SECRET_KEY", "secret")
    return monkeypatch


async def ask(server: Server, *, password: str | None = None) -> str:
    texts = GPROChat.create_async_generator(
        "gemini-1.5-pro",
        HI,
        url=server.url,
        secret_key=server.service.secret_key,
        password=password,
    )
    return "".join([text async for text in texts])


def open_sessions() -> list[aiohttp.ClientSession]:
    gc.collect()
    objects = [each for each in gc.get_objects() if type(each) is aiohttp.ClientSession]
    return [session for session in objects if not session.closed]


async def client_closed(peer: ScriptedPeer) -> bool:
    return await asyncio.to_thread(peer.connection(0).client_closed.wait, 5)


class TestItsFace:
    def test_it_describes_the_provider(self) -> None:
        assert GPROChat.label == "GPROChat"
        assert GPROChat.url == "https://gprochat.com"
        assert GPROChat.api_endpoint == "https://gprochat.com/api/generate"
        assert GPROChat.working is True
        assert GPROChat.supports_stream is True
        assert GPROChat.supports_message_history is True
        assert GPROChat.default_model == "gemini-1.5-pro"

    @pytest.mark.parametrize("model", ["gemini-1.5-pro", "gemini-pro", "gpt-4", "", None])
    def test_a_name_becomes_a_known_model(self, model: str | None) -> None:
        assert GPROChat.get_model(model) == "gemini-1.5-pro"


class TestTheSignature:
    def test_the_key_is_the_environments(self, environment: pytest.MonkeyPatch) -> None:
        assert (
            GPROChat.generate_signature(1700000000000, "Hello, world!")
            == "1e132a12572889b4a97703ee6b1fb93d114b97125478e738c983b693a1b4402a"
        )

    def test_without_one_it_is_the_classes(self) -> None:
        class Relative(GPROChat):
            secret_key = "own"

        assert Relative.generate_signature(5, "Hi") == generate_signature(5, "Hi", "own")

    def test_without_either_the_error_names_both(self) -> None:
        with pytest.raises(ConfigurationError, match=r"secret_key=.*GPROCHAT_SECRET_KEY"):
            GPROChat.generate_signature(5, "Hi")


class TestTheReply:
    async def test_it_is_streamed(self) -> None:
        async with serve() as server:
            texts = GPROChat.create_async_generator(
                GPROChat.default_model,
                [{"role": "user", "content": "one two three"}],
                url=server.url,
                secret_key=server.service.secret_key,
            )
            assert [text async for text in texts] == ["one ", "two ", "three"]

    async def test_a_conversation_goes_out_as_one_prompt(self) -> None:
        met: list[tuple[Message, ...]] = []

        async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
            met.append(messages)
            yield "Fine"

        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "How are you?"},
        ]
        async with serve(answer) as server:
            texts = GPROChat.create_async_generator(
                "any", messages, url=server.url, secret_key=server.service.secret_key
            )
            assert [text async for text in texts] == ["Fine"]
        prompt = "System: Be brief.\nUser: Hi\nAssistant: Hello\nUser: How are you?\nAssistant:"
        assert met == [(Message("user", prompt),)]

    async def test_a_conversation_ends_with_the_user(self, environment: pytest.MonkeyPatch) -> None:
        messages = [*HI, {"role": "assistant", "content": "Hello"}]
        with pytest.raises(InvalidMessages):
            await anext(GPROChat.create_async_generator("any", messages))

    async def test_arguments_of_other_providers_are_ignored(self) -> None:
        async with serve(secret_key="key") as server:
            texts = GPROChat.create_async_generator(
                "any", HI, url=server.url, secret_key="key", stream=True, temperature=0.5, stop=None
            )
            assert [text async for text in texts] == ["Hi"]


class TestTheService:
    async def test_without_a_key_the_error_names_where_to_set_it(self) -> None:
        with pytest.raises(ConfigurationError, match=r"secret_key=.*GPROCHAT_SECRET_KEY"):
            await anext(GPROChat.create_async_generator("any", HI))

    async def test_it_is_the_environments(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with serve(secret_key="the key", password="open sesame") as server:
            monkeypatch.setenv("GPROCHAT_URL", server.url)
            monkeypatch.setenv("GPROCHAT_SECRET_KEY", "the key")
            monkeypatch.setenv("GPROCHAT_PASSWORD", "open sesame")
            texts = GPROChat.create_async_generator("any", HI)
            assert [text async for text in texts] == ["Hi"]

    async def test_arguments_come_before_the_environment(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GPROCHAT_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("GPROCHAT_SECRET_KEY", "wrong")
        monkeypatch.setenv("GPROCHAT_PASSWORD", "wrong")
        async with serve(password="open sesame") as server:
            assert await ask(server, password="open sesame") == "Hi"

    async def test_the_environment_comes_before_the_class(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Relative(GPROChat):
            url = "http://127.0.0.1:9"
            secret_key = "wrong"

        async with serve(secret_key="right") as server:
            monkeypatch.setenv("GPROCHAT_URL", server.url)
            monkeypatch.setenv("GPROCHAT_SECRET_KEY", "right")
            texts = Relative.create_async_generator("any", HI)
            assert [text async for text in texts] == ["Hi"]

    async def test_the_environments_secrets_are_for_its_url_alone(
        self, environment: pytest.MonkeyPatch
    ) -> None:
        environment.setenv("GPROCHAT_PASSWORD", "open-sesame")
        with ScriptedPeer([receive, send(chunked("fine"))]) as peer:
            texts = GPROChat.create_async_generator(None, HI, url=peer.url)
            assert [text async for text in texts] == ["fine"]
            environment.setenv("GPROCHAT_URL", "https://other.example")
            texts = GPROChat.create_async_generator(None, HI, url=peer.url)
            with pytest.raises(ConfigurationError, match="GPROCHAT_URL, if it names another"):
                await anext(texts)
        (request,) = peer.requests
        assert b'"pass":"open-sesame"' in request.body

    async def test_the_environments_password_does_not_go_to_the_url_of_the_class(
        self, environment: pytest.MonkeyPatch
    ) -> None:
        environment.setenv("GPROCHAT_PASSWORD", "open-sesame")
        with ScriptedPeer([receive, send(chunked("fine"))]) as peer:
            environment.setattr(GPROChat, "url", peer.url)
            texts = GPROChat.create_async_generator(None, HI)
            assert [text async for text in texts] == ["fine"]
        (request,) = peer.requests
        assert b'"pass":null' in request.body

    async def test_a_relative_names_its_own(self) -> None:
        async with serve(secret_key="own") as server:

            class Relative(GPROChat):
                url = server.url
                secret_key = "own"

            texts = Relative.create_async_generator("any", HI)
            assert [text async for text in texts] == ["Hi"]

    async def test_a_wrong_key_is_an_error(self) -> None:
        async with serve() as server:
            texts = GPROChat.create_async_generator("any", HI, url=server.url, secret_key="wrong")
            with pytest.raises(SignatureRejected):
                await anext(texts)

    async def test_a_missing_password_is_an_error(self) -> None:
        async with serve(password="open sesame") as server:
            with pytest.raises(PasswordRejected):
                await ask(server)


class TestTheWay:
    async def test_a_proxy_is_used(self, environment: pytest.MonkeyPatch) -> None:
        with ScriptedPeer([receive, send(chunked("Hi"))]) as peer:
            texts = GPROChat.create_async_generator(
                "any", HI, proxy=peer.url, url="http://chat.invalid"
            )
            assert [text async for text in texts] == ["Hi"]
        assert peer.requests[0].line == "POST http://chat.invalid/api/generate HTTP/1.1"

    @pytest.mark.parametrize("proxy", [None, ""])
    async def test_without_one_the_environments_is(
        self, environment: pytest.MonkeyPatch, proxy: str | None
    ) -> None:
        with ScriptedPeer([receive, send(chunked("Hi"))]) as peer:
            environment.setenv("HTTP_PROXY", peer.url)
            texts = GPROChat.create_async_generator(
                "any", HI, proxy=proxy, url="http://chat.invalid"
            )
            assert [text async for text in texts] == ["Hi"]
        assert len(peer.requests) == 1

    async def test_time_limits_are_kept(self, environment: pytest.MonkeyPatch) -> None:
        with ScriptedPeer([receive, until_client_closes]) as peer:
            texts = GPROChat.create_async_generator(
                "any", HI, url=peer.url, timeouts=Timeouts(first_byte=0.05)
            )
            with pytest.raises(ReplyTimeout):
                await anext(texts)

    async def test_a_session_is_used_and_left_open(self, environment: pytest.MonkeyPatch) -> None:
        reply: Script = [receive, send(chunked("Hi"))]
        with ScriptedPeer([*reply, *reply]) as peer:
            async with aiohttp.ClientSession() as session:
                for _ in range(2):
                    texts = GPROChat.create_async_generator(
                        "any", HI, url=peer.url, session=session
                    )
                    assert [text async for text in texts] == ["Hi"]
                assert open_sessions() == [session]
        assert len(peer.connections) == 1


class TestTheEnd:
    async def test_a_reply_that_was_read_leaves_no_session(self) -> None:
        async with serve() as server:
            await ask(server)
            assert open_sessions() == []

    async def test_a_reply_that_was_closed_leaves_no_connection(
        self, environment: pytest.MonkeyPatch
    ) -> None:
        with ScriptedPeer(ENDLESS) as peer:
            texts = GPROChat.create_async_generator("any", HI, url=peer.url)
            async with aclosing(texts):
                async for text in texts:
                    assert text == "first"
                    break
            assert open_sessions() == []
            assert await client_closed(peer)

    async def test_a_reply_that_was_cancelled_leaves_no_connection(
        self, environment: pytest.MonkeyPatch
    ) -> None:
        begun = asyncio.Event()

        async def read(url: str) -> None:
            async for _ in GPROChat.create_async_generator("any", HI, url=url):
                begun.set()

        with ScriptedPeer(ENDLESS) as peer:
            reading = asyncio.create_task(read(peer.url))
            await begun.wait()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert open_sessions() == []
            assert await client_closed(peer)

    async def test_a_reply_that_failed_leaves_no_session(self) -> None:
        async with serve(password="open sesame") as server:
            with pytest.raises(PasswordRejected):
                await ask(server)
            assert open_sessions() == []
