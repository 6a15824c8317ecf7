"""What a service answers: replies, refusals, failures."""

import asyncio
import io
import json
import logging
import socket
import struct
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import aiohttp
import pytest

from gprochat.server import (
    MAX_REQUEST_BYTES,
    deployment,
    requests,
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
    ask_reading_little,
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

    @pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "GZIP", "x-unknown"])
    @pytest.mark.parametrize("path", ["generate", "auth"])
    async def test_a_compressed_body_is_refused_and_not_inflated(
        self, session: aiohttp.ClientSession, coding: str, path: str
    ) -> None:
        async with (
            serve() as server,
            session.post(
                f"{server.url}/api/{path}",
                # Inflating this would fail with another answer.
                data=b"\x1f\x8b corrupt",
                headers={"content-encoding": coding},
            ) as response,
        ):
            assert response.status == 415
            assert error_of(await response.read()) == {
                "message": "Compressed requests are not accepted."
            }

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

    async def test_an_answer_that_returns_its_text_is_told_what_to_write(self) -> None:
        async def answer(messages: tuple[Message, ...]) -> str:
            return "Hello"

        async with (
            serve(cast("Any", answer)) as server,
            Client(server.service, retry=ONCE) as client,
        ):
            with pytest.raises(ServiceFailed) as caught:
                await client.complete("Hi")
            assert caught.value.message == "an answer is a function with `async def` and `yield`"

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

    @pytest.mark.parametrize("piece", [5, None, b"text"])
    async def test_a_piece_that_is_no_text_is_one(
        self, session: aiohttp.ClientSession, piece: str
    ) -> None:
        async with serve(answer_of(piece)) as server, post(session, server.service) as response:
            assert response.status == 500

    async def test_an_answer_of_empty_pieces_for_ever_is_one(
        self, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(deployment, "MAX_EMPTY_PIECES", 100)

        async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
            for piece in messages[-1].text:
                yield piece
            while True:
                yield ""

        async with serve(answer) as server:
            async with post(session, server.service, "") as response:
                assert response.status == 500
                assert "100 empty pieces" in str(error_of(await response.read()))
            async with post(session, server.service, "ab") as response:
                assert await chunks(response) == [b"a", b"b", MARKER]

    async def test_empty_pieces_between_others_are_none(
        self, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(deployment, "MAX_EMPTY_PIECES", 5)
        answer = answer_of(*["", "", "", "", "a"] * 10)
        async with serve(answer) as server, post(session, server.service) as response:
            assert await response.read() == b"a" * 10

    @pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, GeneratorExit])
    async def test_what_would_end_a_task_or_the_program_is_one(
        self,
        session: aiohttp.ClientSession,
        error: type[BaseException],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        answer = failing(error=error())
        async with serve(answer) as server, post(session, server.service) as response:
            assert response.status == 500
            message = {"message": error.__name__, "code": "Error"}
            assert error_of(await response.read()) == message
        answer = failing("Well", error=error())
        async with serve(answer) as server, post(session, server.service) as response:
            assert await chunks(response) == [b"Well", MARKER]
        assert [each.exc_info for each in caplog.records] == [None, None]

    @pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit])
    async def test_one_on_closing_lets_the_service_live(
        self, session: aiohttp.ClientSession, error: type[BaseException]
    ) -> None:
        closed = asyncio.Event()

        async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
            try:
                while True:
                    yield "x" * 100_000
            finally:
                closed.set()
                raise error

        async with serve(answer) as server:
            for _ in range(2):
                async with post(session, server.service) as response:
                    await response.content.readexactly(1)
                await in_time(closed.wait())
                closed.clear()

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

    @pytest.mark.parametrize("reset", [False, True], ids=["closes", "resets"])
    @pytest.mark.parametrize("pieces", [(), ("first",)], ids=["before a piece", "after it"])
    async def test_it_leaves_no_traceback_if_the_answer_goes_on(
        self, pieces: tuple[str, ...], reset: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        caller = socket.socket()
        closed = asyncio.Event()

        async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
            try:
                for piece in pieces:
                    yield piece
                if reset:
                    linger = struct.pack("ii", 1, 0)
                    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                caller.close()
                # The loop has not turned since, so it does not know yet that the caller has gone.
                for _ in range(100):
                    yield "x" * 100_000
                await asyncio.sleep(5)
            finally:
                closed.set()

        async with serve(answer) as server:
            body = signed(server.service).body
            caller.connect(("127.0.0.1", port_of(server)))
            caller.sendall(
                b"POST /api/generate HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            await in_time(closed.wait())
        assert not [each for each in caplog.records if each.levelno >= logging.WARNING]

    async def test_a_caller_who_does_not_read_is_let_go(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(requests, "SEND_TIMEOUT", 0.1)
        answer = Watched("x" * 10_000_000)
        async with serve(answer) as server:
            _, writer = await ask_reading_little(server)
            await in_time(answer.closed.wait())
            writer.transport.abort()
        assert not caplog.records

    async def test_it_ends_the_wait_for_a_body(self, caplog: pytest.LogCaptureFixture) -> None:
        async with serve() as server:
            _, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            writer.write(
                b"POST /api/generate HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 9\r\n\r\n{"
            )
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


class TestAStranger:
    @pytest.mark.parametrize(
        "data",
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
            b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n\r\n",
            b"POST /api/auth HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: x\r\n\r\n",
            b"POST / HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\nz\r\n",
        ],
    )
    async def test_what_is_not_http_is_a_bad_request_without_a_record(
        self, data: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serve() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            writer.write(data)
            assert (await reader.readline()).endswith(b" 400 Bad Request\r\n")
            writer.close()
            await writer.wait_closed()
        assert not [each for each in caplog.records if each.levelno >= logging.WARNING]

    async def test_an_error_of_the_services_own_keeps_its_traceback(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            requests.http_logger.exception("Unhandled exception")
        assert "ZeroDivisionError" in caplog.text

    async def test_callers_who_do_not_read_make_no_copies_of_a_large_piece(self) -> None:
        piece = "x" * 10_000_000
        begun = asyncio.Semaphore(0)

        async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
            begun.release()
            yield piece

        async with serve(answer) as server:
            tracemalloc.start()
            try:
                callers = [await ask_reading_little(server) for _ in range(10)]
                for _ in callers:
                    await in_time(begun.acquire())
                await asyncio.sleep(0.1)
                _, most = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert most < len(piece)
            for _, writer in callers:
                writer.transport.abort()

    async def test_a_large_piece_arrives_whole(self) -> None:
        piece = "aя🙂" * 100_000
        async with serve(answer_of(piece)) as server, Client(server.service) as client:
            assert await client.complete("Hi") == piece


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
