"""One connection on trio, and where HTTP stands on it: h11 speaks, trio's streams carry."""

from math import inf
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

import h11
import trio

from gprochat_core import Request, SendLimits

__all__ = ["Connection", "seconds"]

READ_SIZE: Final = 64 * 1024
WRITE_SIZE: Final = 64 * 1024


class Connection:
    """A connection to the service, and where HTTP stands on it."""

    def __init__(self, socket: trio.SocketStream, stream: trio.abc.Stream, max_head: int) -> None:
        self.socket = socket
        self.stream = stream
        self.http = h11.Connection(h11.CLIENT, max_incomplete_event_size=max_head)
        self.reused = False

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
        self.http.send(h11.EndOfMessage())
        for start in range(0, len(data), WRITE_SIZE):
            with trio.fail_after(seconds(limits.reply(monotonic()))):
                await self.stream.send_all(data[start : start + WRITE_SIZE])

    async def receive_head(self) -> h11.Response:
        """Wait for the response's head, past informational ones."""
        while True:
            event = await self.next_event()
            if isinstance(event, h11.Response):
                return event

    async def next_event(self) -> h11.Event:
        """Wait for what HTTP brings next."""
        while True:
            event = self.http.next_event()
            if isinstance(event, h11.Event):
                return event
            data = await self.stream.receive_some(READ_SIZE)
            if not data and self.http.their_state is h11.SEND_RESPONSE:
                raise trio.BrokenResourceError("it was closed without an answer")
            self.http.receive_data(bytes(data))

    def is_reusable(self) -> bool:
        """Whether another request may follow the one that is over; if so, make ready for it."""
        if self.http.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            return False
        if self.http.trailing_data[0]:
            return False
        self.http.start_next_cycle()
        self.reused = True
        return True


def seconds(timeout: float | None) -> float:
    """A time limit as trio has it."""
    return inf if timeout is None else timeout
