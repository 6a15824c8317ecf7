"""Where a service listens, and how it stops."""

import asyncio
import gc
import logging
import os
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anyio
import pytest

from gprochat.server import (
    echo,
    lifecycle,
    serve,
)
from gprochat_core import (
    ConfigurationError,
    Message,
)
from gprochat_transports.aiohttp import Client
from tests.peers.tls import Authority

from .serving import (
    MARKER,
    OPEN_FILES,
    Watched,
    ask_reading_little,
    chunks,
    error_of,
    in_time,
    open_files,
    port_of,
    post,
    send,
    serving,
    signed,
)

pytestmark = pytest.mark.anyio

with_ipv6 = pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")


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
            pytest.param("::1", "http://[::1]:", marks=with_ipv6),
            pytest.param("::", "http://[::1]:", marks=with_ipv6),
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

    @pytest.mark.parametrize(
        "setting",
        [
            {"freshness_ms": -1},
            {"max_connections": 0},
            {"max_request_bytes": 0},
            {"max_unfinished_bytes": -1},
            {"request_timeout": 0},
            {"min_body_rate": 0},
            {"replay": "never"},
        ],
        ids=lambda setting: next(iter(setting)),
    )
    async def test_an_unusable_setting_is_refused_before_it_listens(
        self, setting: dict[str, Any]
    ) -> None:
        with pytest.raises(ConfigurationError, match=next(iter(setting))):
            async with serve(**setting):
                pass


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
                # This request opens a second connection, which then is idle and stays open.
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
        monkeypatch.setattr(lifecycle, "LAST_WORDS_TIMEOUT", 0.1)
        async with serving(echo, grace=0.05) as (server, end):
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            writer.write(
                b"POST /api/auth HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 9\r\n\r\n{"
            )
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

    @pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"])
    async def test_a_tls_connection_that_is_open_is_closed(self, sent: bytes) -> None:
        authority = Authority()
        async with serve(ssl_context=authority.server_context()) as server:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port_of(server), ssl=authority.client_context()
            )
            writer.write(sent)
            await asyncio.sleep(0.05)
            begun = time.monotonic()
        assert time.monotonic() - begun < 1
        await in_time(reader.read())
        writer.close()
        await writer.wait_closed()

    async def test_a_client_that_reads_nothing_does_not_hold_it_up(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lifecycle, "LAST_WORDS_TIMEOUT", 0.1)
        answer = Watched(*["x" * 1_000_000] * 50)
        async with serving(answer, grace=0.0) as (server, end):
            reader, writer = await ask_reading_little(server)
            await reader.readline()
            files = open_files()
            await in_time(end())
            assert answer.closed.is_set()
            # The listening socket and the connection are closed.
            assert len(files - open_files()) == 2
            writer.transport.abort()

    async def test_an_answer_that_does_not_close_does_not_hold_it_up(
        self, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lifecycle, "LAST_WORDS_TIMEOUT", 0.1)
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


class TestTheLog:
    async def test_it_warns_that_with_an_empty_key_anybody_can_sign(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serve(secret_key="") as server, Client(server.service) as client:
            assert caplog.messages == ["the secret key is empty: anybody can sign requests"]
            assert await client.complete("Hi") == "Hi"

    async def test_it_tells_start_and_stop(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "gprochat.server")
        async with serve() as server:
            assert caplog.messages == [f"serving at {server.url}"]
        assert caplog.messages[-1] == "stopped"
