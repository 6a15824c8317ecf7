"""What goes out over aiohttp: a request's body, which notes how far it is; and what can fail.

aiohttp does not tell by itself how far sending has come, nor whether a connection is fit for the
request.
"""

import asyncio
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Final, cast
from weakref import WeakSet

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import StreamWriter

from gprochat_core import Failure, SendLimits

from .._failures import OUT_OF_STEP, FailureTable
from .._sizes import WRITE_SIZE
from ..watchdog import Watch

__all__ = ["FAILURES", "Body"]

socks_failures: list[tuple[type[Exception], Failure]] = []
with suppress(ImportError):
    from aiohttp_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError

    socks_failures = [
        (ProxyTimeoutError, Failure.CONNECT_TIMEOUT),
        (ProxyConnectionError, Failure.CONNECT),
        (ProxyError, Failure.CONNECT),
        (asyncio.IncompleteReadError, Failure.CONNECT),
    ]

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
        self, body: bytes, limits: SendLimits, watch: Watch, served: WeakSet[ResponseHandler]
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
        if not self.late:
            self._watch.limit(self, self._limits.reply(self.sent_at))
