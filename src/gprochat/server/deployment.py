"""Handles requests: the core accepts or refuses each one, and an answer's text streams out."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from time import time_ns
from traceback import extract_tb
from typing import Final, TypeAlias, TypeVar

from aiohttp import web

from gprochat_core import Acceptance, Message, Refusal
from gprochat_core.acceptance import (
    REPLY_CONTENT_TYPE,
    WRONG_PASSWORD,
    WRONG_SIGNATURE,
    read_object,
)
from gprochat_core.reply import FAILURE_MARKER

from .answers import Answer
from .bodies import Bodies
from .guesses import Guesses
from .hosts import Hosts
from .replays import Replays
from .requests import Failed, Requests, send

__all__ = ["Deployment"]

T = TypeVar("T")

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

LARGE_BODY: Final = 64 * 1024
"""A body of so many bytes or more is parsed in another thread."""

JSON_CONTENT_TYPE: Final = "text/plain;charset=UTF-8"
"""The content type that the family gives to JSON (docs/protocol.md, "Errors")."""

MAX_CHUNK: Final = 64 * 1024
"""The most characters of a reply that are encoded and written at once."""

MAX_EMPTY_PIECES: Final = 100_000
"""How many empty pieces in a row an answer may yield; more would never become a reply."""

ANSWERS_OWN: Final = (Exception, asyncio.CancelledError, SystemExit, GeneratorExit)
"""What an answer may raise without ending the service; KeyboardInterrupt is the user's."""

LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")

logger: logging.Logger = logging.getLogger("gprochat.server")


