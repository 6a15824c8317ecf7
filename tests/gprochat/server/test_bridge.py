"""The answer of an OpenAI-compatible API, whose part a script plays."""

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from functools import cache
from itertools import pairwise
from typing import cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprochat.server import Answer, UpstreamError, bridge, openai, serve
from gprochat.server.bridge import Discretion, read_completion, read_events
from gprochat_core import (
    ConfigurationError,
    InterruptedReply,
    Message,
    RateLimited,
    RetryPolicy,
    ServiceFailed,
)
from gprochat_transports.aiohttp import Client
from tests.core.leaks import told_by
from tests.peers.scripted import (
    Script,
    ScriptedPeer,
    closed_port,
    pause,
    receive,
    send,
    until_client_closes,
    wait_for,
)
from tests.peers.wire import LAST_CHUNK, answer, chunk, head

pytestmark = pytest.mark.anyio

one_context = cache(ssl.create_default_context)

HI = (Message("user", "Hi"),)
EVENT_STREAM = head(200, "content-type: text/event-stream", "transfer-encoding: chunked")
DONE = b"data: [DONE]\n\n"


@pytest.fixture(autouse=True)
def authorities_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """httpx loads all authorities for each client, also where nothing is encrypted."""
    monkeypatch.setattr(ssl, "create_default_context", one_context)


def event(data: object) -> bytes:
    return b"data: %b\n\n" % json.dumps(data).encode()


def delta(text: object, finish_reason: str | None = None) -> bytes:
    return event({"choices": [{"delta": {"content": text}, "finish_reason": finish_reason}]})


def replying(*events: bytes) -> Script:
    """A complete response of an API."""
    return [receive, send(EVENT_STREAM + b"".join(map(chunk, events)) + LAST_CHUNK)]


def refusing(status: int, body: object) -> Script:
    return [receive, send(answer(status, json.dumps(body)))]


async def collect(answer: Answer, messages: tuple[Message, ...] = HI) -> list[str]:
    async with answering(answer, messages) as texts:
        return [text async for text in texts]


def answering(
    answer: Answer, messages: tuple[Message, ...] = HI
) -> "aclosing[AsyncGenerator[str, None]]":
    return aclosing(cast("AsyncGenerator[str, None]", answer(messages)))


def response_of(data: Iterable[bytes]) -> httpx.Response:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in data:
            yield piece

    return httpx.Response(200, content=pieces())


def read(data: Iterable[bytes]) -> list[str]:
    """The pieces of text in a complete response."""

    async def run() -> list[str]:
        return [text async for text in read_completion(response_of(data))]

    return asyncio.run(run())


def events_in(data: Iterable[bytes]) -> list[str]:
    async def run() -> list[str]:
        return [event async for event in read_events(response_of(data))]

    return asyncio.run(run())


