"""A service within the test's process, and the event loops that a test runs on."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import trio

from gprochat_core import SendLimits, Service, TransportError
from gprochat_core.request import Request
from gprochat_transports import Client
from tests.transports.fake import Answer, FakeResponse, FakeTransport

__all__ = ["LOOPS", "Double", "echo", "refuse"]

Main = Callable[[], Coroutine[Any, Any, None]]

LOOPS: Final[Mapping[str, Callable[[Main], None]]] = {
    "asyncio": lambda main: asyncio.run(main()),
    "trio": trio.run,
}

PLAIN: Final = ((b"content-type", b"text/plain; charset=utf-8"),)


def echo(text: str) -> Answer:
    """Answer a message with itself."""
    return Answer(headers=PLAIN, pieces=(text.encode(),))


def refuse(status: int, *headers: tuple[bytes, bytes]) -> Answer:
    """Answer with an error."""
    return Answer(status=status, headers=headers)


@dataclass
class Double(FakeTransport):
    """A transport that is a service too.

    Attributes:
        answer: what a message is answered with.
        begin: called when a call begins.
        asked: the messages, in the order of the calls.
        most: how many calls have been under way at once at most.
    """

    answers: Iterable[Answer | TransportError] = ()
    answer: Callable[[str], Answer | TransportError] = echo
    checkpoint: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint
    begin: Callable[[], object] = lambda: None
    asked: list[str] = field(default_factory=list)
    most: int = 0
    _active: int = 0

    @property
    def active(self) -> int:
        """How many calls are under way."""
        return self._active + self.open_responses

    async def send(self, request: Request, limits: SendLimits) -> FakeResponse:
        message = json.loads(request.body)["messages"][-1]["parts"][0]["text"]
        self.asked.append(message)
        self.begin()
        self._active += 1
        self.most = max(self.most, self.active)
        try:
            await self.checkpoint()
        finally:
            self._active -= 1
        answer = self.answer(message)
        if isinstance(answer, TransportError):
            raise answer
        return FakeResponse(self, len(self.asked), answer)

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    def client(self) -> Client:
        """Return a client of this service."""
        service = Service("https://chat.example", secret_key="made up")
        return Client(service, self)
