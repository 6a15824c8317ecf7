"""One HTTP/1.1 connection: h11 writes requests and reads responses, a stream carries the bytes."""

from math import inf
from ssl import SSLContext
from time import monotonic
from urllib.parse import urlsplit

import h11

from gprochat_core import Cause, Phase, Request, SendLimits, TransportError

from ..environment import basic_authorization
from ..watchdog import Watchdog
from .network import WRITE_SIZE, Causes, Stream

__all__ = ["Connection"]


class Connection:
    """A connection of the pool, and the facts of the call that it serves.

    `send` and `read` report each failure as a `TransportError`.

    Attributes:
        forward_headers: the headers for an HTTP proxy that forwards each request; None for a
            connection to the service itself, or for a tunnel to the service.
        phase: how far the call is.
        reused: whether an earlier call was answered on this connection.
        timed_out: whether the watchdog closed it.
        deadline, idle_since: see `Wait` and `PooledConnection`.
    """

    def __init__(self, stream: Stream, watchdog: Watchdog, causes: Causes, max_head: int) -> None:
        self.forward_headers: list[tuple[str, str]] | None = None
        self.phase: Phase = Phase.CONNECTING
        self.reused: bool = False
        self.timed_out: bool = False
        self.deadline: float = inf
        self.idle_since: float = 0.0
        self._stream = stream
        self._watchdog = watchdog
        self._causes = causes
        self._max_head = max_head
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=max_head)
        watchdog.waits.add(self)

    async def open_tunnel(self, authority: str, proxy: str) -> None:
        """Have the HTTP proxy, whose URL has its credentials, connect to a host and port
        (RFC 9110, 9.3.6).

        Raises:
            ConnectionError: the proxy refused.
        """
        await self._stream.send(
            self._encode("CONNECT", authority, [("host", authority), *basic_authorization(proxy)])
        )
        head = await self._receive_head()
        if not 200 <= head.status_code <= 299:
            reason = bytes(head.reason).decode("latin-1")
            refusal = ConnectionError(f"the proxy answered {head.status_code} {reason}")
            # The headers may echo the password, and a traceback may show variables.
            del head
            raise refusal
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=self._max_head)

    async def start_tls(self, context: SSLContext, host: str) -> None:
        """Do the TLS handshake with the service."""
        self._stream = await self._stream.start_tls(context, host)

    async def send(self, request: Request, limits: SendLimits) -> tuple[h11.Response, float]:
        """Send a request; return the response's head, and when the last byte was sent."""
        self.phase = Phase.SENDING
        try:
            await self._send(request, limits)
            self.phase = Phase.AWAITING_HEAD
            sent_at = monotonic()
            self._limit(limits.reply(sent_at))
            head = await self._receive_head()
            self.phase = Phase.READING
            return head, sent_at
        except tuple(self._causes) as error:
            raise self._failed(error) from error
        finally:
            self.deadline = inf

    async def read(self, timeout: float | None) -> bytes:
        """Wait for the next bytes of the body; b"" at its end."""
        self._limit(timeout)
        try:
            event = await self._receive()
            return bytes(event.data) if isinstance(event, h11.Data) else b""
        except tuple(self._causes) as error:
            raise self._failed(error) from error
        finally:
            self.deadline = inf

    def renew(self) -> bool:
        """Make ready for another request; tell whether one may follow."""
        complete = self._http.our_state is self._http.their_state is h11.DONE
        # Bytes behind the end of a reply would be taken for the next reply.
        if not complete or self._http.trailing_data[0]:
            return False
        self._http.start_next_cycle()
        self.reused = True
        return True

    def is_silent(self) -> bool:
        """Tell whether nothing has arrived since the last reply, not even the connection's end."""
        return not self._stream.is_readable()

    async def expire(self) -> None:
        """End the present wait by closing the connection."""
        self.timed_out = True
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection; a wait for it ends."""
        self.deadline = inf
        self._watchdog.waits.discard(self)
        await self._stream.aclose()

    def _limit(self, seconds: float | None) -> None:
        if not self.timed_out:
            self._watchdog.limit(self, seconds)

    def _failed(self, error: Exception) -> TransportError:
        if self.timed_out:
            return TransportError(Cause.TIMED_OUT, self.phase, reused=self.reused)
        if self._http.trailing_data[1]:
            # h11 has one exception for malformed bytes and for a body whose end did not come.
            return TransportError(Cause.LOST, self.phase, reused=self.reused, detail=str(error))
        return TransportError.wrap(error, self._causes, self.phase, reused=self.reused)

    async def _send(self, request: Request, limits: SendLimits) -> None:
        # A method of its own, so that the bytes are freed before the wait for the head.
        parts = urlsplit(request.url)
        target = parts.path if self.forward_headers is None else request.url
        headers = [("host", parts.netloc), *request.headers, *(self.forward_headers or ())]
        # A traceback may show variables; a memoryview shows no bytes.
        data = memoryview(self._encode(request.method, target, headers, request.body))
        del headers
        for start in range(0, len(data), WRITE_SIZE):
            self._limit(limits.reply(monotonic()))
            await self._stream.send(data[start : start + WRITE_SIZE])

    def _encode(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes = b""
    ) -> bytes:
        length = [("content-length", str(len(body)))] if body else []
        request = h11.Request(method=method, target=target, headers=[*headers, *length])
        events = (request, h11.Data(data=body), h11.EndOfMessage())
        return b"".join(self._http.send(event) or b"" for event in events)

    async def _receive_head(self) -> h11.Response:
        # Informational responses (1xx) are passed over.
        while not isinstance(event := await self._receive(), h11.Response):
            pass
        return event

    async def _receive(self) -> h11.Event | type[h11.PAUSED]:
        http = self._http
        while True:
            event = http.next_event()
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value] # h11 gives NEED_DATA no type of its own
            data = await self._stream.receive()
            if not data and http.their_state is h11.SEND_RESPONSE:
                raise ConnectionError("closed without an answer")
            http.receive_data(data)
            del data  # It may echo a secret, and a traceback may show variables.
