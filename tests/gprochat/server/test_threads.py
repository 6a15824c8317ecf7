"""A service in a thread of its own."""

import socket
import threading
from collections.abc import AsyncIterator

import pytest

from gprochat.server import in_thread, serve
from gprochat_core import (
    ConfigurationError,
    Message,
)
from gprochat_transports.aiohttp import Client

from .serving import (
    port_of,
)

pytestmark = pytest.mark.anyio


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
