"""One call over aiohttp: the body that goes out, the response that comes in, and what can fail.

What aiohttp does not tell by itself is found out here: how far sending has come, whether a
connection was fit for the request, and whether a body that ended was complete.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any, Final, cast
from weakref import WeakSet

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import StreamWriter
from aiohttp.tracing import Trace

from gprochat_core import Failure, SendLimits

from ._failures import FailureTable
from ._waits import Wait, Waits

__all__ = [
    "FAILURES",
    "OUT_OF_STEP",
    "READ_BUFFER",
    "AiohttpResponse",
    "Body",
    "NotingConnector",
    "TcpConnector",
    "Watch",
]

socks_failures: list[tuple[type[Exception], Failure]] = []
with suppress(ImportError):
    from aiohttp_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError

    socks_failures = [
        (ProxyTimeoutError, Failure.CONNECT_TIMEOUT),
        (ProxyConnectionError, Failure.CONNECT),
        (ProxyError, Failure.CONNECT),
        (asyncio.IncompleteReadError, Failure.CONNECT),
    ]

WRITE_SIZE: Final = 64 * 1024

READ_SIZE: Final = 120 * 1024
"""Bytes that asyncio is to read at once. It makes room for 256 KiB otherwise, even for a few bytes,
and blocks as large come straight from the system, which costs more than the read."""

READ_BUFFER: Final = 64 * 1024
"""Bytes for a slow reader after which aiohttp reads no more: twice as many, and what was being
read; a TLS connection buffers as many again."""

OUT_OF_STEP: Final = "an answer has come that nobody asked for"

FAILURES: Final = FailureTable(
    [
        *socks_failures,
        (aiohttp.ConnectionTimeoutError, Failure.CONNECT_TIMEOUT),
        (aiohttp.ServerTimeoutError, Failure.TIMEOUT),
        (aiohttp.ClientConnectorError, Failure.CONNECT),
        (aiohttp.ClientHttpProxyError, Failure.CONNECT),
        (aiohttp.ClientResponseError, Failure.MALFORMED),
        (aiohttp.ClientPayloadError, Failure.LOST),
        (aiohttp.ClientConnectionError, Failure.LOST),
        (aiohttp.ClientError, Failure.CONNECT),
        # What connecting through SOCKS raises, and a host name that IDNA cannot express.
        (TimeoutError, Failure.CONNECT_TIMEOUT),
        (OSError, Failure.CONNECT),
        (UnicodeError, Failure.CONNECT),
        # Reading from, or sending over, what has been closed here.
        (RuntimeError, Failure.LOST),
    ]
)


class Body(aiohttp.Payload):
    """A request's body that is sent bit by bit and knows how far it is.

    Attributes:
        begun: whether there is a connection to the service, and sending has begun.
        sent_at: when its last byte was sent, by `time.monotonic`.
        reused: whether it goes over a connection that has served this client before.
        in_step: whether nothing had come on that connection when sending began.
        deadline: when to make progress, or to have the response's head.
        late: whether that did not come in time.

    Args:
        body: what to send.
        limits: how long it may take.
        watch: what ends it then.
        served: the connections that have served this client.
    """

    def __init__(
        self, body: bytes, limits: SendLimits, watch: "Watch", served: WeakSet[ResponseHandler]
    ) -> None:
        super().__init__(body)
        self._size = len(body)
        self._limits = limits
        self._watch = watch
        self._served = served
        self._transport: asyncio.WriteTransport | None = None
        self.begun = False
        self.sent_at = monotonic()
        self.reused = False
        self.in_step = False
        self._noted = False
        self.deadline = inf
        self.late = False

    def note(self, protocol: ResponseHandler) -> None:
        """Take note of the connection that the request goes over."""
        self._noted = True
        self.reused = protocol in self._served
        self._served.add(protocol)

    def expire(self) -> None:
        """End the wait for sending to make progress, or for the response's head."""
        self.late = True
        self.abort()

    def abort(self) -> None:
        """Close the connection that the body goes over, whoever does not read at its other end.

        aiohttp closes one only when all is written, and with TLS when the other end agrees.
        """
        if self._transport is not None:
            self._transport.abort()

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return cast("bytes", self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        self.begun = True
        self._transport = writer.transport
        protocol = cast("ResponseHandler", cast("StreamWriter", writer).protocol)
        if not self._noted:
            self.note(protocol)
        self.in_step = not protocol.should_close
        if self.reused and not self.in_step:
            raise aiohttp.ClientConnectionError(OUT_OF_STEP)
        body = memoryview(cast("bytes", self._value))
        for start in range(0, len(body), WRITE_SIZE):
            self._progress()
            await writer.write(body[start : start + WRITE_SIZE])
        self._progress()

    def _progress(self) -> None:
        self.sent_at = monotonic()
        seconds = self._limits.reply(self.sent_at)
        if seconds is not None and not self.late:
            loop = asyncio.get_running_loop()
            self.deadline = loop.time() + seconds
            self._watch.look_by(self.deadline, loop)


class NotingConnector(aiohttp.BaseConnector):
    """Tells a request's body its connection, before what had come on that is taken for an answer.

    Without it, as in a session that the caller made, the body learns it when sending begins.
    """

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        if isinstance(req.body, Body) and connection.protocol is not None:
            req.body.note(connection.protocol)
        return connection


class TcpConnector(NotingConnector, aiohttp.TCPConnector):
    """aiohttp's own, that tells."""


class Watch:
    """Ends waits that take too long: one timer for all calls of a client.

    Attributes:
        waits: the calls that are under way.
        next_look: when there is a look, on the loop's clock; infinity for never.
    """

    def __init__(self) -> None:
        self.waits: set[Wait] = set()
        self.next_look = inf
        self._looker = Waits(self.waits)
        self._timer: asyncio.TimerHandle | None = None

    def look_by(self, deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        """See that there is a look at this time, or before."""
        if deadline < self.next_look:
            self.stop()
            self.next_look = deadline
            self._timer = loop.call_at(deadline, self._look, loop)

    def stop(self) -> None:
        """Look no more, until there is another wait."""
        self.next_look = inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self.stop()
        self.look_by(self._looker.look(loop.time()), loop)


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
        self._loop = asyncio.get_running_loop()
        self._watch = watch
        self.deadline = inf
        watch.waits.add(self)
        connection = response.connection
        protocol = None if connection is None else connection.protocol
        transport: Any = None if connection is None else connection.transport
        if hasattr(transport, "max_size"):
            transport.max_size = READ_SIZE
        if hasattr(transport, "set_read_buffer_limits"):
            transport.set_read_buffer_limits(READ_BUFFER)
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
        if timeout is not None:
            self.deadline = deadline = self._loop.time() + timeout
            if deadline < self._watch.next_look:
                self._watch.look_by(deadline, self._loop)
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
