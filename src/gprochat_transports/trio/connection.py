"""One connection on trio: h11 speaks HTTP, a stream carries it, and the watch ends its waits."""

from math import inf
from time import monotonic
from typing import cast
from urllib.parse import urlsplit

import h11
import trio

from gprochat_core import Request, SendLimits

from .._sizes import READ_SIZE, WRITE_SIZE
from ..watchdog import Watch
from .socket import TcpStream

__all__ = ["Connection"]


class Connection:
    """A connection to the service, and where HTTP stands on it.

    Args:
        socket: what it goes over.
        stream: the same, or TLS on top of it.
        max_head: how long a response's head may be, in bytes.
        watch: what ends its waits.

    Attributes:
        reused: whether it has served before.
        deadline: when the present wait is too long, on trio's clock; infinity where none is.
        late: whether it has been closed for that.
    """

    def __init__(
        self, socket: TcpStream, stream: trio.abc.Stream, max_head: int, watch: Watch
    ) -> None:
        self.http = h11.Connection(h11.CLIENT, max_incomplete_event_size=max_head)
        self.reused = False
        self.deadline = inf
        self.late = False
        self._socket = socket
        self._stream = stream
        self._watch = watch
        self._closed = False

    def limit(self, seconds: float | None) -> None:
        """Have all waits from now on end after that time; None for as long as they take."""
        if not self._closed:
            self._watch.limit(self, seconds)

    async def send(self, request: Request, limits: SendLimits) -> None:
        """Send a whole request."""
        parts = urlsplit(request.url)
        head = h11.Request(
            method=request.method,
            target=parts.path,
            headers=[
                ("host", parts.netloc),
                *request.headers,
                ("content-length", str(len(request.body))),
            ],
        )
        data = self.http.send(head) or b""
        data += self.http.send(h11.Data(data=request.body)) or b""
        for start in range(0, len(data), WRITE_SIZE):
            self.limit(limits.reply(monotonic()))
            await self._stream.send_all(data[start : start + WRITE_SIZE])
        # This brings no more bytes, so there is time for it while the request is on its way.
        self.http.send(h11.EndOfMessage())

    async def receive_head(self) -> h11.Response:
        """Wait for the response's head, past informational ones."""
        while True:
            event = await self.next_event()
            if isinstance(event, h11.Response):
                return event

    async def next_event(self) -> h11.Event:
        """Wait for what HTTP brings next."""
        http = self.http
        while True:
            event = http.next_event()
            if event is not h11.NEED_DATA and event is not h11.PAUSED:
                return cast("h11.Event", event)
            data = await self._stream.receive_some(READ_SIZE)
            if not data and http.their_state is h11.SEND_RESPONSE:
                raise trio.BrokenResourceError("it was closed without an answer")
            http.receive_data(bytes(data))

    def is_idle(self) -> bool:
        """Whether nothing has come on it, not even its end, while nothing was due."""
        return not self._socket.is_readable()

    def is_reusable(self) -> bool:
        """Whether another request may follow the one that is over; if so, make ready for it."""
        if self.http.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            return False
        if self.http.trailing_data[0]:
            return False
        self.http.start_next_cycle()
        self.reused = True
        return True

    def expire(self) -> None:
        """Close the connection for a wait that is too long."""
        self.late = True
        self.close()

    def close(self) -> None:
        """Close the connection; a wait for it ends."""
        self.deadline = inf
        self._closed = True
        self._socket.close()
