"""One request after another: the core accepts or refuses it, and an answer's text streams out.

Each request runs under a time limit that is unlimited until the service stops. Stopping sets all
the limits to the end of the grace period, and needs no other mechanism.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from time import time_ns
from traceback import extract_tb
from typing import Final, TypeAlias

from aiohttp import web

from gprochat_core import Acceptance, Message, Refusal
from gprochat_core.acceptance import REPLY_CONTENT_TYPE, error_body, read_object
from gprochat_core.reply import FAILURE_MARKER

from .answers import Answer

__all__ = ["MAX_REQUEST_BYTES", "Deployment"]

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_REQUEST_BYTES: Final = 16 * 1024 * 1024
"""The largest request body that a service accepts by default."""

JSON_CONTENT_TYPE: Final = "text/plain;charset=UTF-8"
"""The content type that the family gives to JSON (docs/protocol.md, "Errors")."""

STOPPING: Final = "The service is stopping."

LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")

logger = logging.getLogger("gprochat.server")


class Failed(Refusal):
    """A request was accepted, but cannot be answered."""

    @property
    def body(self) -> bytes:
        """The body of the response, with the code that the family gives to such errors."""
        return error_body(self.message, "Error")


class Deployment:
    """Handles the requests to one service.

    Args:
        answer: makes the text of the replies.
        acceptance: accepts or refuses requests.
    """

    def __init__(self, answer: Answer, acceptance: Acceptance) -> None:
        self._answer = answer
        self._acceptance = acceptance
        self._under_way: set[asyncio.Future[None]] = set()
        self._limits: set[asyncio.Timeout] = set()
        self._stopping = False

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """Answer `POST /api/generate`."""
        response = web.StreamResponse(headers={"content-type": REPLY_CONTENT_TYPE})
        try:
            async with self._until_stopped():
                body = await read(request)
                messages, _ = self._acceptance.accept(body, time_ns() // 1_000_000)
                logger.debug("accepted %d bytes, %d messages", len(body), len(messages))
                await self._stream(request, response, messages)
        except Refusal:
            if not response.prepared:
                raise
            await response.write(FAILURE_MARKER.encode())
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof()
        return response

    async def authenticate(self, request: web.Request) -> web.Response:
        """Answer `POST /api/auth`."""
        async with self._until_stopped():
            password = read_object(await read(request)).get("pass")
        code = 0 if self._acceptance.is_password(password) else -1
        return json_response(200, b'{"code":%d}' % code)

    @web.middleware
    async def watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count a request as under way until it is answered, and answer one that is refused."""
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way.add(answered)
        try:
            if self._stopping:
                raise Failed(503, STOPPING)
            return await handler(request)
        except Refusal as refusal:
            return json_response(refusal.status, refusal.body)
        finally:
            self._under_way.discard(answered)
            answered.set_result(None)

    async def end(self, grace: float, last_words: float) -> None:
        """Stop accepting requests, and wait until those under way have ended.

        Args:
            grace: how many seconds they have to finish; then they are ended.
            last_words: how many seconds more to wait for clients to read the end of their reply.
        """
        self._stopping = True
        self._end_at(asyncio.get_running_loop().time() + grace)
        if self._under_way:
            logger.info("stopping, %d requests under way", len(self._under_way))
            await asyncio.wait(self._under_way, timeout=grace + last_words)

    def end_now(self) -> None:
        """End the requests under way without delay."""
        self._end_at(asyncio.get_running_loop().time())

    def _end_at(self, when: float) -> None:
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(when)

    @asynccontextmanager
    async def _until_stopped(self) -> AsyncGenerator[None, None]:
        limit = asyncio.timeout(None)
        self._limits.add(limit)
        try:
            async with limit:
                yield
        except TimeoutError:
            raise Failed(503, STOPPING) from None
        finally:
            self._limits.discard(limit)

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, messages: tuple[Message, ...]
    ) -> None:
        size = 0
        try:
            async with aclosing(encoded(self._answer, messages)) as pieces:
                async for piece in pieces:
                    if not response.prepared:
                        await response.prepare(request)
                    await response.write(piece)
                    size += len(piece)
                    # Let other tasks run even if the answer itself never waits.
                    await asyncio.sleep(0)
        finally:
            logger.debug("streamed %d bytes", size)


async def encoded(answer: Answer, messages: tuple[Message, ...]) -> AsyncGenerator[bytes, None]:
    """Yield the pieces of an answer in UTF-8, and close the answer at the end.

    Raises:
        Failed: the answer raised an exception.
    """
    pieces: AsyncIterator[str] | None = None
    try:
        pieces = answer(messages)
        async for piece in pieces:
            if piece:
                yield LONE_SURROGATE.sub("\ufffd", piece).encode()
    except Exception as error:
        log_failure(error)
        raise Failed(500, str(error) or type(error).__name__) from error
    finally:
        if isinstance(pieces, AsyncGenerator):
            try:
                await pieces.aclose()
            except Exception as error:
                log_failure(error)


def log_failure(error: Exception) -> None:
    # The exception's text is left out of the log: it may quote the conversation.
    *_, place = extract_tb(error.__traceback__)
    logger.warning(
        "an answer failed: %s at %s:%s", type(error).__name__, Path(place.filename), place.lineno
    )


async def read(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise Refusal(413, "Request body too large.") from None


def json_response(status: int, body: bytes) -> web.Response:
    logger.debug("answered %d", status)
    return web.Response(status=status, body=body, headers={"content-type": JSON_CONTENT_TYPE})
