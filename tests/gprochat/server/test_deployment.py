"""What a service answers: replies, refusals, failures."""

import asyncio
import io
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import aiohttp
import pytest

from gprochat.server import (
    MAX_REQUEST_BYTES,
    serve,
)
from gprochat_core import (
    Encoding,
    InterruptedReply,
    Message,
    PasswordRejected,
    RetryPolicy,
    ServiceFailed,
    SignatureRejected,
)
from gprochat_transports.aiohttp import Client

from .serving import (
    MARKER,
    Watched,
    answer_of,
    chunks,
    error_of,
    failing,
    in_time,
    port_of,
    post,
    send,
    signed,
)

ONCE = RetryPolicy(max_attempts=1)

pytestmark = pytest.mark.anyio


class TestAReply:
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
    async def test_it_has_the_familys_words(
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

    async def test_a_client_that_sends_far_too_much_still_gets_the_answer(
        self, session: aiohttp.ClientSession
    ) -> None:
        async with serve() as server:
            body = io.BytesIO(b"x" * (MAX_REQUEST_BYTES * 2))
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
    async def test_before_the_first_piece_it_is_a_500(self, session: aiohttp.ClientSession) -> None:
        answer = failing("", error=RuntimeError("the model is asleep"))
        async with serve(answer) as server, post(session, server.service) as response:
            assert response.status == 500
            assert response.headers["content-type"] == "text/plain;charset=UTF-8"
            body = await response.read()
            assert error_of(body) == {"message": "the model is asleep", "code": "Error"}

    async def test_an_exception_without_a_message_is_reported_by_its_name(self) -> None:
        async with (
            serve(failing(error=KeyError())) as server,
            Client(server.service, retry=ONCE) as client,
        ):
            with pytest.raises(ServiceFailed) as caught:
                await client.complete("Hi")
            assert caught.value.message == "KeyError"

    async def test_an_answer_that_is_no_generator_is_a_500(
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

    async def test_a_piece_that_is_no_text_is_one(self, session: aiohttp.ClientSession) -> None:
        async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
            yield 5  # type: ignore[misc]

        async with serve(answer) as server, post(session, server.service) as response:
            assert response.status == 500

    async def test_the_log_has_the_place_and_not_the_message(
        self, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
    ) -> None:
        answer = failing("Well", error=RuntimeError("the user's words"))
        async with serve(answer) as server, post(session, server.service) as response:
            await response.read()
        (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
        assert record.name == "gprochat.server"
        assert "RuntimeError" in record.getMessage()
        assert "serving.py" in record.getMessage()
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


class TestTheLog:
    async def test_it_has_sizes_but_neither_texts_nor_secrets(
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