class Deployment:
    """Handles the requests to one service.

    Args:
        answer: makes the text of the replies.
        acceptance: accepts or refuses requests.
        hosts: refuses requests from pages of other sites.
        bodies: reads the requests.
        requests: counts and ends requests, and is told which connections have an accepted one.
        replays: refuses a signature that has been seen; None to accept it again.
    """

    def __init__(
        self,
        answer: Answer,
        acceptance: Acceptance,
        hosts: Hosts,
        bodies: Bodies,
        requests: Requests,
        replays: Replays | None,
    ) -> None:
        self._answer = answer
        self._acceptance = acceptance
        self._hosts = hosts
        self._bodies = bodies
        self._requests = requests
        self._replays = replays
        self._guesses = Guesses()
        self._parsing = asyncio.Lock()

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """Answer `POST /api/generate`."""
        response = web.StreamResponse(headers={"content-type": REPLY_CONTENT_TYPE})
        try:
            async with self._requests.until_stopped():
                messages = await self._accept(request)
                self._requests.strangers.accepted(request.protocol)
                await self._stream(request, response, messages)
        except Refusal:
            if not response.prepared:
                raise
            await send(request, response.write(FAILURE_MARKER.encode()))
        if not response.prepared:
            await response.prepare(request)
        await send(request, response.write_eof())
        return response

    async def authenticate(self, request: web.Request) -> web.Response:
        """Answer `POST /api/auth`."""
        async with self._requests.until_stopped(), self._bodies.read(request) as body:
            password = (await self._parse(request, read_object, body)).get("pass")
            await self._guesses.wait(request)
        if self._acceptance.is_password(password):
            return json_response(200, b'{"code":0}')
        self._guesses.wrong(request)
        return json_response(200, b'{"code":-1}')

    @web.middleware
    async def watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count a request as under way until it is answered, and answer one that is refused."""
        with self._requests.answering(request):
            try:
                self._requests.check()
                self._hosts.check(request)
                if request.headers.get("content-encoding", "identity").lower() != "identity":
                    # A few bytes may inflate to any number, before anybody has signed anything.
                    raise Refusal(415, "Compressed requests are not accepted.")
                return await handler(request)
            except Refusal as refusal:
                return json_response(refusal.status, refusal.body)
            except ConnectionError:
                # The caller has gone; aiohttp finds that out when it sends this response.
                return web.Response()

    async def _accept(self, request: web.Request) -> tuple[Message, ...]:
        async with self._bodies.read(request) as body:
            await self._guesses.wait(request)
            now_ms = time_ns() // 1_000_000
            try:
                accepted = await self._parse(
                    request, lambda body: self._acceptance.accept(body, now_ms), body
                )
            except Refusal as refusal:
                if refusal.message == WRONG_PASSWORD:
                    self._guesses.wrong(request)
                raise
        if self._replays and not self._replays.is_new(accepted.signature, accepted.time_ms):
            raise Refusal(401, WRONG_SIGNATURE)
        logger.debug("accepted %d bytes, %d messages", len(body), len(accepted.messages))
        return accepted.messages

    async def _parse(self, request: web.Request, parse: Callable[[bytes], T], body: bytes) -> T:
        if len(body) < LARGE_BODY:
            return parse(body)
        # One at a time: threads share the interpreter, and large bodies from strangers must not
        # take all of it.
        async with self._parsing:
            # While this request waited, the passwords of those before it may have been wrong.
            self._guesses.check(request)
            return await asyncio.to_thread(parse, body)

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, messages: tuple[Message, ...]
    ) -> None:
        size = 0
        pieces = Pieces(self._answer, messages)
        try:
            async for piece in pieces:
                # Part by part: a caller who does not read must not make a copy of a large piece.
                for start in range(0, len(piece), MAX_CHUNK):
                    part = piece[start : start + MAX_CHUNK]
                    data = LONE_SURROGATE.sub("\ufffd", part).encode()
                    if not response.prepared:
                        await response.prepare(request)
                    await send(request, response.write(data))
                    size += len(data)
                # Let other tasks run even if the answer itself never waits.
                await asyncio.sleep(0)
        finally:
            await pieces.aclose()
            logger.debug("streamed %d bytes", size)


class Pieces:
    """Iterates over the pieces of an answer that are not empty.

    Raises:
        Failed: the answer raised an exception, yielded something else than text, or yielded
            nothing but empty pieces.
    """

    def __init__(self, answer: Answer, messages: tuple[Message, ...]) -> None:
        self._answer = answer
        self._messages = messages
        self._pieces: AsyncIterator[str] | None = None

    def __aiter__(self) -> "Pieces":
        return self

    async def __anext__(self) -> str:
        try:
            if self._pieces is None:
                pieces = self._answer(self._messages)
                if isinstance(pieces, Coroutine):
                    pieces.close()
                if not isinstance(pieces, AsyncIterator):
                    raise TypeError("an answer is a function with `async def` and `yield`")
                self._pieces = pieces
            for _ in range(MAX_EMPTY_PIECES):
                piece = await anext(self._pieces)
                if not isinstance(piece, str):
                    raise TypeError(f"an answer yields str, not {type(piece).__name__}")
                if piece:
                    return piece
                await asyncio.sleep(0)
            raise ValueError(f"the answer yielded {MAX_EMPTY_PIECES} empty pieces one by one")
        except StopAsyncIteration:
            raise
        except ANSWERS_OWN as error:
            raise failure(error) from error

    async def aclose(self) -> None:
        """Close the answer; an exception that it raises meanwhile is logged."""
        pieces = self._pieces
        if isinstance(pieces, AsyncGenerator):
            try:
                await pieces.aclose()
            except ANSWERS_OWN as error:
                failure(error)


def failure(error: BaseException) -> Failed:
    """Log an exception of an answer, and return the error for its client; raise a cancellation."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        # The request was cancelled, and not the answer by itself.
        raise error
    # The exception's text is left out of the log: it may quote the conversation.
    *_, place = extract_tb(error.__traceback__)
    logger.warning(
        "an answer failed: %s at %s:%s", type(error).__name__, Path(place.filename), place.lineno
    )
    return Failed(500, str(error) or type(error).__name__)


def json_response(status: int, body: bytes) -> web.Response:
    logger.debug("answered %d", status)
    return web.Response(status=status, body=body, headers={"content-type": JSON_CONTENT_TYPE})
