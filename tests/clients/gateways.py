"""Gateways for the tests: one over an embedded service, and those over a service that fails."""

from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from typing import Final

from gprochat.gateway import Deployment, Running, gateway
from gprochat.server import in_thread, serve
from gprochat_core import Message, RetryPolicy, Service
from tests.peers.scripted import ScriptedPeer, receive, repeat, send
from tests.peers.wire import answer

__all__ = [
    "BROKEN",
    "EMPTY",
    "GREETING",
    "MODEL",
    "OVERLOADED",
    "PARTIAL",
    "RATE_LIMIT",
    "TEXT",
    "WRONG_KEY",
    "embedded",
    "failing",
    "over",
]

MODEL: Final = "gprochat"

GREETING: Final = "Hello"
PIECES: Final = ("Hello", ", ", "wörld", ' "quoted"\n', "\u2028", "🙂")
TEXT: Final = "".join(PIECES)
"""The reply to GREETING."""

EMPTY: Final = "Say nothing"

BROKEN: Final = "Break off"
PARTIAL: Final = "Hello, "
"""All that arrives of the reply to BROKEN."""

RATE_LIMIT: Final = answer(429, "slowly, please", "retry-after: 7")
WRONG_KEY: Final = answer(401, '{"error":{"message":"Invalid signature."}}')
OVERLOADED: Final = answer(503)
"""Answers of a deployment that fails."""


async def reply(messages: tuple[Message, ...]) -> AsyncIterator[str]:
    """Answer GREETING, EMPTY and BROKEN; repeat any other conversation."""
    prompt = messages[-1].text
    if prompt == GREETING:
        for piece in PIECES:
            yield piece
    elif prompt == BROKEN:
        yield PARTIAL
        raise RuntimeError("the model failed")
    elif prompt != EMPTY:
        for message in messages:
            yield f"[{message.role}: {message.text}]"


@contextmanager
def over(service: Service, *, attempts: int = 1) -> Generator[Running, None, None]:
    """Run a gateway over a deployment."""
    models = {MODEL: [Deployment(MODEL, service)]}
    retry = RetryPolicy(max_attempts=attempts, base_delay=0.0)
    with in_thread(gateway(models, retry=retry, grace=0.0)) as running:
        yield running


@contextmanager
def embedded() -> Generator[Service, None, None]:
    """Run an embedded service that answers with `reply`."""
    with in_thread(serve(reply, grace=0.0)) as server:
        yield server.service


@contextmanager
def failing(
    answer: bytes, *, attempts: int = 1
) -> Generator[tuple[Running, ScriptedPeer], None, None]:
    """Run a gateway over a deployment that answers each request with these bytes."""
    with (
        ScriptedPeer([repeat(receive, send(answer))]) as peer,
        over(Service(peer.url, secret_key="made up"), attempts=attempts) as running,
    ):
        yield running, peer
