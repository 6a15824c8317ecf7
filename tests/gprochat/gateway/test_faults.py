"""What goes wrong between deployment, gateway and caller, at every byte and under load."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import count

import pytest

from gprochat.gateway.requests import API
from gprochat.server import serve
from gprochat_core import Message, RetryPolicy, Service
from tests.gprochat.server.serving import Watched, answer_of, in_time
from tests.peers.scripted import Script, ScriptedPeer, close, receive, reset, send
from tests.peers.wire import chunked

from .calling import KEY, PATHS, Answer, Caller, calling, model_of, models_of, request_of

pytestmark = pytest.mark.anyio

APIS: list[API] = ["chat", "responses"]
NEVER = RetryPolicy(max_attempts=1)

TEXT = "Héllo, Internal"
REPLY = chunked("Hé", "llo, ", "Internal")


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("ending", [close, reset], ids=["closed", "reset"])
async def test_a_reply_that_is_cut_at_any_byte_is_never_told_to_be_complete(
    api: API, stream: bool, ending: object
) -> None:
    steps = (ending,) if callable(ending) else ()
    scripts: list[Script] = [[receive, send(REPLY[:at]), *steps] for at in range(len(REPLY))]
    with ScriptedPeer(*scripts, [receive, send(REPLY)]) as peer:
        async with calling(models_of(peer.url), retry=NEVER) as caller:
            for at in range(len(REPLY)):
                reply = await caller.ask(api, stream=stream)
                check_broken(reply, at)
            whole = await caller.ask(api, stream=stream)
    assert whole.text == TEXT
    assert not stream or whole.complete


def check_broken(reply: Answer, at: int) -> None:
    if reply.headers["content-type"] == "application/json":
        assert reply.status in (502, 504), at
        arrived = reply.error.get("partial_text", "")
    else:
        assert not reply.complete, at
        arrived = reply.text
    assert reply.error["code"] in ("deployment_unreachable", "reply_truncated", "not_the_service")
    assert TEXT.startswith(arrived), at


async def never_ending(messages: tuple[Message, ...]) -> AsyncIterator[str]:
    yield "x" * 400
    for number in count():
        yield f" {number}"
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(("api", "step"), [("chat", 1), ("responses", 7)])
async def test_a_caller_who_leaves_at_any_byte_of_the_response_ends_the_reply(
    api: API, step: int
) -> None:
    request = written(api)

    async def ask(port: int, size: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        await reader.readexactly(size)
        writer.transport.abort()

    async with (
        serve(never_ending, grace=0.0) as server,
        calling(model_of(server.service)) as caller,
    ):
        port = int(caller.url.rpartition(":")[2])
        # The head and the events of the first piece.
        for first in range(0, 800, 50 * step):
            sizes = range(first, min(first + 50 * step, 800), step)
            await asyncio.gather(*(ask(port, size) for size in sizes))
        await until_idle(caller)
        reply = await caller.ask(stream=True, stop=" 3")
    assert reply.text == "x" * 400 + " 0 1 2"


@pytest.mark.parametrize("api", APIS)
async def test_a_caller_who_leaves_at_any_byte_of_the_request_leaves_nothing(api: API) -> None:
    request = written(api)
    async with (
        serve(never_ending, grace=0.0) as server,
        calling(model_of(server.service)) as caller,
    ):
        port = int(caller.url.rpartition(":")[2])
        for size in range(len(request) + 1):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request[:size])
            await asyncio.sleep(0)
            writer.transport.abort()
        await until_idle(caller)
        reply = await caller.ask(stream=True, stop=" 3")
    assert reply.text == "x" * 400 + " 0 1 2"


def written(api: API, *, stream: bool = True) -> bytes:
    body = json.dumps(request_of(api, stream=stream)).encode()
    head = (
        f"POST {PATHS[api]} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def until_idle(caller: Caller) -> None:
    for _ in range(1000):
        if not await live_replies(caller):
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


async def live_replies(caller: Caller) -> int:
    health = (await caller.send("GET", "/health")).json["deployments"]
    return sum(each["live_replies"] for each in health.values())


class Crowd:
    """A deployment that breaks every third reply, somewhere in the middle."""

    PIECES = tuple(f"piece {number} " for number in range(10))

    def __init__(self) -> None:
        self.asked = count()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        (length,) = (
            int(line.partition(b":")[2])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        )
        await reader.readexactly(length)
        number = next(self.asked)
        data = chunked(*self.PIECES)
        if number % 3 == 0:
            data = data[: len(data) // 2 + number % 100]
        for start in range(0, len(data), 40):
            writer.write(data[start : start + 40])
            await asyncio.sleep(0.01)
        writer.close()


async def test_of_five_hundred_streams_those_that_fail_harm_no_other() -> None:
    crowd = Crowd()
    server = await asyncio.start_server(crowd, "127.0.0.1", 0, backlog=1000)
    async with server:
        host, port = server.sockets[0].getsockname()[:2]
        service = Service(f"http://{host}:{port}", secret_key="k")
        async with calling(model_of(service), retry=NEVER, max_connections=600) as caller:
            asking = [caller.ask(APIS[at % 2], stream=True) for at in range(500)]
            replies = await asyncio.gather(*asking)
            assert await live_replies(caller) == 0
    text = "".join(crowd.PIECES)
    complete = [reply for reply in replies if reply.complete]
    broken = [reply for reply in replies if not reply.complete]
    assert (len(complete), len(broken)) == (333, 167)
    assert {reply.text for reply in complete} == {text}
    assert all(text.startswith(reply.text) and reply.text for reply in broken)
    assert {reply.error["code"] for reply in broken} == {"reply_truncated"}


async def test_a_caller_who_reads_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gprochat.server.requests.SEND_TIMEOUT", 0.1)
    watched = Watched("x" * 10_000_000)
    async with serve(watched) as server, calling(model_of(server.service)) as caller:
        port = int(caller.url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
        writer.write(written("chat"))
        await in_time(watched.closed.wait())
        writer.transport.abort()


class TestAWholeReply:
    SIZE = 10_000_000

    async def read_after(self, pause: float, size: int) -> int:
        """Ask, and read so many bytes after each pause; return how many there are."""
        got = 0
        async with (
            serve(answer_of("x" * self.SIZE)) as server,
            calling(model_of(server.service)) as caller,
        ):
            port = int(caller.url.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
            request = written("chat", stream=False)
            writer.write(request.replace(b"host:", b"connection: close\r\nhost:", 1))
            try:
                while True:
                    await asyncio.sleep(pause)
                    got += len(await reader.readexactly(size))
            except asyncio.IncompleteReadError as error:
                got += len(error.partial)
            except ConnectionError:
                pass
            writer.transport.abort()
        return got

    async def test_that_nobody_reads_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gprochat.server.requests.SEND_TIMEOUT", 0.1)
        assert await self.read_after(0.8, self.SIZE) < self.SIZE

    async def test_that_is_read_slowly_arrives(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gprochat.server.requests.SEND_TIMEOUT", 0.1)
        assert await self.read_after(0.02, 1_000_000) > self.SIZE
