"""The body of a request. aiohttp calls its method `write`, so the body knows the call's phase."""

import asyncio
from math import inf
from time import monotonic
from typing import cast
from weakref import WeakSet

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import StreamWriter

from gprochat_core import Cause, Phase, SendLimits, TransportError

from ..http11.network import WRITE_SIZE, Causes
from ..watchdog import Watchdog

__all__ = ["RequestBody", "retrieve"]


class RequestBody(aiohttp.Payload):
    """A body that is sent part by part, and the facts of its call.

    Attributes:
        phase: how far the call is.
        reused: whether the connection is one of `served`, those that have served this client.
        sent_at: when the last byte was sent, by `time.monotonic`.
        deadline: see `Wait`.
    """

    def __init__(
        self, body: bytes, limits: SendLimits, watchdog: Watchdog, served: WeakSet[ResponseHandler]
    ) -> None:
        super().__init__(body)
        self.phase: Phase = Phase.CONNECTING
        self.reused: bool = False
        self.sent_at: float = monotonic()
        self.deadline: float = inf
        self._body = body
        self._size = len(body)
        self._limits = limits
        self._watchdog = watchdog
        self._served = served
        self._transport: asyncio.WriteTransport | None = None
        self._timed_out = False

    def failed(self, error: Exception, causes: Causes) -> TransportError:
        """Report an exception with the facts of the call."""
        if self._timed_out:
            return TransportError(Cause.TIMED_OUT, self.phase, reused=self.reused)
        # aiohttp's message for a connection that failed names no reason; `os_error` does.
        reported = getattr(error, "os_error", error)
        return TransportError.wrap(reported, causes, self.phase, reused=self.reused)

    async def expire(self) -> None:
        """End the wait for sending to make progress, or for the response's head."""
        self._timed_out = True
        self.abort()

    def abort(self) -> None:
        """Close the connection at once; aiohttp would wait until all is written."""
        if self._transport is not None:
            self._transport.abort()

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._body.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        self._transport = writer.transport
        protocol = cast("ResponseHandler", cast("StreamWriter", writer).protocol)
        self.reused = protocol in self._served
        if not self.reused:
            self._served.add(protocol)
            if protocol.closed is not None:
                # asyncio logs an exception that is never retrieved.
                protocol.closed.add_done_callback(retrieve)
        self.phase = Phase.SENDING
        body = memoryview(self._body)
        for start in range(0, len(body), WRITE_SIZE):
            self._progress()
            await writer.write(body[start : start + WRITE_SIZE])
        self.phase = Phase.AWAITING_HEAD
        self._progress()

    def _progress(self) -> None:
        self.sent_at = monotonic()
        if self._watchdog.closed:
            self.abort()
        elif not self._timed_out:
            self._watchdog.limit(self, self._limits.reply(self.sent_at))


def retrieve(closed: "asyncio.Future[None]") -> BaseException | None:
    """Return the exception that ended a connection."""
    return closed.exception() if closed.done() and not closed.cancelled() else None
