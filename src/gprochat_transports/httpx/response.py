"""What comes in over httpx: a response and its body, piece by piece."""

import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, cast

import anyio

from gprochat_core import Failure, TransportError

from ..watchdog import Watch
from .call import Progress
from .connections import Connection
from .library import Library

if TYPE_CHECKING:
    import httpx

__all__ = ["HttpxResponse", "close_to_the_end"]


class HttpxResponse:
    """A response of an asynchronous client.

    Attributes:
        deadline: when the present wait for bytes is too long.
    """

    def __init__(
        self,
        response: "httpx.Response",
        library: Library,
        progress: Progress,
        watch: Watch,
        connection: Connection,
    ) -> None:
        self._response = response
        self._body = aiter(cast("httpx.AsyncByteStream", response.stream))
        self._library = library
        self._watch = watch
        self._connection = connection
        self._complete = False
        self._socket = own_socket(response.extensions)
        self._reading = False
        self._late = False
        self.deadline = inf
        self.sent_at = progress.sent_at
        self.status = response.status_code
        self.headers = response.headers.raw
        watch.waits.add(self)

    async def read(self, timeout: float | None) -> bytes:
        self._reading = True
        try:
            if self._socket is None:
                with anyio.fail_after(timeout):
                    return await anext(self._body)
            self._watch.limit(self, timeout)
            return await anext(self._body)
        except StopAsyncIteration:
            if self._late:
                raise TransportError(Failure.TIMEOUT) from None
            self._complete = True
            return b""
        except self._library.failures.kinds as error:
            if self._late:
                raise TransportError(Failure.TIMEOUT) from error
            raise self._library.translate(error) from error
        finally:
            self._reading = False
            self.deadline = inf

    def expire(self) -> None:
        """End the wait for bytes: what waits for the socket finds that it has come to its end."""
        self._late = True
        # A duplicate, for uvloop's stand-in for a socket cannot do this itself.
        with suppress(OSError), socket.socket(fileno=os.dup(self._socket.fileno())) as same:
            same.shutdown(socket.SHUT_RD)

    async def aclose(self) -> None:
        self._watch.waits.discard(self)
        self.deadline = inf
        await close_to_the_end(self._close)

    async def _close(self) -> None:
        try:
            await self._response.aclose()
        finally:
            await self._connection.release(fit=self._complete)
        # The body is several asynchronous generators in each other, and closing the outermost
        # would leave the rest to the garbage collector. On a closed connection the innermost
        # fails, and all of them end: if another task is reading, before its eyes.
        if not self._reading:
            with suppress(*self._library.failures.kinds):
                while await anext(self._body, b""):
                    pass


def own_socket(extensions: Mapping[str, Any]) -> Any:
    """The socket that a response alone comes over, where its reading can be ended from outside.

    If there is none, each read gets a time limit of its own, which costs as much as the read.
    """
    stream = extensions.get("network_stream")
    if stream is None or extensions["http_version"] == b"HTTP/2" or sys.platform == "win32":
        return None
    return stream.get_extra_info("socket")


async def close_to_the_end(close: Callable[[], Awaitable[None]]) -> None:
    """Close something, cancelled or not.

    The library relies on anyio's shields, and asyncio's own cancellation goes through them but
    for those in another task.
    """

    async def shielded() -> None:
        with anyio.CancelScope(shield=True):
            await close()

    async with anyio.create_task_group() as group:
        group.start_soon(shielded)
