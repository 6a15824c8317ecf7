"""Connections at the limit, slow heads, handshakes, and a lack of descriptors."""

import asyncio
import errno
import socket
import time
from typing import Any, cast

import aiohttp
import pytest

from gprochat.server import Server, listener, serve
from gprochat.server.listener import Strangers, bind, default_max_connections
from gprochat_transports.aiohttp import Client
from tests.peers.tls import Authority

from .serving import Watched, port_of, post

pytestmark = pytest.mark.anyio

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(server: Server, data: bytes = b"") -> Connection:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    writer.write(data)
    return reader, writer


async def is_closed(connection: Connection, within: float = 5.0) -> bool:
    reader, _ = connection
    try:
        return await asyncio.wait_for(reader.read(1), within) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


class Connected:
    """As much of a connection as `Strangers` looks at."""

    transport: object = object()


def abort(*connections: Connection) -> None:
    for _, writer in connections:
        writer.transport.abort()


class TestAtTheLimit:
    async def test_the_connection_silent_for_the_longest_makes_room(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serve(max_connections=2) as server:
            first, second = await connect(server), await connect(server)
            await asyncio.sleep(0.02)
            # The first connection is no longer silent.
            first[1].write(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            await first[0].readuntil(b"404: Not Found")
            third = await connect(server)
            assert await is_closed(second)
            assert not await is_closed(first, 0.05)
            assert not await is_closed(third, 0.01)
            abort(first, second, third)
        assert caplog.messages[-1] == "turned away: 1 connections beyond the limit"

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"POST /api/gen",
            b"POST /api/generate HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 99\r\n\r\n{",
        ],
        ids=["silent", "slow head", "slow body"],
    )
    async def test_slow_connections_keep_nobody_out_and_take_one_line(
        self, data: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serve(max_connections=10) as server:
            slow: list[Connection] = []
            for _ in range(10):
                slow += [await connect(server, data) for _ in range(10)]
                async with (
                    aiohttp.ClientSession() as session,
                    post(session, server.service) as response,
                ):
                    assert await response.read() == b"Hi"
            closed = await asyncio.gather(*[is_closed(each, 0.5) for each in slow])
            assert sum(closed) >= 90
            assert len(caplog.records) == 1
            abort(*slow)

    async def test_replies_are_never_cut_for_it(self, session: aiohttp.ClientSession) -> None:
        answer = Watched("first ", rest="second")
        async with (
            serve(answer, max_connections=1) as server,
            post(session, server.service) as response,
        ):
            await response.content.readexactly(len("first "))
            for _ in range(3):
                connection = await connect(server)
                assert await is_closed(connection)
                abort(connection)
            answer.proceed.set()
            assert await response.read() == b"second"

    async def test_a_connection_whose_reply_has_ended_makes_room(
        self, session: aiohttp.ClientSession
    ) -> None:
        async with serve(max_connections=1) as server:
            async with post(session, server.service) as response:
                await response.read()
            connection = await connect(server)
            assert not await is_closed(connection, 0.05)
            abort(connection)

    async def test_a_handshake_makes_room_too(self) -> None:
        authority = Authority()
        async with serve(ssl_context=authority.server_context(), max_connections=3) as server:
            silent = [await connect(server) for _ in range(10)]
            context = authority.client_context()
            async with Client(server.service, ssl_context=context) as client:
                assert await client.complete("Hi") == "Hi"
            abort(*silent)

    def test_a_third_of_the_descriptors_is_the_most_by_default(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        resource = pytest.importorskip("resource")
        for descriptors, limit in [(256, 85), (20_000, 1000), (resource.RLIM_INFINITY, 1000)]:
            monkeypatch.setattr(resource, "getrlimit", lambda _, soft=descriptors: (soft, soft))
            assert default_max_connections() == limit

    def test_closed_connections_are_forgotten(self) -> None:
        strangers = Strangers(10)
        for _ in range(1000):
            each = cast("Any", Connected())
            strangers.heard(each)
            each.transport = None
            assert len(strangers._connections) <= 20


class TestTime:
    @pytest.mark.parametrize("data", [b"", b"POST /api/gen"], ids=["silent", "slow head"])
    async def test_a_connection_without_a_whole_head_ends(self, data: bytes) -> None:
        async with serve(request_timeout=0.1) as server:
            begun = time.monotonic()
            connection = await connect(server, data)
            assert await is_closed(connection)
            assert time.monotonic() - begun < 1
            abort(connection)

    async def test_dripping_bytes_of_a_head_does_not_help(self) -> None:
        async with serve(request_timeout=0.2) as server:
            connection = await connect(server, b"GET / HTTP/1.1\r\n")

            async def drip() -> None:
                while True:
                    connection[1].write(b"x: y\r\n")
                    await asyncio.sleep(0.02)

            dripping = asyncio.create_task(drip())
            assert await is_closed(connection, 1)
            dripping.cancel()
            abort(connection)

    async def test_an_idle_connection_ends(self, session: aiohttp.ClientSession) -> None:
        async with serve(request_timeout=0.1) as server:
            connection = await connect(server, b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            await connection[0].readuntil(b"404: Not Found")
            assert await is_closed(connection, 1)
            abort(connection)

    async def test_a_long_reply_does_not(self, session: aiohttp.ClientSession) -> None:
        answer = Watched("first ", rest="second")
        async with (
            serve(answer, request_timeout=0.1) as server,
            post(session, server.service) as response,
        ):
            await asyncio.sleep(0.3)
            answer.proceed.set()
            assert await response.read() == b"first second"

    async def test_a_handshake_that_does_not_come_ends(self) -> None:
        context = Authority().server_context()
        async with serve(ssl_context=context, request_timeout=0.1) as server:
            connection = await connect(server)
            assert await is_closed(connection, 1)
            abort(connection)

    async def test_what_is_not_tls_is_closed_without_a_record(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serve(ssl_context=Authority().server_context()) as server:
            connection = await connect(server, b"GET / HTTP/1.1\r\n\r\n")
            assert await is_closed(connection)
            abort(connection)
        assert not caplog.records


class TestAccepting:
    async def test_a_lack_of_descriptors_is_one_line_and_passes(
        self,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        session: aiohttp.ClientSession,
    ) -> None:
        monkeypatch.setattr(listener, "ACCEPT_PAUSE", 0.01)
        loop = asyncio.get_running_loop()
        sock_accept = loop.sock_accept
        failures = 5

        async def accept(listening: socket.socket) -> tuple[socket.socket, Any]:
            nonlocal failures
            if failures:
                failures -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return await sock_accept(listening)

        monkeypatch.setattr(loop, "sock_accept", accept)
        async with serve() as server:
            async with post(session, server.service) as response:
                assert response.status == 200
            assert caplog.messages == ["turned away: 1 connections that could not be accepted"]

    async def test_a_lack_of_descriptors_closes_a_stranger(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with serve() as server:
            stranger = await connect(server)
            await asyncio.sleep(0.02)
            loop = asyncio.get_running_loop()

            async def accept(listening: socket.socket) -> tuple[socket.socket, Any]:
                raise OSError(errno.EMFILE, "Too many open files")

            monkeypatch.setattr(loop, "sock_accept", accept)
            # The accept under way before still succeeds.
            other = await connect(server)
            assert await is_closed(stranger)
            abort(stranger, other)

    async def test_each_address_of_a_host_has_the_same_port(self) -> None:
        sockets = await bind("localhost", 0)
        assert len({each.getsockname()[1] for each in sockets}) == 1
        for each in sockets:
            each.close()

    async def test_no_socket_is_left_open_if_one_cannot_be(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[socket.socket] = []
        create_server = socket.create_server

        def create(*args: Any, **kwargs: Any) -> socket.socket:
            if made:
                raise OSError(errno.EADDRINUSE, "Address already in use")
            made.append(create_server(*args, **kwargs))
            return made[0]

        async def two(*args: object, **kwargs: object) -> object:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0)) for each in LOOPBACKS]

        monkeypatch.setattr(socket, "create_server", create)
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", two)
        with pytest.raises(OSError, match="in use"):
            await bind("localhost", 0)
        assert made[0].fileno() == -1

    @pytest.mark.parametrize("code", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
    async def test_an_address_that_the_machine_does_not_have_is_left_out(
        self, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        create_server = socket.create_server

        def create(address: tuple[str, int], **kwargs: Any) -> socket.socket:
            if address[0] == LOOPBACKS[0]:
                raise OSError(code, "no such address")
            return create_server(address, **kwargs)

        async def two(*args: object, **kwargs: object) -> object:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0)) for each in addresses]

        monkeypatch.setattr(socket, "create_server", create)
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", two)
        addresses = list(LOOPBACKS)
        (listening,) = await bind("localhost", 0)
        assert listening.getsockname()[0] == LOOPBACKS[1]
        listening.close()
        addresses = [LOOPBACKS[0]]
        with pytest.raises(OSError, match="no such address"):
            await bind("localhost", 0)


LOOPBACKS = ("127.0.0.2", "127.0.0.1")
