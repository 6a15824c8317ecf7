"""The faults that a call of the soak may meet, and how it must end.

A prompt names its fault, so that the outcome of every call is known: `"<number> <fault>"`, answered
with `reply_to(prompt)` where there is a reply. The peer plays the faults (`peer`), the callers know
what to expect (`worker`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gprochat_core import (
    BadRequest,
    ConnectError,
    GPROChatError,
    InterruptedReply,
    NotTheService,
    RateLimited,
    ReplyTimeout,
    ServiceFailed,
    SignatureRejected,
    TruncatedReply,
)

__all__ = ["FAULTS", "WELL", "Fault", "is_fault", "prompt_for", "reply_to"]

WELL: Final = "well"
"""Stands in a prompt in the place of a fault's name."""


@dataclass(frozen=True)
class Fault:
    """How a call ends.

    Attributes:
        errors: what it may raise; none for a call that ends well.
        characters: how much of the reply arrives at most; None for all of it.
    """

    errors: tuple[type[GPROChatError], ...] = ()
    characters: int | None = None


FAULTS: Final[Mapping[str, Fault]] = {
    "closed without an answer": Fault((ConnectError,)),
    "reset without an answer": Fault((ConnectError,)),
    "cut in the head": Fault((ConnectError,)),
    "not HTTP": Fault((NotTheService,)),
    "redirect": Fault((NotTheService,)),
    "web page": Fault((NotTheService,)),
    "bad request": Fault((BadRequest,)),
    "wrong signature": Fault((SignatureRejected,)),
    "too many requests": Fault((RateLimited,)),
    "service failed": Fault((ServiceFailed,)),
    "error cut short": Fault((ServiceFailed,)),
    "reply cut short": Fault((TruncatedReply,), 5),
    # A reset may overtake what was sent before it.
    "reply reset": Fault((TruncatedReply, ConnectError), 5),
    # aiohttp refuses a head together with what follows it in one packet.
    "chunk without a size": Fault((TruncatedReply, NotTheService), 5),
    "reply interrupted": Fault((InterruptedReply,), 5),
    "silence in the reply": Fault((ReplyTimeout,), 5),
    "left early": Fault((), 5),
    "cancelled": Fault((), 5),
    "one failure, then a reply": Fault(),
}


def is_fault(number: int) -> bool:
    """Whether the call of this number meets a fault: every third one does."""
    return number % 3 == 2


def prompt_for(number: int) -> str:
    """The prompt of a call; the faults come by turns."""
    names = list(FAULTS)
    return f"{number} {names[number // 3 % len(names)] if is_fault(number) else WELL}"


def reply_to(prompt: str) -> str:
    """The whole reply to a prompt: longer than a few characters, some of more bytes than one."""
    return f"{prompt}: Привет 🙂 " * 8
