"""The one client of a chat: all turns use its connections and its correction of the clock."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from gprochat_core import GPROChatError, Message, Service
from gprochat_transports import Client
from gprochat_transports.environment import Proxy

from .loops import Loop, Start, reports

__all__ = ["Retry", "Session", "connect"]


@dataclass(frozen=True, slots=True)
class Retry:
    """An attempt failed, and another one follows.

    Attributes:
        attempt: the number of the next attempt, 2 or more.
        delay: seconds until then.
        error: why the last attempt failed.
    """

    attempt: int
    delay: float
    error: GPROChatError


Report: TypeAlias = str | Retry


class Session:
    """The client of one service, for any number of calls, one at a time.

    Attributes:
        service: the service that it asks.
    """

    def __init__(self, loop: Loop, start: Start, service: Service, proxy: Proxy) -> None:
        self.service = service
        self._loop = loop
        self._start = start
        self._proxy = proxy
        self._client: Client | None = None
        self._report: Callable[[Report], None] = lambda _: None

    def stream(self, asked: Sequence[Message]) -> Generator[Report | None, None, None]:
        """Ask, and yield pieces of the reply, retries, and None whenever a tick has passed.

        Raises:
            GPROChatError: there was no reply, or it is incomplete.
        """

        async def work(report: Callable[[Report], None]) -> None:
            self._report = report
            async with self._open().stream(asked) as reply:
                async for text in reply:
                    report(text)

        yield from reports(self._start, work)

    def close(self) -> None:
        """Close the client."""
        client, self._client = self._client, None
        if client is None:
            return

        async def work(_report: Callable[[None], None]) -> None:
            await client.aclose()

        for _ in reports(self._start, work):
            pass

    def _open(self) -> Client:
        if self._client is None:
            self._client = self._loop.make_client(
                self.service,
                proxy=self._proxy,
                on_retry=lambda attempt, delay, error: self._report(Retry(attempt, delay, error)),
            )
        return self._client


@contextmanager
def connect(loop: Loop, service: Service, proxy: Proxy) -> Generator[Session, None, None]:
    """Open a session, which is closed when the block is left."""
    with loop.thread() as start:
        session = Session(loop, start, service, proxy)
        try:
            yield session
        finally:
            session.close()
