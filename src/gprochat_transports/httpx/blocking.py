"""The httpx transport without an event loop, for `SyncClient`."""

import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, cast

from gprochat_core import Failure, Request, SendLimits, TransportError

from .._failures import OUT_OF_STEP
from .call import (
    Progress,
    build_request,
    is_new_stream,
    take_lost_connections,
)
from .library import Library

if TYPE_CHECKING:
    import httpcore
    import httpx

__all__ = ["BlockingTransport"]


class Deadline(threading.local):
    """Until when the calling thread waits for bytes: within `with`, at most so many seconds.

    A blocking library knows only limits for a single read, which it takes up when it begins to
    read a body, and none for what it says to a SOCKS proxy.
    """

    at: float | None = None

    def set(self, seconds: float | None) -> None:
        """Begin to count; None for no limit."""
        self.at = None if seconds is None else monotonic() + seconds

    @contextmanager
    def within(self, seconds: float | None) -> Generator[None, None, None]:
        """Count while a block lasts."""
        self.set(seconds)
        try:
            yield
        finally:
            self.at = None

    def hold(self, stream: "httpcore.NetworkStream") -> None:
        """Hold a stream of the library's to the deadline of whoever reads from it."""
        read = stream.read

        def read_in_time(max_bytes: int, timeout: float | None = None) -> bytes:
            if self.at is not None:
                # Not 0, which means something else to a socket.
                timeout = max(self.at - monotonic(), 0.001)
            cast("Any", stream).read_at = monotonic()
            return read(max_bytes, timeout)

        stream.read = read_in_time  # type: ignore[method-assign]


class BlockingTransport:
    """Sends requests with a blocking client; its coroutines never suspend."""

    def __init__(self, client: "httpx.Client", library: Library, *, own: bool) -> None:
        self._client = client
        self._library = library
        self._own = own
        self._deadline = Deadline()

    async def send(self, request: Request, limits: SendLimits) -> "BlockingResponse":
        def trace(event: str, info: Mapping[str, object]) -> None:
            progress.note(event, info)
            if is_new_stream(event):
                self._deadline.hold(cast("httpcore.NetworkStream", info["return_value"]))

        progress = Progress(limits, self._deadline.set)
        built = build_request(self._client, request, progress, trace)
        try:
            with self._deadline.within(None):
                response = self._client.send(built, stream=True, follow_redirects=False)
        except self._library.failures.kinds as error:
            raise self._library.translate(error, progress) from error
        finally:
            if not progress.sending:
                for lost in take_lost_connections(self._client, built):
                    lost.close()
                if progress.stream is not None:
                    cast("httpcore.NetworkStream", progress.stream).close()
        received = BlockingResponse(response, self._library, progress, self._deadline)
        if not progress.is_in_step(response):
            await received.aclose()
            raise TransportError(Failure.STALE, OUT_OF_STEP)
        return received

    def current_loop(self) -> object:
        return self

    async def sleep(self, seconds: float) -> None:
        sleep(seconds)  # noqa: ASYNC251 - blocking is its purpose

    async def aclose(self) -> None:
        if self._own:
            self._client.close()


class BlockingResponse:
    """A response of a blocking client."""

    def __init__(
        self, response: "httpx.Response", library: Library, progress: Progress, deadline: Deadline
    ) -> None:
        self._response = response
        self._body = iter(cast("httpx.SyncByteStream", response.stream))
        self._library = library
        self._deadline = deadline
        self.sent_at = progress.sent_at
        self.status = response.status_code
        self.headers = response.headers.raw

    async def read(self, timeout: float | None) -> bytes:
        try:
            with self._deadline.within(timeout):
                return next(self._body, b"")
        except self._library.failures.kinds as error:
            raise self._library.translate(error) from error

    async def aclose(self) -> None:
        self._response.close()
