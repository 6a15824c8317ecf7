"""Bodies of requests: too slow, too long, too many at once, or broken."""

import asyncio
import threading
import time
from types import NoneType, SimpleNamespace
from typing import cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from hypothesis import given
from hypothesis import strategies as st

from gprochat.server import Server, deployment, serve
from gprochat.server.bodies import Bodies
from gprochat.server.tally import Tally
from gprochat_core import Acceptance, Refusal
from gprochat_core.acceptance import Accepted

from .serving import answer_of, error_of, in_time, port_of, post, send, signed

pytestmark = pytest.mark.anyio

HEAD = b"POST /api/generate HTTP/1.1\r\nhost: 127.0.0.1\r\n"


async def begin(server: Server, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    writer.write(data)
    await writer.drain()
    return reader, writer


async def status(reader: asyncio.StreamReader) -> int:
    async with asyncio.timeout(5):
        return int((await reader.readline()).split()[1])


class TestABodyThatIsSlow:
    async def test_it_is_refused_in_time_and_its_connection_closed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gprochat.server.lifecycle.LINGERING_TIME", 0.1)
        async with serve(request_timeout=0.2, min_body_rate=1000) as server:
            begun = time.monotonic()
            reader, writer = await begin(server, HEAD + b"content-length: 1000\r\n\r\n{")
            assert await status(reader) == 408
            assert b"arrived too slowly" in await reader.read()
            assert time.monotonic() - begun < 2
            writer.close()
            await writer.wait_closed()

    async def test_dripping_bytes_does_not_help(self) -> None:
        async with serve(request_timeout=0.2, min_body_rate=1000) as server:
            reader, writer = await begin(server, HEAD + b"content-length: 1000\r\n\r\n")

            async def drip() -> None:
                while True:
                    writer.write(b" ")
                    await asyncio.sleep(0.02)

            dripping = asyncio.create_task(drip())
            assert await status(reader) == 408
            dripping.cancel()
            writer.transport.abort()

    async def test_at_the_minimum_rate_it_may_take_longer_than_the_limit(self) -> None:
        async with serve(request_timeout=0.2, min_body_rate=1000) as server:
            body = signed(server.service, "x" * 500).body
            reader, writer = await begin(
                server, HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
            )
            for start in range(0, len(body), 100):
                writer.write(body[start : start + 100])
                await asyncio.sleep(0.05)
            assert await status(reader) == 200
            writer.close()
            await writer.wait_closed()


class TestBodiesTogether:
    async def test_the_oldest_unfinished_is_given_up_for_a_younger(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serve(max_unfinished_bytes=3000) as server:
            unfinished = HEAD + b"content-length: 2000\r\n\r\n" + b" " * 1200
            oldest, *others = [await begin(server, unfinished) for _ in range(3)]
            assert await status(oldest[0]) == 503
            for reader, _ in others:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(reader.readline(), 0.05)
            for _, writer in [oldest, *others]:
                writer.transport.abort()
        assert caplog.messages[-1] == "turned away: 1 requests in favour of younger ones"

    async def test_others_are_answered_meanwhile(self, session: aiohttp.ClientSession) -> None:
        async with serve(max_unfinished_bytes=3000) as server:
            unfinished = HEAD + b"content-length: 2000\r\n\r\n" + b" " * 1200
            slow = [await begin(server, unfinished) for _ in range(10)]
            for _ in range(3):
                async with post(session, server.service) as response:
                    assert response.status == 200
            for _, writer in slow:
                writer.transport.abort()

    async def test_what_is_finished_counts_no_more(self, session: aiohttp.ClientSession) -> None:
        async with serve(max_unfinished_bytes=1000) as server:
            for _ in range(5):
                async with post(session, server.service, "x" * 500) as response:
                    assert response.status == 200
                async with send(session, signed(server.service, "x" * 500), sign="0") as response:
                    assert response.status == 401


Step = tuple[str, int, int]

MOMENTS: st.SearchStrategy[list[list[Step]]] = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(["piece"] * 6 + ["end", "break", "cancel", "accept"]),
            st.integers(0, 3),
            st.integers(1, 5),
        ),
        min_size=1,
        max_size=4,
    ),
    max_size=12,
)
"""Steps that happen at the same moment: what to do, with which body, how many bytes."""


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class OneBody:
    """A body that arrives piece by piece, and the task that reads and then accepts it."""

    def __init__(self, bodies: Bodies) -> None:
        protocol = BaseProtocol(asyncio.get_running_loop())
        protocol.connection_made(asyncio.Transport())
        self.content = aiohttp.StreamReader(protocol, 10_000)
        self.accepted = asyncio.Event()
        self.sent = 0
        self.reading = asyncio.create_task(self.read(bodies))

    async def read(self, bodies: Bodies) -> None:
        request = SimpleNamespace(content_length=None, content=self.content)
        async with bodies.read(cast("web.Request", request)):
            await self.accepted.wait()

    def take(self, step: str, size: int) -> None:
        if step == "cancel":
            self.reading.cancel()
        elif step == "accept":
            self.accepted.set()
        elif self.content.exception() or self.content.is_eof():
            pass
        elif step == "piece":
            self.content.feed_data(b"x" * size)
            self.sent += size
        elif step == "end":
            self.content.feed_eof()
        elif step == "break":
            self.content.set_exception(web.RequestPayloadError("bad chunk"))


