"""Answers to serve, requests to send, and services to stop, for the tests of the service."""

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp

from gprochat.server import (
    Answer,
    Server,
    serve,
)
from gprochat_core import (
    Conversation,
    Draft,
    Message,
    Request,
    Service,
)
from gprochat_core.messages import read_messages

__all__ = [
    "MARKER",
    "OPEN_FILES",
    "Watched",
    "answer_of",
    "ask_reading_little",
    "chunks",
    "error_of",
    "failing",
    "in_time",
    "open_files",
    "port_of",
    "post",
    "send",
    "serving",
    "signed",
]

OPEN_FILES = "/proc/self/fd"
MARKER = b"Internal server error"


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
    """An answer that yields its pieces, waits for `proceed`, and records what happens to it."""

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
    """Post a request, with some fields of its body changed."""
    body = json.dumps({**json.loads(request.body), **changes}).encode() if changes else request.body
    return session.post(request.url, headers=request.headers, data=body)


async def chunks(response: aiohttp.ClientResponse) -> list[bytes]:
    """The chunks of the body, as the service wrote them."""
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


@asynccontextmanager
async def serving(
    answer: Answer, *, grace: float
) -> AsyncGenerator[tuple[Server, Callable[[], "asyncio.Task[None]"]], None]:
    """A service in a task of its own, and a function that stops it and returns the task."""
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
