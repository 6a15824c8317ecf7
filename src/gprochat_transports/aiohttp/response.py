"""A response of aiohttp, and its body piece by piece.

aiohttp raises a failure before it returns the bytes that arrived earlier. It reports a proper end
if a body without a length ends in a reset, and no end at all if a connection closes after
broken framing. The response here corrects all three.
"""

import asyncio
from collections.abc import Iterable
from math import inf
from typing import cast

import aiohttp

from gprochat_core import Phase, TransportError

from ..watchdog import Watchdog
from .connection import CAUSES, EXCEPTIONS
from .request import RequestBody, retrieve

__all__ = ["AiohttpResponse"]


class AiohttpResponse:
    """A `Response` of an aiohttp session, and a `Wait` of the watchdog."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        body: RequestBody,
        watchdog: Watchdog,
        *,
        decompressed: bool,
    ) -> None:
        self.deadline: float = inf
        self.sent_at: float = body.sent_at
        self.status: int = response.status
        self.headers: Iterable[tuple[bytes, bytes]] = response.raw_headers
        if decompressed:
            self.headers = [
                header for header in self.headers if header[0].lower() != b"content-encoding"
            ]
        self._response = response
        self._content = response.content
        # At its end already: an empty body, or one that a middleware of the caller's has read.
        self._was_read = response.content.at_eof()
        self._watchdog = watchdog
        self._reused = body.reused
        connection = response.connection
        protocol = None if connection is None else connection.protocol
        self._closed = None if protocol is None else protocol.closed
        if self._closed is not None:
            self._closed.add_done_callback(self._end)
        watchdog.waits.add(self)

    async def read(self, timeout: float | None) -> bytes:
        self._watchdog.limit(self, timeout)
        try:
            data = await self._content.readany()
            if not data and self._was_read:
                self._was_read = False
                # aiohttp keeps a body that was read.
                data = await self._response.read()
            if not data and self._closed and retrieve(self._closed) and self._ends_by_closing():
                # Closing the connection ends such a body; aiohttp lets a reset end it too.
                raise aiohttp.ClientPayloadError("the connection was lost within the body")
            return data
        except EXCEPTIONS as error:
            if data := self._left_over():
                return data
            raise TransportError.wrap(error, CAUSES, Phase.READING, reused=self._reused) from error
        finally:
            self.deadline = inf

    async def expire(self) -> None:
        """End the wait for bytes."""
        self._content.set_exception(aiohttp.SocketTimeoutError())

    async def aclose(self) -> None:
        self._watchdog.waits.discard(self)
        if self._closed is not None:
            self._closed.remove_done_callback(self._end)
        connection = self._response.connection
        # A response that was read to its end has already released its connection.
        if connection is not None:
            if connection.transport is not None:
                # With TLS, closing would wait for the peer.
                connection.transport.abort()
            self._response.close()

    def _ends_by_closing(self) -> bool:
        """Tell whether the body has no length, so that it ends when the connection closes."""
        headers = self._response.headers
        return "content-length" not in headers and "transfer-encoding" not in headers

    def _left_over(self) -> bytes:
        """Return the bytes that arrived before a failure; aiohttp raises the failure first."""
        content = self._content
        error = content.exception()
        if error is None:
            return b""
        content.set_exception(cast("BaseException", None))
        data = content.read_nowait()
        content.set_exception(error)
        return data

    def _end(self, closed: "asyncio.Future[None]") -> None:
        # aiohttp would wait for the rest of a body whose framing is broken.
        lost = retrieve(closed) or aiohttp.ClientPayloadError("closed within the body")
        if not self._content.is_eof() and self._content.exception() is None:
            self._content.set_exception(lost)
