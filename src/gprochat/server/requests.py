"""Requests under way: counted until they are answered, and ended when the service stops.

Each request runs under a time limit that is unlimited until the service stops. Stopping sets all
the limits to the end of the grace period, and needs no other mechanism.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from aiohttp import web
from aiohttp.http import HttpProcessingError

from gprochat_core import Refusal
from gprochat_core.acceptance import error_body

from .listener import Strangers

__all__ = ["Failed", "Requests", "http_logger", "send", "send_whole"]

STOPPING: Final = "The service is stopping."

SEND_TIMEOUT: Final = 60.0
"""Seconds for which a caller may read nothing of a reply that waits for it."""

MAX_PART: Final = 64 * 1024
"""The most bytes of a complete response that must be read within `SEND_TIMEOUT`."""

logger: logging.Logger = logging.getLogger("gprochat.server")

http_logger: logging.Logger = logging.getLogger("gprochat.server.http")
"""aiohttp logs here what goes wrong on a connection."""


def is_worth_a_record(record: logging.LogRecord) -> bool:
    # Anybody can send what is not HTTP; aiohttp would log an error with a traceback each time.
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


http_logger.addFilter(is_worth_a_record)


class Failed(Refusal):
    """A request was accepted, but cannot be answered."""

    @property
    def body(self) -> bytes:
        """The body of the response, with the code that the family gives to such errors."""
        return error_body(self.message, "Error")


class Requests:
    """The requests that a service is answering.

    Args:
        strangers: is told which connections are answered, and which are idle again.
    """

    def __init__(self, strangers: Strangers) -> None:
        self.strangers = strangers
        self._under_way: set[asyncio.Future[None]] = set()
        self._limits: set[asyncio.Timeout] = set()
        self._stopping = False

    @contextmanager
    def answering(self, request: web.Request) -> Generator[None, None, None]:
        """Count a request as under way until the block is left."""
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way.add(answered)
        self.strangers.heard(request.protocol)
        try:
            yield
        finally:
            self.strangers.heard(request.protocol)
            self._under_way.discard(answered)
            answered.set_result(None)

    def check(self) -> None:
        """Refuse a request that arrives while the service is stopping.

        Raises:
            Failed: the service is stopping.
        """
        if self._stopping:
            raise Failed(503, STOPPING)

    @asynccontextmanager
    async def until_stopped(self) -> AsyncGenerator[None, None]:
        """End the block when the service stops and the grace period is over.

        Raises:
            Failed: the block was ended.
        """
        limit = asyncio.timeout(None)
        self._limits.add(limit)
        try:
            async with limit:
                yield
        except TimeoutError:
            raise Failed(503, STOPPING) from None
        finally:
            self._limits.discard(limit)

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


async def send(request: web.Request, writing: Coroutine[Any, Any, None]) -> None:
    """Wait until a caller has room for what was written to it.

    Raises:
        ConnectionError: the caller has gone, or has read nothing for `SEND_TIMEOUT` seconds.
    """
    limit = asyncio.timeout(SEND_TIMEOUT)
    try:
        async with limit:
            await writing
    except TimeoutError:
        if not limit.expired():
            raise
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionError("the caller does not read") from None


@web.middleware
async def send_whole(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Send a complete response within the time limit of `send`; aiohttp has none for these."""
    try:
        response = await handler(request)
    except web.HTTPException as error:
        response = web.Response(
            status=error.status, reason=error.reason, headers=error.headers, text=error.text
        )
    try:
        await response.prepare(request)
        if isinstance(response, web.Response) and request.method != "HEAD":
            body = response.body
            if isinstance(body, bytes) and len(body) > MAX_PART:
                response.body = None
                for start in range(0, len(body), MAX_PART):
                    await send(request, response.write(body[start : start + MAX_PART]))
        await send(request, response.write_eof())
    except ConnectionError:
        # The caller has gone; aiohttp finds that out when it ends this response.
        pass
    return response
