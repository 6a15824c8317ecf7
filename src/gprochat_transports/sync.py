"""The client without `async`: the same loop, driven over a transport that blocks.

The coroutines of a transport that blocks never suspend, so one step runs each to its end. That
way there is one loop and not two that would drift apart.
"""

from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from gprochat_core import Conversation, Service

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
    raise RuntimeError("a blocking transport suspended")


class SyncReply:
    """One reply as it arrives: `with client.stream(...) as reply: for text in reply`.

    The same as `Reply`, without `async`.
    """

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    @property
    def text(self) -> str:
        """The reply so far."""
        return self._reply.text

    @property
    def status(self) -> int | None:
        """The HTTP status; None before there is one."""
        return self._reply.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The response's headers by lower-case name."""
        return self._reply.headers

    @property
    def attempts(self) -> int:
        """How many requests have been sent for this reply."""
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
        """End the reply and release its connection; leaving the block does it."""
        run(self._reply.aclose())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        try:
            return run(self._reply.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None


class SyncClient:
    """A client without `async`, to be used as `with SyncClient(...)`; else the same as `Client`.

    Args:
        client: a client over a transport that blocks.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def service(self) -> Service:
        """Whom this client talks to."""
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
        """Close the client; closing twice does nothing."""
        run(self._client.aclose())

    def stream(self, conversation: Conversation, *, keep_text: bool = True) -> SyncReply:
        """Ask, and return the reply to enter and iterate; all as in `Client.stream`."""
        return SyncReply(self._client.stream(conversation, keep_text=keep_text))

    def complete(self, conversation: Conversation) -> str:
        """Ask, and return the whole reply; raises as `Client.complete`."""
        return run(self._client.complete(conversation))