class TestTheRequest:
    async def test_it_is_a_streaming_chat_completion(self) -> None:
        messages = (
            Message("system", "Be brief."),
            Message("user", "Как дела?"),
            Message("assistant", "Хорошо"),
            Message("user", "🙂"),
        )
        with ScriptedPeer(replying(DONE)) as peer:
            async with openai(f"{peer.url}/v1", model="small") as answer:
                await collect(answer, messages)
        (request,) = peer.requests
        assert request.line == "POST /v1/chat/completions HTTP/1.1"
        assert request.field("content-type") == "application/json"
        assert request.field("authorization") is None
        assert json.loads(request.body) == {
            "model": "small",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Как дела?"},
                {"role": "assistant", "content": "Хорошо"},
                {"role": "user", "content": "🙂"},
            ],
            "stream": True,
        }

    async def test_the_key_is_a_bearer_token(self) -> None:
        with ScriptedPeer(replying(DONE)) as peer:
            async with openai(peer.url, model="small", api_key="made-up") as answer:
                await collect(answer)
        assert peer.requests[0].field("authorization") == "Bearer made-up"

    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("", "/v1/chat/completions"),
            ("/", "/v1/chat/completions"),
            ("/v1/", "/v1/chat/completions"),
            ("/openai/v1", "/openai/v1/chat/completions"),
            ("/v1beta/openai/", "/v1beta/openai/chat/completions"),
        ],
    )
    async def test_its_path_is_under_the_base_url(self, path: str, expected: str) -> None:
        with ScriptedPeer(replying(DONE)) as peer:
            async with openai(peer.url + path, model="small") as answer:
                await collect(answer)
        assert peer.requests[0].line == f"POST {expected} HTTP/1.1"

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "localhost:11434/v1",
            "ftp://x/v1",
            "http://",
            "http://x:sesame/v1",
            "http://[/v1",
            "http://user:sesame@x/v1",
            "http://x/v1?key=sesame",
        ],
    )
    async def test_an_unusable_base_url_is_refused_and_not_shown(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="base URL") as caught:
            async with openai(url, model="small"):
                pass
        assert "sesame" not in told_by(caught.value)

    @pytest.mark.parametrize("key", ["made\r\nup", "ключ"])
    async def test_a_key_that_a_header_cannot_hold_is_refused_and_not_shown(self, key: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            async with openai("http://localhost", model="small", api_key=key):
                pass
        assert key not in str(caught.value)

    async def test_a_conversation_of_megabytes_is_sent_as_it_is(self) -> None:
        text = "да" * 1_000_000
        with ScriptedPeer(replying(DONE)) as peer:
            async with openai(peer.url, model="small") as answer:
                await collect(answer, (Message("user", text),))
        (request,) = peer.requests
        assert len(request.body) < len(text.encode()) + 100
        assert json.loads(request.body)["messages"][0]["content"] == text

    async def test_one_connection_serves_several_replies(self) -> None:
        # The response ends a little after its end marker, as a real API's does.
        reply = [
            receive,
            send(EVENT_STREAM + chunk(delta("a")) + chunk(DONE)),
            pause(0.02),
            send(LAST_CHUNK),
        ]
        with ScriptedPeer([*reply, *replying(delta("b"), DONE)]) as peer:
            async with openai(peer.url, model="small") as answer:
                assert await collect(answer) == ["a"]
                assert await collect(answer) == ["b"]
        assert len(peer.connections) == 1

    async def test_a_cookie_of_one_conversation_is_not_sent_with_another(self) -> None:
        first = head(200, "set-cookie: user=1", "transfer-encoding: chunked")
        script = [receive, send(first + chunk(DONE) + LAST_CHUNK), *replying(DONE)]
        with ScriptedPeer(script) as peer:
            async with openai(peer.url, model="small") as answer:
                await collect(answer)
                await collect(answer)
        assert peer.requests[1].field("cookie") is None

    async def test_the_session_is_closed_with_the_block(self) -> None:
        with ScriptedPeer([*replying(DONE), until_client_closes]) as peer:
            async with openai(peer.url, model="small") as answer:
                await collect(answer)
            assert await asyncio.to_thread(peer.connections[0].client_closed.wait, 5)

    async def test_a_redirect_is_not_followed(self) -> None:
        redirect = answer(307, "", "location: http://127.0.0.1:9/v1")
        with ScriptedPeer([receive, send(redirect)]) as peer:
            async with openai(peer.url, model="small", api_key="made-up") as answer_:
                with pytest.raises(UpstreamError, match="307 Temporary Redirect"):
                    await collect(answer_)


class TestTheReply:
    async def test_text_is_given_as_it_arrives(self) -> None:
        proceed = threading.Event()
        script = [
            receive,
            send(EVENT_STREAM + chunk(delta("first"))),
            wait_for(proceed),
            send(chunk(delta("second")) + chunk(DONE) + LAST_CHUNK),
        ]
        with ScriptedPeer(script) as peer:
            async with openai(peer.url, model="small") as answer, answering(answer) as texts:
                assert await anext(texts) == "first"
                proceed.set()
                assert [text async for text in texts] == ["second"]

    async def test_closing_it_closes_the_connection(self) -> None:
        script = [receive, send(EVENT_STREAM + chunk(delta("first"))), until_client_closes]
        with ScriptedPeer(script) as peer:
            async with openai(peer.url, model="small") as answer:
                async with answering(answer) as texts:
                    await anext(texts)
                assert await asyncio.to_thread(peer.connections[0].client_closed.wait, 5)

    async def test_it_ends_although_the_api_keeps_the_response_open(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bridge, "END_TIMEOUT", 0.05)
        script = [
            receive,
            send(EVENT_STREAM + chunk(delta("all")) + chunk(DONE)),
            until_client_closes,
        ]
        with ScriptedPeer(script) as peer:
            async with openai(peer.url, model="small") as answer:
                assert await collect(answer) == ["all"]

    @pytest.mark.parametrize(
        "noise",
        [
            b": keep-alive\n\n",
            b"\n\n\n",
            b"event: completion\n\n",
            b"id: 5\nretry: 100\n",
            event({"choices": []}),
            event({"choices": None}),
            event({"choices": [None]}),
            event({"choices": [{"delta": None}]}),
            event({"choices": [{"delta": {}}]}),
            event({"choices": [{"delta": {"role": "assistant", "content": ""}}]}),
            event({"choices": [{"delta": {"content": None}}]}),
            event({"choices": [{"delta": {"content": ["not", "text"]}}]}),
            event({"choices": [], "usage": {"total_tokens": 5}}),
            event({"error": None, "choices": []}),
            event([]),
            event(None),
        ],
    )
    def test_events_without_text_are_ignored(self, noise: bytes) -> None:
        assert read([noise, delta("a"), noise, delta("b"), noise, DONE, noise]) == ["a", "b"]

    def test_nothing_counts_after_its_end(self) -> None:
        assert read([delta("a"), DONE, delta("b"), b"data: {\n\n"]) == ["a"]

    def test_a_finish_reason_ends_it_too(self) -> None:
        assert read([delta("a"), delta("b", "stop"), event({"choices": []})]) == ["a", "b"]

    def test_without_either_the_completion_is_not_finished(self) -> None:
        with pytest.raises(UpstreamError, match="too early"):
            read([delta("a")])

    def test_a_long_event_is_read(self) -> None:
        text = "x" * (bridge.MAX_EVENT_BYTES - 100)
        data = delta(text) + DONE
        assert read(data[i : i + 65536] for i in range(0, len(data), 65536)) == [text]

    @pytest.mark.parametrize("data", [b"data: " + b"x" * 1000, b": x\n", b"data: x\n", b"\n"])
    def test_an_event_beyond_the_limit_is_not(
        self, data: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bridge, "MAX_EVENT_BYTES", 100_000)
        taken = 0

        def endless() -> Iterator[bytes]:
            nonlocal taken
            yield delta("first")
            while True:
                taken += len(data)
                yield data

        with pytest.raises(UpstreamError, match="event that is too long"):
            read(endless())
        assert taken <= 101_000

    def test_many_events_are_not_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bridge, "MAX_EVENT_BYTES", 1000)
        assert read([delta("a")] * 1000 + [DONE]) == ["a"] * 1000

    @given(texts=st.lists(st.text(min_size=1)), cuts=st.lists(st.integers(0, 2000)))
    def test_it_does_not_depend_on_the_cuts(self, texts: list[str], cuts: list[int]) -> None:
        data = b"".join(map(delta, texts)).replace(b"\n", b"\r\n") + b": done\r\n" + DONE
        places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
        pieces = [data[a:b] for a, b in pairwise(places)]
        assert read(pieces) == texts


