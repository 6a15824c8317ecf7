"""The embedded service over real sockets: with a client, and with bare HTTP for what it says."""

import asyncio
import gc
import io
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import aiohttp
import anyio
import pytest

from gprochat import server as server_module
from gprochat.server import Answer, Server, answers, echo, in_thread, serve, stop_signal
from gprochat_core import (
    ConfigurationError,
    Conversation,
    Draft,
    Encoding,
    InterruptedReply,
    Message,
    PasswordRejected,
    Request,
    RetryPolicy,
    Service,
    ServiceFailed,
    SignatureRejected,
)
from gprochat_core.messages import read_messages
from gprochat_transports.aiohttp import Client
from tests.peers.tls import Authority

pytestmark = pytest.mark.anyio

OPEN_FILES = "/proc/self/fd"
MARKER = b"Internal server error"
ONCE = RetryPolicy(max_attempts=1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def answer_of(*pieces: str) -> Answer:
    async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
        for piece in pieces:
            yield piece

    return answer


def failing(*pieces: str, error: Exception) -> Answer:
    async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
        for piece in pieces:
            yield piece
        raise error

    return answer


class Watched:
    """An answer that gives one piece, then waits for `proceed`, and tells how it went."""

    def __init__(self, *pieces: str, rest: str = "") -> None:
        self.pieces = pieces
        self.rest = rest
        self.proceed = asyncio.Event()
        self.begun = asyncio.Event()
        self.closed = asyncio.Event()
        self.messages: tuple[Message, ...] = ()

    async def __call__(self, messages: tuple[Message, ...]) -> AsyncIterator[str]:
        self.messages = messages
        self.begun.set()
        try:
            for piece in self.pieces:
                yield piece
            await self.proceed.wait()
            yield self.rest
        finally:
            self.closed.set()


def signed(
    service: Service, conversation: Conversation = "Hi", *, time_ms: int | None = None
) -> Request:
    now = time.time_ns() // 1_000_000
    return Draft(service, read_messages(conversation)).sign(now if time_ms is None else time_ms)


def post(
    session: aiohttp.ClientSession, service: Service, conversation: Conversation = "Hi"
) -> "aiohttp.client._RequestContextManager":
    return send(session, signed(service, conversation))


def send(
    session: aiohttp.ClientSession, request: Request, **changes: object
) -> "aiohttp.client._RequestContextManager":
    """Post a request's body, some of its fields changed."""
    body = json.dumps({**json.loads(request.body), **changes}).encode() if changes else request.body
    return session.post(request.url, headers=request.headers, data=body)


async def chunks(response: aiohttp.ClientResponse) -> list[bytes]:
    """The body's chunks as they were written."""
    found = [b""]
    async for data, ended in response.content.iter_chunks():
        found[-1] += data
        if ended:
            found.append(b"")
    return [each for each in found if each]


def error_of(body: bytes) -> object:
    return json.loads(body)["error"]


async def in_time(awaitable: Awaitable[object]) -> None:
    async with asyncio.timeout(5):
        await awaitable


class TestAReply:
    async def test_echo_gives_back_the_last_message_unchanged(self) -> None:
        text = "  Как дела? 🙂\n\n\tAntidisestablishmentarianism,  as ever "
        async with serve() as server, Client(server.service) as client:
            earlier = [Message("user", "Not this"), Message("assistant", "Nor this")]
            assert await client.complete([*earlier, Message("user", text)]) == text

    async def test_echo_streams_word_by_word(self) -> None:
        async with (
            serve() as server,
            Client(server.service) as client,
            client.stream("one two three") as reply,
        ):
            assert [text async for text in reply] == ["one ", "two ", "three"]

    async def test_a_long_echo_is_over_soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(answers, "ECHO_LENGTH", 0.1)
        async with serve() as server, Client(server.service) as client:
            async with asyncio.timeout(answers.ECHO_PAUSE * 500 / 4):
                await client.complete("word " * 500)

    async def test_it_is_chunked_plain_text(self, session: aiohttp.ClientSession) -> None:
        async with serve() as server, post(session, server.service) as response:
            assert response.status == 200
            assert response.headers["content-type"] == "text/plain; charset=utf-8"
            assert response.headers["transfer-encoding"] == "chunked"

    async def test_each_piece_is_written_as_it_comes(self, session: aiohttp.ClientSession) -> None:
        answer = Watched("first", rest="second")
        async with serve(answer) as server, post(session, server.service) as response:
            await in_time(response.content.readexactly(len("first")))
            answer.proceed.set()
            assert await response.read() == b"second"

    async def test_each_piece_is_a_chunk(self, session: aiohttp.ClientSession) -> None:
        async with (
            serve(answer_of("один", "two", "🙂")) as server,
            post(session, server.service) as response,
        ):
            assert await chunks(response) == ["один".encode(), b"two", "🙂".encode()]

    async def test_an_answer_without_pieces_is_an_empty_reply(
        self, session: aiohttp.ClientSession
    ) -> None:
        async with serve(answer_of()) as server, post(session, server.service) as response:
            assert (response.status, await response.read()) == (200, b"")
            assert response.headers["content-type"] == "text/plain; charset=utf-8"

    async def test_an_empty_piece_does_not_end_the_reply(
        self, session: aiohttp.ClientSession
    ) -> None:
        async with (
            serve(answer_of("", "a", "", "b")) as server,
            post(session, server.service) as response,
        ):
            assert await chunks(response) == [b"a", b"b"]

    async def test_an_answer_that_never_waits_lets_others_have_their_turn(
        self, session: aiohttp.ClientSession
    ) -> None:
        turn = 0
        turns: list[int] = []

        async def take_turns() -> None:
            nonlocal turn
            while True:
                turn += 1
                await asyncio.sleep(0)

        async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
            for _ in range(10):
                turns.append(turn)
                yield "x"

        other = asyncio.create_task(take_turns())
        async with serve(answer) as server, post(session, server.service) as response:
            await response.read()
        other.cancel()
        assert len(set(turns)) == 10

    async def test_lone_surrogates_become_replacement_characters(self) -> None:
        async with (
            serve(answer_of("a\ud83d", "\udc00b\udfff\ud800")) as server,
            Client(server.service) as client,
        ):
            assert await client.complete("Hi") == "a\ufffd\ufffdb\ufffd\ufffd"

    @pytest.mark.parametrize("encoding", ["native", "flattened", "content"])
    async def test_every_encoding_is_understood(self, encoding: Encoding) -> None:
        async with serve() as server:
            service = replace(server.service, encoding=encoding)
            async with Client(service) as client:
                assert await client.complete("Hello, world!") == "Hello, world!"

    async def test_the_answer_is_given_the_whole_conversation(self) -> None:
        answer = Watched()
        answer.proceed.set()
        messages = [Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Who?")]
        async with serve(answer) as server, Client(server.service) as client:
            await client.complete(messages)
        assert answer.messages == tuple(messages)

    async def test_a_connection_serves_several_replies(
        self, session: aiohttp.ClientSession
    ) -> None:
        async with serve() as server:
            ports = set[object]()
            for _ in range(2):
                async with post(session, server.service) as response:
                    assert response.connection is not None
                    assert response.connection.transport is not None
                    ports.add(response.connection.transport.get_extra_info("sockname"))
                    await response.read()
            assert len(ports) == 1


class TestARefusal:
    @pytest.mark.parametrize(
        ("changes", "status", "message"),
        [
            (
                {"messages": []},
                400,
                "Invalid message history: The last message must be from user role.",
            ),
            (
                {"messages": [{"role": "model", "parts": [{"text": "Hi"}]}]},
                400,
                "Invalid message history: The last message must be from user role.",
            ),
            ({"pass": "wrong"}, 401, "Invalid password."),
            ({"sign": "0" * 64}, 401, "Invalid signature."),
        ],
        ids=["no message", "the model's last", "password", "signature"],
    )
    async def test_it_is_worded_as_the_family_does(
        self, session: aiohttp.ClientSession, changes: dict[str, object], status: int, message: str
    ) -> None:
        async with (
            serve(password="open sesame") as server,
            send(session, signed(server.service), **changes) as response,
        ):
            assert response.status == status
            assert response.headers["content-type"] == "text/plain;charset=UTF-8"
            assert error_of(await response.read()) == {"message": message}

    async def test_a_stale_request_is_refused(self, session: aiohttp.ClientSession) -> None:
        stale = time.time_ns() // 1_000_000 - 6 * 60 * 1000
        async with (
            serve() as server,
            send(session, signed(server.service, time_ms=stale)) as response,
        ):
            assert response.status == 401

    async def test_without_freshness_any_time_is_good(self, session: aiohttp.ClientSession) -> None:
        async with (
            serve(freshness_ms=None) as server,
            send(session, signed(server.service, time_ms=0)) as response,
        ):
            assert response.status == 200

    async def test_a_body_that_is_not_json_is_a_bad_request(
        self, session: aiohttp.ClientSession
    ) -> None:
        async with (
            serve() as server,
            session.post(server.service.endpoint, data=b"{") as response,
        ):
            assert response.status == 400
            assert "JSON" in str(error_of(await response.read()))

    async def test_a_body_beyond_the_limit_is_too_large(
        self, session: aiohttp.ClientSession
    ) -> None:
        async with (
            serve(max_request_bytes=1000) as server,
            post(session, server.service, "x" * 1000) as response,
        ):
            assert response.status == 413
            assert error_of(await response.read()) == {"message": "Request body too large."}

    async def test_a_client_that_sends_far_too_much_is_told_all_the_same(
        self, session: aiohttp.ClientSession
    ) -> None:
        async with serve() as server:
            body = io.BytesIO(b"x" * (server_module.MAX_REQUEST_BYTES * 2))
            async with session.post(server.service.endpoint, data=body) as response:
                assert response.status == 413

    async def test_a_body_just_within_the_limit_is_taken(
        self, session: aiohttp.ClientSession
    ) -> None:
        async with serve() as unlimited:
            size = len(signed(unlimited.service).body)
        async with (
            serve(max_request_bytes=size) as server,
            post(session, server.service) as response,
        ):
            assert response.status == 200

    async def test_clients_meet_the_matching_errors(self) -> None:
        async with serve(password="open sesame") as server:
            for service, error in [
                (replace(server.service, password=None), PasswordRejected),
                (replace(server.service, secret_key="another"), SignatureRejected),
            ]:
                async with Client(service) as client:
                    with pytest.raises(error):
                        await client.complete("Hi")

    async def test_another_method_is_not_allowed(self, session: aiohttp.ClientSession) -> None:
        async with serve() as server, session.get(server.service.endpoint) as response:
            assert response.status == 405

    async def test_another_path_is_not_found(self, session: aiohttp.ClientSession) -> None:
        async with serve() as server, session.post(f"{server.url}/api/other") as response:
            assert response.status == 404


class TestAFailure:
    async def test_before_the_first_piece_it_is_told_in_a_500(
        self, session: aiohttp.ClientSession
    ) -> None:
        answer = failing("", error=RuntimeError("the model is asleep"))
        async with serve(answer) as server, post(session, server.service) as response:
            assert response.status == 500
            assert response.headers["content-type"] == "text/plain;charset=UTF-8"
            body = await response.read()
            assert error_of(body) == {"message": "the model is asleep", "code": "Error"}

    async def test_one_without_words_is_told_by_its_name(self) -> None:
        async with (
            serve(failing(error=KeyError())) as server,
            Client(server.service, retry=ONCE) as client,
        ):
            with pytest.raises(ServiceFailed) as caught:
                await client.complete("Hi")
            assert caught.value.message == "KeyError"

    async def test_an_answer_that_is_none_is_told_in_a_500(
        self, session: aiohttp.ClientSession
    ) -> None:
        def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
            raise ValueError("never")

        async with serve(answer) as server, post(session, server.service) as response:
            assert response.status == 500

    async def test_after_it_the_marker_ends_the_reply_as_a_chunk(
        self, session: aiohttp.ClientSession
    ) -> None:
        answer = failing("Well, ", "I", error=RuntimeError("the model fell asleep"))
        async with serve(answer) as server, post(session, server.service) as response:
            assert response.status == 200
            assert await chunks(response) == [b"Well, ", b"I", MARKER]

    async def test_after_it_a_client_has_the_text_so_far(self) -> None:
        answer = failing("Well, ", "I", error=TimeoutError())
        async with serve(answer) as server, Client(server.service) as client:
            with pytest.raises(InterruptedReply) as caught:
                await client.complete("Hi")
            assert caught.value.text == "Well, I"

    async def test_what_is_not_text_is_one(self, session: aiohttp.ClientSession) -> None:
        async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
            yield 5  # type: ignore[misc]

        async with serve(answer) as server, post(session, server.service) as response:
            assert response.status == 500

    async def test_the_log_tells_where_and_not_what(
        self, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
    ) -> None:
        answer = failing("Well", error=RuntimeError("the user's words"))
        async with serve(answer) as server, post(session, server.service) as response:
            await response.read()
        (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
        assert record.name == "gprochat.server"
        assert "RuntimeError" in record.getMessage()
        assert "test_server.py" in record.getMessage()
        assert "the user's words" not in caplog.text

    async def test_the_next_request_is_answered(self) -> None:
        outcomes = iter([failing("x", error=RuntimeError()), answer_of("Better")])

        def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
            return next(outcomes)(messages)

        async with serve(answer) as server, Client(server.service) as client:
            with pytest.raises(InterruptedReply):
                await client.complete("Hi")
            assert await client.complete("Hi") == "Better"


class TestADisconnect:
    @pytest.mark.parametrize("pieces", [(), ("first",)], ids=["before a piece", "after it"])
    async def test_it_closes_the_answer_at_once(
        self, session: aiohttp.ClientSession, pieces: tuple[str, ...]
    ) -> None:
        answer = Watched(*pieces)
        async with serve(answer) as server:
            asking = asyncio.ensure_future(post(session, server.service))
            await in_time(answer.begun.wait())
            asking.cancel()
            with suppress(asyncio.CancelledError):
                (await asking).close()
            await in_time(answer.closed.wait())

    async def test_it_closes_an_answer_that_never_waits(
        self, session: aiohttp.ClientSession
    ) -> None:
        closed = asyncio.Event()

        async def endless(messages: tuple[Message, ...]) -> AsyncIterator[str]:
            try:
                while True:
                    yield "x"
            finally:
                closed.set()

        async with serve(endless) as server:
            async with post(session, server.service) as response:
                await response.content.readexactly(1)
            await in_time(closed.wait())

    async def test_it_ends_the_wait_for_a_body(self, caplog: pytest.LogCaptureFixture) -> None:
        async with serve() as server:
            _, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            writer.write(b"POST /api/generate HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.close()
            await writer.wait_closed()
        assert not [each for each in caplog.records if each.levelno >= logging.WARNING]

    async def test_an_answer_that_fails_to_close_is_logged(
        self, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
    ) -> None:
        closed = asyncio.Event()

        async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
            try:
                while True:
                    yield "x" * 100_000
            finally:
                closed.set()
                raise RuntimeError("cannot close")

        async with serve(answer) as server:
            async with post(session, server.service) as response:
                await response.content.readexactly(1)
            await in_time(closed.wait())
        assert "RuntimeError at" in caplog.text
        assert "cannot close" not in caplog.text


class TestAuthentication:
    @pytest.mark.parametrize(
        ("password", "given", "code"),
        [
            ("open sesame", "open sesame", 0),
            ("open sesame", "open sesamE", -1),
            ("open sesame", None, -1),
            ("open sesame", 5, -1),
            ("пароль", "пароль", 0),
            (None, "anything", 0),
            (None, None, 0),
        ],
    )
    async def test_the_code_tells_whether_the_password_is_right(
        self, session: aiohttp.ClientSession, password: str | None, given: object, code: int
    ) -> None:
        async with (
            serve(password=password) as server,
            session.post(f"{server.url}/api/auth", json={"pass": given}) as response,
        ):
            assert response.status == 200
            assert json.loads(await response.read()) == {"code": code}

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"pass"', b"\xff", b"[" * 10_000])
    async def test_a_broken_body_is_a_bad_request(
        self, session: aiohttp.ClientSession, body: bytes
    ) -> None:
        async with (
            serve(password="open sesame") as server,
            session.post(f"{server.url}/api/auth", data=body) as response,
        ):
            assert response.status == 400
            assert error_of(await response.read())

    async def test_a_body_beyond_the_limit_is_too_large(
        self, session: aiohttp.ClientSession
    ) -> None:
        async with (
            serve(max_request_bytes=100) as server,
            session.post(f"{server.url}/api/auth", json={"pass": "x" * 100}) as response,
        ):
            assert response.status == 413


class TestAnEnd:
    async def test_replies_that_end_within_the_grace_arrive_whole(
        self, session: aiohttp.ClientSession
    ) -> None:
        answer = Watched("first ", rest="second")
        async with serving(answer, grace=5) as (server, end):
            async with post(session, server.service) as response:
                ended = end()
                await asyncio.sleep(0.05)
                assert not ended.done()
                answer.proceed.set()
                assert await response.read() == b"first second"
            await in_time(ended)

    async def test_replies_that_do_not_are_ended_with_the_marker(
        self, session: aiohttp.ClientSession
    ) -> None:
        answer = Watched("first")
        async with serving(answer, grace=0.05) as (server, end):
            async with post(session, server.service) as response:
                ended = end()
                assert await chunks(response) == [b"first", MARKER]
            await in_time(ended)
        assert answer.closed.is_set()

    async def test_replies_that_have_not_begun_are_refused(
        self, session: aiohttp.ClientSession
    ) -> None:
        answer = Watched()
        async with serving(answer, grace=0.05) as (server, end):
            asking = asyncio.ensure_future(post(session, server.service))
            await in_time(answer.begun.wait())
            ended = end()
            async with await asking as response:
                assert response.status == 503
                message = {"message": "The service is stopping.", "code": "Error"}
                assert error_of(await response.read()) == message
            await in_time(ended)

    async def test_a_new_request_on_an_open_connection_is_refused(
        self, session: aiohttp.ClientSession
    ) -> None:
        answer = Watched("first ", rest="second")
        async with serving(answer, grace=5) as (server, end):
            async with post(session, server.service) as other:
                # The first one's connection is free again, and stays open.
                async with send(session, signed(server.service), sign="0") as response:
                    await response.read()
                ended = end()
                await asyncio.sleep(0.05)
                async with post(session, server.service) as response:
                    assert response.status == 503
                answer.proceed.set()
                assert await other.read() == b"first second"
            await in_time(ended)

    async def test_a_request_that_is_still_coming_is_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server_module, "FAREWELL", 0.1)
        async with serving(echo, grace=0.05) as (server, end):
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            writer.write(b"POST /api/auth HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
            await writer.drain()
            await asyncio.sleep(0.05)
            ended = end()
            assert (await reader.readline()).startswith(b"HTTP/1.1 503")
            await in_time(ended)
            writer.close()
            await writer.wait_closed()

    async def test_nobody_can_connect_any_more(self, session: aiohttp.ClientSession) -> None:
        answer = Watched("first")
        async with serving(answer, grace=5) as (server, end):
            async with post(session, server.service) as response:
                ended = end()
                await asyncio.sleep(0.05)
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection("127.0.0.1", port_of(server))
                answer.proceed.set()
                await response.read()
            await in_time(ended)

    async def test_idle_connections_do_not_hold_it_up(self, session: aiohttp.ClientSession) -> None:
        async with serving(echo, grace=5) as (server, end):
            async with post(session, server.service) as response:
                await response.read()
            begun = time.monotonic()
            await in_time(end())
        assert time.monotonic() - begun < 1

    async def test_a_client_that_reads_nothing_does_not_hold_it_up(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server_module, "FAREWELL", 0.1)
        answer = Watched(*["x" * 1_000_000] * 50)
        async with serving(answer, grace=0.0) as (server, end):
            reader, writer = await ask_reading_little(server)
            await reader.readline()
            files = open_files()
            await in_time(end())
            assert answer.closed.is_set()
            # The listening socket, and that of the connection.
            assert len(files - open_files()) == 2
            writer.transport.abort()

    async def test_an_answer_that_does_not_close_does_not_hold_it_up(
        self, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server_module, "FAREWELL", 0.1)
        closed = asyncio.Event()

        async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
            try:
                yield "first"
                await asyncio.Event().wait()
            finally:
                try:
                    await asyncio.Event().wait()
                finally:
                    closed.set()

        before = asyncio.all_tasks()
        async with (
            serving(answer, grace=0.0) as (server, end),
            post(session, server.service),
        ):
            await in_time(end())
        assert closed.is_set()
        assert asyncio.all_tasks() <= before

    async def test_a_client_that_reads_late_has_the_marker_too(self) -> None:
        answer = Watched(*["x" * 1_000_000] * 50)
        async with serving(answer, grace=0.0) as (server, end):
            reader, writer = await ask_reading_little(server)
            await reader.readline()
            ended = end()
            await in_time(answer.closed.wait())
            assert (await reader.read()).endswith(b"\r\n15\r\n%b\r\n0\r\n\r\n" % MARKER)
            await in_time(ended)
            writer.close()
            await writer.wait_closed()

    async def test_a_cancellation_takes_the_grace_away(
        self, session: aiohttp.ClientSession
    ) -> None:
        answer = Watched("first")
        async with serving(answer, grace=60) as (server, end):
            async with post(session, server.service) as response:
                ended = end()
                await asyncio.sleep(0.05)
                ended.cancel()
                assert await chunks(response) == [b"first", MARKER]
            with pytest.raises(asyncio.CancelledError):
                await in_time(ended)
        assert answer.closed.is_set()

    async def test_a_cancellation_that_comes_late_changes_nothing(
        self, session: aiohttp.ClientSession
    ) -> None:
        closing, proceed = asyncio.Event(), asyncio.Event()

        async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
            try:
                yield "first"
                await asyncio.Event().wait()
            finally:
                closing.set()
                await proceed.wait()

        async with serving(answer, grace=0.0) as (server, end):
            async with post(session, server.service) as response:
                ended = end()
                await in_time(closing.wait())
                ended.cancel()
                await asyncio.sleep(0)
                proceed.set()
                assert await chunks(response) == [b"first", MARKER]
            with pytest.raises(asyncio.CancelledError):
                await in_time(ended)

    async def test_a_cancelled_scope_of_anyio_ends_it_too(
        self, session: aiohttp.ClientSession
    ) -> None:
        before = asyncio.all_tasks()
        answer = Watched("first")
        responses: list[aiohttp.ClientResponse] = []
        with anyio.CancelScope() as scope:
            async with serve(answer, grace=60) as server:
                responses.append(await post(session, server.service))
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert await chunks(responses[0]) == [b"first", MARKER]
        assert asyncio.all_tasks() <= before

    async def test_an_exception_in_the_block_ends_it_too(self) -> None:
        port = 0

        async def fail() -> None:
            nonlocal port
            async with serve() as server:
                port = port_of(server)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

    async def test_no_task_is_left(self, session: aiohttp.ClientSession) -> None:
        before = asyncio.all_tasks()
        async with (
            serving(Watched("first"), grace=0.0) as (server, end),
            post(session, server.service) as response,
        ):
            await in_time(end())
            await response.read()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() <= before

    @pytest.mark.skipif(not os.path.isdir(OPEN_FILES), reason="open files are listed elsewhere")
    async def test_no_socket_is_left(self, session: aiohttp.ClientSession) -> None:
        gc.collect()
        before = open_files()
        async with serve() as server, aiohttp.ClientSession() as other:
            async with post(other, server.service) as response:
                await response.read()
            assert open_files() > before
        assert open_files() == before


class TestWhereItIs:
    async def test_the_service_is_what_a_client_needs(self) -> None:
        async with serve(secret_key="ключ", password="open sesame") as server:
            assert server.service.secret_key == "ключ"
            assert server.service.password == "open sesame"
            assert server.url == server.service.url

    async def test_secrets_are_not_shown(self) -> None:
        async with serve(password="open sesame") as server:
            assert server.service.secret_key is not None
            assert server.service.secret_key not in repr(server)
            assert "open sesame" not in repr(server)

    async def test_the_secret_key_is_drawn_anew(self) -> None:
        async with serve() as one, serve() as other:
            assert one.service.secret_key != other.service.secret_key
            assert len(one.service.secret_key or "") >= 32

    async def test_it_listens_on_this_machine_only(self) -> None:
        async with serve() as server:
            assert server.url.startswith("http://127.0.0.1:")

    @pytest.mark.parametrize(
        ("host", "url"),
        [
            ("0.0.0.0", "http://127.0.0.1:"),
            ("localhost", "http://localhost:"),
            pytest.param(
                "::1",
                "http://[::1]:",
                marks=pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6"),
            ),
            pytest.param(
                "::",
                "http://[::1]:",
                marks=pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6"),
            ),
        ],
    )
    async def test_its_url_is_one_to_connect_to(self, host: str, url: str) -> None:
        async with serve(host=host) as server, Client(server.service) as client:
            assert server.url.startswith(url)
            assert await client.complete("Hi") == "Hi"

    async def test_it_listens_on_the_port_given(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        async with serve(port=port) as server:
            assert server.url == f"http://127.0.0.1:{port}"

    async def test_a_port_that_is_taken_is_an_error(self) -> None:
        before = asyncio.all_tasks()
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            pytest.raises(OSError, match="in use"),
        ):
            async with serve(port=listener.getsockname()[1]):
                pass
        assert asyncio.all_tasks() == before

    async def test_it_speaks_tls(self) -> None:
        authority = Authority()
        async with serve(ssl_context=authority.server_context()) as server:
            assert server.url.startswith("https://127.0.0.1:")
            async with Client(server.service, ssl_context=authority.client_context()) as client:
                assert await client.complete("Hi") == "Hi"

    async def test_an_unusable_setting_is_refused_before_it_listens(self) -> None:
        with pytest.raises(ConfigurationError):
            async with serve(freshness_ms=-1):
                pass


class TestTheLog:
    async def test_it_tells_start_and_stop(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "gprochat.server")
        async with serve() as server:
            assert caplog.messages == [f"serving at {server.url}"]
        assert caplog.messages[-1] == "stopped"

    async def test_it_tells_sizes_and_neither_texts_nor_secrets(
        self, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        async with serve(password="open sesame") as server:
            request = signed(server.service, "a question")
            async with send(session, request) as response:
                await response.read()
            async with send(session, request, sign="0") as response:
                await response.read()
        assert f"accepted {len(request.body)} bytes, 1 messages" in caplog.messages
        assert "streamed 10 bytes" in caplog.messages
        assert "answered 401" in caplog.messages
        sign = json.loads(request.body)["sign"]
        for secret in ("question", "open sesame", server.service.secret_key, sign):
            assert str(secret) not in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="signals are raised otherwise")
class TestAStopSignal:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    async def test_it_is_waited_for(self, number: signal.Signals) -> None:
        before = signal.getsignal(number)
        waiting = asyncio.ensure_future(stop_signal())
        await asyncio.sleep(0)
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        await in_time(waiting)
        assert waiting.result() is number
        assert signal.getsignal(number) == before

    async def test_what_signals_mean_is_restored_after_a_cancellation(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        waiting = asyncio.ensure_future(stop_signal())
        await asyncio.sleep(0)
        assert signal.getsignal(signal.SIGTERM) != before
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert signal.getsignal(signal.SIGTERM) == before


class TestInAThread:
    async def test_it_serves_from_another_thread(self) -> None:
        threads: list[threading.Thread] = []

        async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
            threads.append(threading.current_thread())
            yield "Hello"

        with in_thread(serve(answer)) as server:
            async with Client(server.service) as client:
                assert await client.complete("Hi") == "Hello"
        assert threads[0] is not threading.current_thread()
        assert not threads[0].is_alive()

    def test_it_needs_no_event_loop(self) -> None:
        with (
            in_thread(serve()) as server,
            socket.create_connection(("127.0.0.1", port_of(server))) as connection,
        ):
            connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 404")

    def test_what_keeps_it_from_starting_is_raised(self) -> None:
        with (
            pytest.raises(ConfigurationError, match="freshness"),
            in_thread(serve(freshness_ms=-1)),
        ):
            pytest.fail("it must not start")

    def test_an_exception_in_the_block_ends_it_too(self) -> None:
        port = 0

        def fail() -> None:
            nonlocal port
            with in_thread(serve()) as server:
                port = port_of(server)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


@asynccontextmanager
async def serving(
    answer: Answer, *, grace: float
) -> AsyncGenerator[tuple[Server, Callable[[], "asyncio.Task[None]"]], None]:
    """A server in a task of its own, and a function that has it stop and gives that task."""
    started: asyncio.Future[Server] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def run() -> None:
        async with serve(answer, grace=grace) as server:
            started.set_result(server)
            await leave.wait()

    def end() -> "asyncio.Task[None]":
        leave.set()
        return task

    task = asyncio.create_task(run())
    try:
        yield await started, end
    finally:
        leave.set()
        await asyncio.wait([task])


async def ask_reading_little(
    server: Server,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server), limit=1000)
    body = signed(server.service).body
    writer.write(
        b"POST /api/generate HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b"
        % (len(body), body)
    )
    return reader, writer


def port_of(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


def open_files() -> set[str]:
    return set(os.listdir(OPEN_FILES))
