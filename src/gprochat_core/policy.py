"""The numbers that a caller may set: time limits, retries, size limits; and a retry's pause."""

from dataclasses import dataclass, fields
from typing import Final

from .errors import (
    ConfigurationError,
    ConnectError,
    GPROChatError,
    InterruptedReply,
    RateLimited,
    ResponseError,
    ServiceFailed,
)
from .reply import MAX_HEAD_BYTES, MAX_REPLY_BYTES

__all__ = ["Limits", "RetryPolicy", "Timeouts", "is_transient"]

TRANSIENT_STATUSES: Final = frozenset({408, 500, 502, 503, 504, *range(520, 530)})

LONGEST: Final = 10**9
"""The longest time in seconds, thirty years: event loops and sockets refuse longer ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long to wait, in seconds. None is no limit.

    Args:
        connect: until there is a connection, including the wait for a slot and the TLS handshake.
        first_byte: from the last byte sent to the first byte of the reply.
        idle: from one piece of the reply to the next.
        total: for the whole call, with all its attempts and the pauses between them.

    Raises:
        ConfigurationError: a limit is neither None nor a positive number.
    """

    connect: float | None = 10.0
    first_byte: float | None = 60.0
    idle: float | None = 30.0
    total: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            seconds = getattr(self, field.name)
            if seconds is not None:
                check_number("timeout", field.name, seconds, zero=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When to make another attempt after one that failed, and after which pause.

    A pause is a random part of an exponential back-off, or the time that the service asks for.

    Args:
        max_attempts: how many attempts a call makes at most, with the first. Two kinds do not
            count: one because an idle connection was closed, and one because the clock was wrong.
        base_delay: the back-off of the first pause, in seconds. It doubles with each attempt.
        max_delay: the longest back-off, in seconds.
        max_retry_after: how many seconds to wait at most if the service asks for a wait. If it
            asks for more, the call fails at once.

    Raises:
        ConfigurationError: `max_attempts` is not an int of at least 1, or another argument is not
            a number of seconds.
    """

    max_attempts: int = 3
    base_delay: float = 0.5
    max_delay: float = 8.0
    max_retry_after: float = 120.0

    def __post_init__(self) -> None:
        check_count("retry", "max_attempts", self.max_attempts)
        for name in ("base_delay", "max_delay", "max_retry_after"):
            check_number("retry", name, getattr(self, name))

    def delay(self, error: GPROChatError, attempt: int, jitter: float) -> float | None:
        """Return the pause before the next attempt in seconds; None if the call has failed.

        Args:
            error: the error of the failed attempt.
            attempt: the number of that attempt, counted from 1.
            jitter: a random number from 0 to 1: the part of the back-off to wait. With it, clients
                that failed at the same time do not try again at the same time.
        """
        if attempt >= self.max_attempts or not is_transient(error):
            return None
        if isinstance(error, ResponseError) and error.retry_after is not None:
            return error.retry_after if error.retry_after <= self.max_retry_after else None
        return self.back_off(attempt, jitter)

    def back_off(self, attempt: int, jitter: float) -> float:
        """Return the pause in seconds if the service asks for none; arguments as in `delay`."""
        # After 60 doublings the base delay is above any maximum.
        return jitter * min(self.max_delay, self.base_delay * 2.0 ** min(attempt - 1, 60))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much to receive, and how many connections to keep.

    Args:
        max_reply_bytes: how long a reply may be, in bytes after decompression.
        max_head_bytes: how long the headers of a response may be, in bytes.
        max_connections: how many connections a client has at once; a further call waits.
        keep_alive: seconds that an idle connection is kept for reuse; 0 closes a connection after
            each call. The services of this family close idle connections after 5 seconds.

    Raises:
        ConfigurationError: `keep_alive` is not a number of seconds, or another limit is not an int
            of at least 1.
    """

    max_reply_bytes: int = MAX_REPLY_BYTES
    max_head_bytes: int = MAX_HEAD_BYTES
    max_connections: int = 100
    keep_alive: float = 4.0

    def __post_init__(self) -> None:
        for name in ("max_reply_bytes", "max_head_bytes", "max_connections"):
            check_count("limit", name, getattr(self, name))
        check_number("limit", "keep_alive", self.keep_alive)


def is_transient(error: GPROChatError) -> bool:
    """Tell whether the same request may succeed a moment later.

    It may after a ConnectError, a RateLimited, an InterruptedReply, and a status that a gateway or
    an overloaded service sends; not after a failure that only the deployment's owner can correct.
    An `Exchange` does not repeat a request if the caller may have read a part of its reply.
    """
    if isinstance(error, ServiceFailed):
        return error.status in TRANSIENT_STATUSES and not error.permanent
    return isinstance(error, (ConnectError, RateLimited, InterruptedReply))


def check_number(kind: str, name: str, value: object, *, zero: bool = True) -> None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        least_is_met = value >= 0 if zero else value > 0
        if least_is_met and value <= LONGEST:
            return
    least = "" if zero else " above 0"
    raise ConfigurationError(
        f"{kind} {name}={value!r}: give a number of seconds{least}, at most {LONGEST}"
    )


def check_count(kind: str, name: str, value: object) -> None:
    if type(value) is not int or value < 1:
        raise ConfigurationError(f"{kind} {name}={value!r}: give an int of at least 1")