class TestAFailure:
    @pytest.mark.parametrize(
        ("status", "body", "message"),
        [
            (400, {"error": {"message": "Too long"}}, "[400 Bad Request] Too long"),
            (401, {"error": {"message": "sk-a…z"}}, "[401 Unauthorized] API key not valid."),
            (403, {"error": "sk-a…z"}, "[403 Forbidden] The API does not permit this."),
            (404, {"error": "no such model"}, "[404 Not Found] no such model"),
            (429, {"error": {"message": "Slow"}}, "[429 Too Many Requests] Slow"),
            (500, {}, "[500 Internal Server Error] The API gave no reason."),
            (520, {"error": {"message": "Odd"}}, "[520] Odd"),
            (503, "", "[503 Service Unavailable] The API gave no reason."),
        ],
    )
    async def test_a_status_is_reported_with_the_apis_message(
        self, status: int, body: object, message: str
    ) -> None:
        with ScriptedPeer(refusing(status, body)) as peer:
            async with openai(peer.url, model="small") as answer:
                with pytest.raises(UpstreamError) as caught:
                    await collect(answer)
        assert str(caught.value) == message

    async def test_a_status_without_words_says_so(self) -> None:
        with ScriptedPeer([receive, send(answer(500))]) as peer:
            async with openai(peer.url, model="small") as answer_:
                with pytest.raises(UpstreamError, match="gave no reason"):
                    await collect(answer_)

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            ({"message": "Out of memory"}, "Out of memory"),
            ("Out of memory", "Out of memory"),
            ({"message": "Slow", "code": 429}, "[429 Too Many Requests] Slow"),
            ({"message": "Slow", "code": "rate_limit"}, "Slow"),
        ],
    )
    def test_an_error_in_the_stream_is_one(self, error: object, message: str) -> None:
        with pytest.raises(UpstreamError) as caught:
            read([delta("a"), event({"error": error}), DONE])
        assert str(caught.value) == message

    @pytest.mark.parametrize("event", [b"{", b"\xff", b"[" * 100_000], ids=["cut", "bytes", "deep"])
    def test_what_is_not_json_is_one(self, event: bytes) -> None:
        with pytest.raises(UpstreamError, match="JSON"):
            read([b"data: " + event + b"\n\n"])

    def test_a_blocked_answer_is_one(self) -> None:
        with pytest.raises(UpstreamError, match="blocked"):
            read([delta("a"), delta("b", "content_filter"), DONE])

    async def test_a_connection_that_breaks_is_one(self) -> None:
        with ScriptedPeer([receive, send(EVENT_STREAM + chunk(delta("a")))]) as peer:
            async with openai(peer.url, model="small") as answer, answering(answer) as texts:
                assert await anext(texts) == "a"
                with pytest.raises(UpstreamError):
                    await anext(texts)

    async def test_no_connection_is_one(self) -> None:
        with closed_port() as port:
            async with openai(f"http://127.0.0.1:{port}", model="small") as answer:
                with pytest.raises(UpstreamError, match="cannot be reached"):
                    await collect(answer)

    async def test_silence_is_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bridge, "SILENCE_TIMEOUT", 0.05)
        with ScriptedPeer([receive, until_client_closes]) as peer:
            async with openai(peer.url, model="small") as answer:
                with pytest.raises(UpstreamError, match="did not answer in time"):
                    await collect(answer)

    @pytest.mark.parametrize("status", [200, 307, 400, 401, 403, 404, 429, 500, 502])
    @pytest.mark.parametrize(
        "said",
        [
            "Incorrect API key provided: {key}.",
            "Incorrect API key provided: sk-mad*************1234.",
            "Incorrect API key provided: ***1234, not sk-mad...",
            "No such path: {path}",
            "http://{authority}{path} failed; see https://docs.example/errors?key={key}",
            "cannot connect to {authority}",
            "dial tcp 10.1.2.3:8000: connection refused",
            "authorization: Bearer {key}",
        ],
    )
    async def test_nothing_of_the_key_and_the_address_is_in_it(
        self, status: int, said: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        key = "sk-made-up-key-of-no-one-1234"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            authority = f"127.0.0.1:{listener.getsockname()[1]}"
        path = "/hidden/prefix/chat/completions"
        said = said.format(key=key, authority=authority, path=path)
        error = {"error": {"message": f"Well: {said}", "code": status}}
        reply = replying(event(error)) if status == 200 else refusing(status, error)
        plain: Script = [receive, send(answer(502, f"nginx: {said}"))]
        for script in (reply, plain):
            with ScriptedPeer(script) as peer:
                async with openai(f"{peer.url}/hidden/prefix", model="m", api_key=key) as answer_:
                    with pytest.raises(UpstreamError) as caught:
                        await collect(answer_)
            told = told_by(caught.value)
            for secret in (
                key,
                "sk-mad",
                "1234",
                "/hidden",
                authority,
                peer.url[7:],
                "docs.example",
            ):
                assert secret not in told
            for secret in ("10.1.2.3", "127.0.0.1", "Bearer sk"):
                assert secret not in told
            assert key not in repr(answer_)
        assert key not in caplog.text

    @pytest.mark.parametrize(
        "script",
        [
            pytest.param([receive, send(b"HTTP/1.1 nonsense\r\n\r\n")], id="no HTTP"),
            pytest.param([receive], id="no response"),
            pytest.param([receive, send(b"HTTP/1.1 200 OK\r\nx: y")], id="half a head"),
            pytest.param([receive, send(EVENT_STREAM + b"zz\r\n")], id="no chunk"),
            pytest.param([receive, send(EVENT_STREAM + chunk(delta("a")))], id="no end"),
        ],
    )
    async def test_no_words_of_a_library_are_in_it(
        self, script: Script, caplog: pytest.LogCaptureFixture
    ) -> None:
        key = "sk-made-up-key-of-no-one-1234"
        with ScriptedPeer(script) as peer:
            async with openai(peer.url, model="m", api_key=key) as answer:
                with pytest.raises(UpstreamError) as caught:
                    await collect(answer)
        assert str(caught.value) == "The connection to the model's API broke."
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        (record,) = [each for each in caplog.records if each.name == "gprochat.server"]
        assert record.getMessage().startswith("the model's API failed: ")
        assert key not in caplog.text

    async def test_what_helps_a_client_stays_in_it(self) -> None:
        said = f"Quota exceeded. {'x' * 600} Please retry in 3.4s. Ask for 1.5 times as much."
        with ScriptedPeer(refusing(429, {"error": {"message": said}})) as peer:
            async with openai(peer.url, model="m", api_key="sk-made-up-key-1234") as answer:
                with pytest.raises(UpstreamError) as caught:
                    await collect(answer)
        assert str(caught.value) == f"[429 Too Many Requests] {said}"

    @pytest.mark.parametrize("text", ["://", "1.", "1.1.1.1:", "sk-mad", "a ", "h", "/hidden"])
    def test_reading_a_message_takes_linear_time(self, text: str) -> None:
        discretion = Discretion("http://host/hidden", "sk-made-up-key-of-no-one-1234")

        def seconds(length: int) -> float:
            message = (text * length)[:length]
            begun = time.process_time()
            discretion.apply(message)
            return time.process_time() - begun

        seconds(1000)
        # Quadratic time would be 64 times as much.
        assert min(seconds(400_000) for _ in range(3)) < 24 * seconds(50_000) + 0.01

    async def test_a_long_message_is_cut(self) -> None:
        with ScriptedPeer(refusing(500, {"error": {"message": "x " * 20_000}})) as peer:
            async with openai(peer.url, model="m") as answer:
                with pytest.raises(UpstreamError) as caught:
                    await collect(answer)
        assert len(str(caught.value)) == bridge.MAX_SAID


class TestThroughTheService:
    async def test_a_reply_streams_to_the_client(self) -> None:
        with ScriptedPeer(replying(delta("Привет, "), delta("мир 🙂"), DONE)) as peer:
            async with (
                openai(peer.url, model="small") as answer,
                serve(answer) as server,
                Client(server.service) as client,
            ):
                assert await client.complete("Hi") == "Привет, мир 🙂"

    async def test_a_rate_limit_is_known_as_one(self) -> None:
        with ScriptedPeer(refusing(429, {"error": {"message": "Slow down"}})) as peer:
            async with (
                openai(peer.url, model="small") as answer,
                serve(answer) as server,
                Client(server.service, retry=RetryPolicy(max_attempts=1)) as client,
            ):
                with pytest.raises(RateLimited) as caught:
                    await client.complete("Hi")
        assert caught.value.status == 500

    async def test_another_error_is_reported(self) -> None:
        with ScriptedPeer(refusing(404, {"error": "model 'small' not found"})) as peer:
            async with (
                openai(peer.url, model="small") as answer,
                serve(answer) as server,
                Client(server.service, retry=RetryPolicy(max_attempts=1)) as client,
            ):
                with pytest.raises(ServiceFailed) as caught:
                    await client.complete("Hi")
        assert caught.value.message == "[404 Not Found] model 'small' not found"

    async def test_an_error_in_the_middle_interrupts(self) -> None:
        error = event({"error": {"message": "Out of memory"}})
        with ScriptedPeer(replying(delta("Well, "), error)) as peer:
            async with (
                openai(peer.url, model="small") as answer,
                serve(answer) as server,
                Client(server.service) as client,
            ):
                with pytest.raises(InterruptedReply) as caught:
                    await client.complete("Hi")
        assert caught.value.text == "Well, "

    async def test_a_client_that_leaves_ends_the_apis_work(self) -> None:
        script = [receive, send(EVENT_STREAM + chunk(delta("first"))), until_client_closes]
        with ScriptedPeer(script) as peer:
            async with (
                openai(peer.url, model="small") as answer,
                serve(answer) as server,
                Client(server.service) as client,
            ):
                async with client.stream("Hi") as reply:
                    await anext(reply)
                closed = peer.connections[0].client_closed
                assert await asyncio.to_thread(closed.wait, 5)


class TestTheEvents:
    @pytest.mark.parametrize(
        ("stream", "events"),
        [
            (b"data: a\n\n", ["a"]),
            (b"data:a\n\n", ["a"]),
            (b"data:  a\n\n", [" a"]),
            (b"data: a\ndata: b\n\n", ["a\nb"]),
            (b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
            (b"data: a\r\rdata: b\r\r\n", ["a", "b"]),
            (b"data\n\n", []),
            (b"id: 1\n\n\n", []),
            (b"data: a: b\n\n", ["a: b"]),
            (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
            ("data: да\n\n".encode(), ["да"]),
            ("data: a\u2028b\u0085c\n\n".encode(), ["a\u2028b\u0085c"]),
            (b"datum: a\n\n", []),
            (b": data: a\n\n", []),
            (b"data: a\n", []),
            (b"event: x\ndata: a\nid: 1\n\n", ["a"]),
        ],
    )
    def test_they_are_read_as_browsers_do(self, stream: bytes, events: list[str]) -> None:
        assert events_in([stream]) == events
        assert events_in([stream[i : i + 1] for i in range(len(stream))]) == events
