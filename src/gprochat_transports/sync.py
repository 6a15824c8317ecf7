"""The client without `async`: the same loop over a transport that blocks.

The coroutines of a blocking transport never suspend, so one step runs each of them to its end.
So blocking code needs no second loop.
"""

from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from gprochat_core import Conversation, RetryPolicy, Service, Timeouts

from .client import Client, Reply

__all__ = ["SyncClient", "SyncReply"]

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends and return its result."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("a transport of SyncClient must block, and this one suspended")


class SyncReply:
    """One reply as it arrives: `with client.stream(...) as reply: for text in reply`.

    It behaves and raises as `Reply` does, without `async`.
    """

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    @property
    def text(self) -> str:
        """The text that has arrived so far."""
        return self._reply.text

    @property
    def status(self) -> int | None:
        """The HTTP status; None before a response has arrived."""
        return self._reply.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The response's headers by lower-case name."""
        return self._reply.headers

    @property
    def attempts(self) -> int:
        """How many attempts have been made, also those that found no connection."""
        return self._reply.attempts

    def __enter__(self) -> Self:
        run(self._reply.__aenter__())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        run(self._reply.__aexit__(exc_type, exc, traceback))

    def close(self) -> None:
        """End the reply and release its connection; leaving the block does the same."""
        run(self._reply.aclose())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        try:
            return run(self._reply.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None


class SyncClient:
    """A client without `async`, to be used as `with SyncClient(...)`.

    It behaves and raises as `Client` does. Threads may share one.

    Args:
        client: a client over a transport that blocks.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def service(self) -> Service:
        """The deployment that this client talks to."""
        return self._client.service

    def __enter__(self) -> Self:
        self._client.check_open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the client and end its unfinished replies; a second call does nothing."""
        run(self._client.aclose())

    def stream(
        self,
        conversation: Conversation,
        *,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        keep_text: bool = True,
    ) -> SyncReply:
        """Return a reply to enter and to iterate; arguments and errors as in `Client.stream`."""
        return SyncReply(
            self._client.stream(conversation, timeouts=timeouts, retry=retry, keep_text=keep_text)
        )

    def complete(
        self,
        conversation: Conversation,
        *,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
    ) -> str:
        """Send a conversation and return the whole reply; arguments and errors as in
        `Client.complete`."""
        return run(self._client.complete(conversation, timeouts=timeouts, retry=retry))
