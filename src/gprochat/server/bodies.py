"""Request bodies arrive within limits of size and time, and share one limit while unfinished.

Nobody has authenticated a request before its body is there. When all unfinished bodies together
exceed their limit, the oldest is given up: an honest body does not stay unfinished for long.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from gprochat_core import Refusal

from .tally import Tally

__all__ = ["MAX_REQUEST_BYTES", "MAX_UNFINISHED_BYTES", "MIN_BODY_RATE", "Bodies"]

MAX_REQUEST_BYTES: Final = 2 * 1024 * 1024
"""The largest request body that a service accepts by default."""

MAX_UNFINISHED_BYTES: Final = 64 * 1024 * 1024
"""The most bytes of bodies not yet accepted that a service holds by default."""

MIN_BODY_RATE: Final = 4096.0
"""Bytes a second at which a body must arrive, once its time limit is over, by default."""

TOO_LARGE: Final = "Request body too large."


@dataclass(eq=False, slots=True)
class Unfinished:
    """A body that nobody has accepted yet."""

    limit: asyncio.Timeout
    size: int = 0
    given_up: bool = False


class Bodies:
    """Reads the bodies of requests.

    Args:
        tally: counts the requests that are given up.
        max_bytes: the longest body.
        max_unfinished_bytes: the most bytes of bodies together that are held at once.
        timeout: seconds in which a body must have arrived, plus the time that its bytes take at
            `min_rate`.
        min_rate: bytes a second.
    """

    def __init__(
        self,
        tally: Tally,
        *,
        max_bytes: int,
        max_unfinished_bytes: int,
        timeout: float,
        min_rate: float,
    ) -> None:
        self._tally = tally
        self._max_bytes = max_bytes
        self._max_unfinished_bytes = max_unfinished_bytes
        self._timeout = timeout
        self._min_rate = min_rate
        self._unfinished: dict[Unfinished, None] = {}
        self._unfinished_bytes = 0

    @asynccontextmanager
    async def read(self, request: web.Request) -> AsyncGenerator[bytes, None]:
        """Read a body, which counts as unfinished until the block is left.

        Raises:
            Refusal: the body is too long, arrives too slowly, is malformed, or has been given up
                in favour of others.
        """
        if (request.content_length or 0) > self._max_bytes:
            raise Refusal(413, TOO_LARGE)
        started = asyncio.get_running_loop().time()
        body = Unfinished(asyncio.timeout_at(started + self._timeout))
        self._unfinished[body] = None
        try:
            async with body.limit:
                pieces: list[bytes] = []
                while piece := await request.content.readany():
                    pieces.append(piece)
                    self._grow(body, len(piece))
                    if not body.given_up:
                        wait = self._timeout + body.size / self._min_rate
                        body.limit.reschedule(started + wait)
                if not body.given_up:
                    body.limit.reschedule(None)
                yield b"".join(pieces)
        except web.RequestPayloadError:
            raise Refusal(400, "The request's body is not valid HTTP.") from None
        except TimeoutError:
            if not body.limit.expired():
                raise
            if body.given_up:
                self._tally.count("requests in favour of younger ones")
                raise Refusal(503, "The service is busy.") from None
            self._tally.count("requests that arrived too slowly")
            raise Refusal(408, "The request arrived too slowly.") from None
        finally:
            self._forget(body)

    # `_unfinished_bytes` is the sum of the sizes of `_unfinished`: only the next two methods change
    # either of them.

    def _grow(self, body: Unfinished, size: int) -> None:
        if body.given_up:
            # It counts no more; a piece may still arrive before its time limit ends it.
            return
        body.size += size
        self._unfinished_bytes += size
        if body.size > self._max_bytes:
            raise Refusal(413, TOO_LARGE)
        while self._unfinished_bytes > self._max_unfinished_bytes:
            oldest = next(iter(self._unfinished))
            self._forget(oldest)
            oldest.given_up = True
            oldest.limit.reschedule(asyncio.get_running_loop().time())

    def _forget(self, body: Unfinished) -> None:
        if body in self._unfinished:
            del self._unfinished[body]
            self._unfinished_bytes -= body.size
