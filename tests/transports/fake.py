"""A transport without a network: it answers from a list, and writes down what it was asked."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeAlias

from gprochat_core import Request, SendLimits, TransportError

__all__ = ["Answer", "Event", "FakeResponse", "FakeTransport"]

Event: TypeAlias = tuple[object, ...]
"""What happened: ("send", n), ("read", n), ("close", n) of the n-th request from 0, ("sleep",
seconds) and ("close transport",)."""


@dataclass(frozen=True)
class Answer:
    """What a request is answered with.

    Attributes:
        pieces: what each read gives or raises; after them, the body's end.
    """

    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()
    pieces: tuple[bytes | TransportError, ...] = ()


async def nothing() -> None:
    """What a transport waits for that does not suspend."""


@dataclass
class FakeTransport:
    """A `Transport`.

    Attributes:
        answers: one for each request, in order; an exception is raised by `send`.
        checkpoint: awaited wherever a transport would wait.
        events: what happened, in order.
        requests, limits: what `send` was given.
        loop: what `current_loop` gives.
    """

    answers: Iterable[Answer | TransportError]
    checkpoint: Callable[[], Awaitable[None]] = nothing
    events: list[Event] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    limits: list[tuple[float | None, float | None]] = field(default_factory=list)
    loop: object = "the loop"

    def __post_init__(self) -> None:
        self._answers = iter(self.answers)

    async def send(self, request: Request, limits: SendLimits) -> "FakeResponse":
        number = len(self.requests)
        self.events.append(("send", number))
        self.requests.append(request)
        self.limits.append((limits.connect, limits.first_byte))
        answer = next(self._answers)
        # A transport that is cancelled here has nothing open.
        await self.checkpoint()
        if isinstance(answer, TransportError):
            raise answer
        return FakeResponse(self, number, answer)

    def current_loop(self) -> object:
        return self.loop

    async def sleep(self, seconds: float) -> None:
        self.events.append(("sleep", seconds))
        await self.checkpoint()

    async def aclose(self) -> None:
        self.events.append(("close transport",))
        await self.checkpoint()

    @property
    def open_responses(self) -> int:
        """How many responses have been given and not closed."""
        return self._count("open") - self._count("close")

    def _count(self, what: str) -> int:
        return sum(event[0] == what for event in self.events)


class FakeResponse:
    """A `Response`."""

    def __init__(self, transport: FakeTransport, number: int, answer: Answer) -> None:
        self._transport = transport
        self._number = number
        self._pieces = iter(answer.pieces)
        self.status = answer.status
        self.headers = answer.headers
        self.sent_at = monotonic()
        transport.events.append(("open", number))

    async def read(self, timeout: float | None) -> bytes:
        self._transport.events.append(("read", self._number))
        await self._transport.checkpoint()
        piece = next(self._pieces, b"")
        if isinstance(piece, TransportError):
            raise piece
        return piece

    async def aclose(self) -> None:
        # It does so even where it is cancelled.
        self._transport.events.append(("close", self._number))
        await self._transport.checkpoint()
