"""What comes in over aiohttp: a response and its body, piece by piece.

aiohttp does not tell by itself whether a body that ended was complete.
"""

import asyncio
from collections.abc import Iterable
from math import inf
from typing import Any, Final, cast

import aiohttp

from .._sizes import READ_SIZE
from ..watchdog import Watch
from .request import FAILURES

__all__ = ["READ_BUFFER", "AiohttpResponse"]

READ_BUFFER: Final = 64 * 1024
"""Bytes for a slow reader after which aiohttp reads no more: twice as many, and what was being
read."""

TLS_BUFFER: Final = 32 * 1024
"""Bytes that a TLS connection keeps for a slow reader besides."""


class AiohttpResponse:
    """A response of aiohttp's.

    Attributes:
        deadline: when the present wait for bytes is too long.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        sent_at: float,
        watch: Watch,
        *,
        decompressed: bool,
    ) -> None:
        self._response = response
        self._content = response.content
        self._watch = watch
        self.deadline = inf
        watch.waits.add(self)
        connection = response.connection
        protocol = None if connection is None else connection.protocol
        transport: Any = None if connection is None else connection.transport
        if hasattr(transport, "max_size"):
            # What asyncio reads at once: it makes room for 256 KiB otherwise, even for a few bytes.
            transport.max_size = READ_SIZE
        if hasattr(transport, "set_read_buffer_limits"):
            transport.set_read_buffer_limits(TLS_BUFFER)
        self._closed = None if protocol is None else protocol.closed
        self._lost = False
        if self._closed is not None:
            self._closed.add_done_callback(self._end)
            self._content.on_eof(self._note_loss)
        self.sent_at = sent_at
        self.status = response.status
        self.headers: Iterable[tuple[bytes, bytes]] = response.raw_headers
        if decompressed:
            self.headers = [
                header for header in self.headers if header[0].lower() != b"content-encoding"
            ]

    async def read(self, timeout: float | None) -> bytes:
        self._watch.limit(self, timeout)
        try:
            data = await self._content.readany()
            if self._lost and not data:
                raise aiohttp.ClientPayloadError("the connection was lost within the body")
            return data
        except FAILURES.kinds as failure:
            if data := self._left_over():
                return data
            raise FAILURES.translate(failure) from failure
        finally:
            self.deadline = inf

    def expire(self) -> None:
        """End the wait for bytes."""
        self._content.set_exception(aiohttp.SocketTimeoutError("silence"))

    async def aclose(self) -> None:
        self._watch.waits.discard(self)
        if self._closed is not None:
            self._closed.remove_done_callback(self._end)
            # Once on a connection, however many responses come over it.
            self._closed.remove_done_callback(retrieve)
            self._closed.add_done_callback(retrieve)
        # Once read to its end, the response has given back its connection itself.
        connection = self._response.connection
        if connection is not None and connection.transport is not None:
            # With TLS, closing would wait for the other end.
            connection.transport.abort()
        self._response.close()

    def _left_over(self) -> bytes:
        """What had arrived before a failure, which aiohttp raises first."""
        content = self._content
        error = content.exception()
        if error is None:
            return b""
        content.set_exception(cast("BaseException", None))
        data = content.read_nowait()
        content.set_exception(error)
        return data

    def _note_loss(self) -> None:
        # aiohttp takes a reset for the end of a body that has no other end than closing.
        self._lost = (
            self._closed is not None
            and self._closed.done()
            and self._closed.exception() is not None
        )

    def _end(self, closed: "asyncio.Future[None]") -> None:
        # aiohttp forgets a body whose framing is broken, and would wait for the rest of it.
        error = retrieve(closed)
        if not self._content.is_eof() and self._content.exception() is None:
            lost = aiohttp.ClientPayloadError("the connection was closed within the body")
            lost.__cause__ = error
            self._content.set_exception(lost)


def retrieve(closed: "asyncio.Future[None]") -> BaseException | None:
    """How a connection ended; asyncio reports an exception that nobody has asked for."""
    return None if closed.cancelled() else closed.exception()