class TestTheCountOfUnfinishedBytes:
    @given(MOMENTS)
    async def test_it_is_the_size_of_the_bodies_under_way(self, moments: list[list[Step]]) -> None:
        bodies = Bodies(Tally(), max_bytes=7, max_unfinished_bytes=10, timeout=60, min_rate=1)
        each = [OneBody(bodies) for _ in range(4)]
        await settle()
        for steps in moments:
            for step, which, size in steps:
                each[which].take(step, size)
            await settle()
            held = sum(body.sent for body in each if not body.reading.done())
            assert bodies._unfinished_bytes == held <= 10
        for body in each:
            body.reading.cancel()
        outcomes = await asyncio.gather(*[body.reading for body in each], return_exceptions=True)
        assert bodies._unfinished_bytes == 0
        for outcome in outcomes:
            assert isinstance(outcome, (Refusal, asyncio.CancelledError, NoneType))


class TestABodyThatIsBroken:
    async def test_it_is_a_bad_request(self) -> None:
        # aiohttp's parser in Python reports a bad chunk so; its parser in C lets the body wait.
        content = aiohttp.StreamReader(BaseProtocol(asyncio.get_running_loop()), 1)
        content.set_exception(web.RequestPayloadError("bad chunk"))
        bodies = Bodies(Tally(), max_bytes=9, max_unfinished_bytes=9, timeout=5, min_rate=1)
        request = SimpleNamespace(content_length=None, content=content)
        with pytest.raises(Refusal) as caught:
            async with bodies.read(cast("web.Request", request)):
                pytest.fail("there is no body")
        assert caught.value.status == 400

    async def test_without_a_record_it_ends_in_time(self, caplog: pytest.LogCaptureFixture) -> None:
        async with serve(request_timeout=0.1) as server:
            head = HEAD + b"transfer-encoding: chunked\r\n\r\n"
            reader, writer = await begin(server, head + b"2\r\n{ \r\n")
            await asyncio.sleep(0.02)
            writer.write(b"zz\r\n")
            assert await status(reader) in (400, 408)
            writer.transport.abort()
        assert not [each for each in caplog.records if each.exc_info]

    async def test_an_announced_length_beyond_the_limit_is_refused_at_once(self) -> None:
        async with serve() as server:
            reader, writer = await begin(server, HEAD + b"content-length: 3000000\r\n\r\n")
            assert await status(reader) == 413
            writer.transport.abort()


class TestALargeBody:
    async def test_it_is_parsed_in_another_thread(
        self, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        threads: list[bool] = []
        accept = Acceptance.accept

        def recording(self: Acceptance, body: bytes, now_ms: int) -> Accepted:
            threads.append(threading.current_thread() is threading.main_thread())
            return accept(self, body, now_ms)

        monkeypatch.setattr(Acceptance, "accept", recording)
        async with serve(answer_of("Hello")) as server:
            for text in ("x" * deployment.LARGE_BODY, "x"):
                async with post(session, server.service, text) as response:
                    assert response.status == 200
            request = signed(server.service, "x" * deployment.LARGE_BODY)
            async with send(session, request, sign="0") as response:
                assert error_of(await response.read()) == {"message": "Invalid signature."}
        assert threads == [False, True, False]

    async def test_another_is_parsed_after_it(
        self, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        under_way, most = 0, 0
        accept = Acceptance.accept

        def recording(self: Acceptance, body: bytes, now_ms: int) -> Accepted:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            time.sleep(0.02)
            under_way -= 1
            return accept(self, body, now_ms)

        monkeypatch.setattr(Acceptance, "accept", recording)
        async with serve(answer_of("Hello")) as server:

            async def ask() -> None:
                async with post(session, server.service, "x" * deployment.LARGE_BODY) as response:
                    assert response.status == 200
                    await response.read()

            await in_time(asyncio.gather(*[ask() for _ in range(5)]))
        assert most == 1
