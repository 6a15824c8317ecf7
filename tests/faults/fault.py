"""The classes of the fault table: a row, its cases, and the expected outcome."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal

from gprochat_core import GPROChatError, Limits, RetryPolicy, Timeouts
from tests.peers.scripted import Script

__all__ = ["PATIENT", "QUICK", "Case", "Door", "Expected", "Fault"]

PATIENT: Final = Timeouts(connect=8.0, first_byte=8.0, idle=8.0)
"""Time limits that are met only in rows about time."""

QUICK: Final = Timeouts(connect=0.4, first_byte=0.4, idle=0.4)
"""Time limits for the rows about time."""

THREE_ATTEMPTS: Final = RetryPolicy(base_delay=0.002)


class Door(Enum):
    """Whether the peer accepts connections."""

    OPEN = "it lets in"
    CLOSED = "it refuses connections"
    FULL = "its backlog is full"
    UNKNOWN = "its name does not resolve"


@dataclass(frozen=True)
class Expected:
    """What a call must come to.

    Attributes:
        error: the exact class of its error; None for a complete reply.
        text: of the reply, all that has arrived.
        attempts: how many requests the call makes.
        attributes: of the error.
        seen: how many of these requests the peer sees; None for all.
        seconds: how long the call takes at least, and not much longer; None to check no time.
    """

    error: type[GPROChatError] | None
    text: str = ""
    attempts: int = 1
    attributes: Mapping[str, object] = field(default_factory=dict[str, object])
    seen: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Case:
    """One call that meets the fault.

    Attributes:
        when: how it differs from the other cases of its row; equal for cuts of one kind.
        scripts: what the peer does once it has read a request: the first script for the call's
            first request, and the last for all that follow.
        expected: what the call must come to.
        exceptions: what the call comes to on an adapter whose library does not allow better, and
            why; None where the case is not played.
        warm_up: played for a call of its own before this one, which must be well; None for none.
        kept: whether the connection may outlive the call for another one.
    """

    when: str
    scripts: Sequence[Script]
    expected: Expected
    exceptions: Mapping[str, tuple[Expected | None, str]] = field(
        default_factory=dict[str, tuple[Expected | None, str]]
    )
    warm_up: Script | None = None
    kept: bool = False


@dataclass(frozen=True)
class Fault:
    """A row: something that goes wrong, and its cases, which are played one after the other.

    Attributes:
        what: what the peer does.
        cases: the calls that meet it.
        door: whether there is a way in.
        first: what the peer does on each connection before it reads a request.
        scheme: of the service's URL.
        certificate: with which the peer speaks TLS; None for not at all.
        proxy: the kind of proxy that the peer is on the way to the service; None for none.
        prompt: what is asked.
        timeouts, retry, limits: the client's.
    """

    what: str
    cases: Sequence[Case]
    door: Door = Door.OPEN
    first: Script = ()
    scheme: Literal["http", "https"] = "http"
    certificate: str | None = None
    proxy: Literal["http", "socks5"] | None = None
    prompt: str = "Hello"
    timeouts: Timeouts = PATIENT
    retry: RetryPolicy = THREE_ATTEMPTS
    limits: Limits | None = None
