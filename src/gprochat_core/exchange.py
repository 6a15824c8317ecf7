"""One call, from its first attempt to the last byte of its reply, as a state machine.

An `Exchange` takes every decision between: what to send, how long to wait, what a failure means,
whether and when to try again, when the reply is complete. It moves no byte and reads no clock;
whoever drives it does, asynchronously or not:

1. `attempt` gives the request to send. The response's head goes to `receive_head`, each piece of
   its body to `receive`, its end to `finish`; text comes back.
2. Where the transport fails, `fail` says which error that is.
3. Any of these errors goes to `retry`, which says how long to pause before the next `attempt`, or
   that there is none: then the error is the caller's.

Times are seconds of a monotonic clock where they are called `now`, and Unix time in milliseconds
where they are called `now_ms`.
"""

from collections.abc import Iterable
from enum import Enum
from typing import Final, Literal, NamedTuple, NoReturn

from .diagnosis import check_head
from .errors import (
    ConnectError,
    ConnectTimeout,
    Failure,
    GPROChatError,
    NotTheService,
    ReplyTimeout,
    SignatureRejected,
    TransportError,
    UsageError,
)
from .messages import Conversation, read_messages
from .policy import Limits, RetryPolicy, Timeouts
from .reply import ReplyParser
from .request import Draft, Request
from .service import Service

__all__ = ["Exchange", "SendLimits", "State"]

TOLERATED_CLOCK_SKEW: Final = 30.0
"""Seconds that a clock may be off before a rejected signature is blamed on it."""

TIMER_SLACK: Final = 0.01
"""Seconds that an event loop's timer may be early by another clock."""

PROXY_AUTHENTICATION_REQUIRED: Final = 407
"""The one status that only a proxy sends (RFC 9110, 15.5.8): the service was never reached."""

MAX_STALE_CONNECTIONS: Final = 100
"""How many kept connections may turn out to be closed, one after the other, at no cost."""


class State(Enum):
    """Where a call stands."""

    READY = "an attempt may be made"
    SENT = "a request is under way"
    ERROR = "an answer that is not a reply is being read"
    REPLY = "the reply is being read"
    FAILED = "the attempt failed"
    DONE = "the reply is complete"
    GIVEN_UP = "the call failed"


BODY_STATES: Final = (State.REPLY, State.ERROR)


class SendLimits(NamedTuple):
    """How long an attempt may take until its response begins.

    Attributes:
        connect: seconds to come to a connection; None for as long as it takes.
        first_byte: seconds from the last byte sent to the response's head, and for sending to
            make progress; None likewise.
        deadline: when the whole call must be over, on the clock of `now`; None for never.
    """

    connect: float | None
    first_byte: float | None
    deadline: float | None = None

    def reply(self, now: float) -> float | None:
        """Return how many seconds there are, from now on, for `first_byte` within the whole."""
        if self.deadline is None:
            return self.first_byte
        left = max(0.0, self.deadline - now)
        return left if self.first_byte is None else min(left, self.first_byte)


class Exchange:
    """One call.

    Args:
        service: whom to ask; it must have its secret key.
        conversation: what to ask.
        timeouts, retry, limits: the caller's numbers.
        keep_text: as `ReplyParser` has it.
        now: the time, from which `timeouts.total` counts.
        clock_correction_ms: milliseconds to add to this machine's time when signing, as an
            earlier call learned.

    Raises:
        InvalidMessages: the conversation cannot be sent.
        ConfigurationError: the service has no secret key.

    Attributes:
        state: where the call stands.
        attempts: how many attempts have been made.
        clock_correction_ms: as above; a call that had to correct the time changes it.
    """

    def __init__(
        self,
        service: Service,
        conversation: Conversation,
        *,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        limits: Limits | None = None,
        keep_text: bool = True,
        now: float = 0.0,
        clock_correction_ms: int = 0,
    ) -> None:
        self._draft = Draft(service, read_messages(conversation))
        self._keep_text = keep_text
        self._secrets = (service.secret_key or "", service.password or "")
        self._timeouts = timeouts or Timeouts()
        self._retry = retry or RetryPolicy()
        self._limits = limits or Limits()
        self._deadline = None if self._timeouts.total is None else now + self._timeouts.total
        self._parser: ReplyParser | None = None
        self._sent = now
        self._body_begun = False
        self._stale = False
        self._clock_corrected = False
        self._stale_connections = 0
        self.state = State.READY
        self.attempts = 0
        self.clock_correction_ms = clock_correction_ms

    @property
    def text(self) -> str:
        """The reply so far."""
        return "" if self._parser is None else self._parser.text

    @property
    def status(self) -> int | None:
        """The HTTP status of the response being read; None before there is one."""
        return None if self._parser is None else self._parser.status

    @property
    def headers(self) -> dict[str, str]:
        """That response's headers by lower-case name."""
        return {} if self._parser is None else self._parser.headers

    def attempt(self, now_ms: int) -> Request:
        """Begin an attempt: return its request, signed as of now."""
        self._expect(State.READY)
        self.state = State.SENT
        self.attempts += 1
        self._parser = None
        self._body_begun = self._stale = False
        return self._draft.sign(now_ms + self.clock_correction_ms)

    def send_limits(self, now: float) -> SendLimits:
        """Return how long the attempt that begins now may take to its response's head."""
        return SendLimits(
            self._within_total(self._timeouts.connect, now),
            self._timeouts.first_byte,
            self._deadline,
        )

    def read_limit(self, now: float) -> float | None:
        """Return how many seconds to wait for the next piece of the response's body.

        Raises:
            ReplyTimeout: no time is left.
        """
        timeouts = self._timeouts
        if self._body_begun:
            limit = timeouts.idle
        elif timeouts.first_byte is None:
            limit = None
        else:
            limit = self._sent + timeouts.first_byte - now
            if limit <= 0:
                raise self._timed_out("first_byte")
        if self._deadline is None:
            return limit
        if now >= self._deadline:
            raise self._timed_out("total")
        return self._within_total(limit, now)

    def receive_head(
        self, status: int, headers: Iterable[tuple[bytes, bytes]], *, sent: float, now_ms: int
    ) -> None:
        """Take the response's status and headers; `state` tells whether a reply follows.

        Args:
            status: the HTTP status.
            headers: as they came.
            sent: when the last byte of the request was sent, for `timeouts.first_byte`.
            now_ms: the time.

        Raises:
            ResponseError: that is all of the answer that matters.
            ConnectError: it is not the service's but a proxy's.
        """
        self._expect(State.SENT)
        self._sent = sent
        if status == PROXY_AUTHENTICATION_REQUIRED:
            refused = TransportError(Failure.CONNECT, "the proxy asks for a user and password")
            raise self.fail(refused, sent)
        try:
            lines = tuple(headers)
            check_head(status, lines, self._limits.max_head_bytes)
            self._parser = ReplyParser(
                status,
                lines,
                max_bytes=self._limits.max_reply_bytes,
                keep_text=self._keep_text,
                now=now_ms / 1000,
                secrets=self._secrets,
            )
        except GPROChatError:
            self.state = State.FAILED
            raise
        self.state = State.REPLY if self._parser.is_reply else State.ERROR

    def receive(self, data: bytes) -> str:
        """Take a piece of the response's body; return the text it brings, "" for none yet.

        Raises:
            ReplyTooLong, TruncatedReply, ResponseError: as `ReplyParser.feed`.
        """
        parser = self._parser
        if parser is None or self.state not in BODY_STATES:
            self._refuse()
        self._body_begun = True
        try:
            return parser.feed(data)
        except GPROChatError:
            self.state = State.FAILED
            raise

    def finish(self) -> str:
        """Take the proper end of the response's body; return the last of the text.

        Raises:
            InterruptedReply, TruncatedReply, ResponseError: as `ReplyParser.finish`.
        """
        parser = self._answer()
        try:
            text = parser.finish()
        except GPROChatError:
            self.state = State.FAILED
            raise
        self.state = State.DONE
        return text

    def fail(self, error: TransportError, now: float) -> GPROChatError:
        """Return what a transport's failure means at this point of the call."""
        if self.state is not State.SENT:
            self._answer()
        self.state = State.FAILED
        detail = f" ({error.detail})" if error.detail else ""
        if error.failure is Failure.CONNECT_TIMEOUT and self._parser is None:
            seconds = self._timeouts.connect
            if self._total_ran_out(now):
                return self._timed_out("total")
            within = "in time" if seconds is None else f"within {seconds} s"
            return ConnectTimeout(
                f"no connection {within}{detail}; check URL, network and proxy",
                seconds=seconds,
            )
        if error.failure is Failure.TIMEOUT:
            if self._total_ran_out(now):
                return self._timed_out("total")
            return self._timed_out("idle" if self._body_begun else "first_byte")
        if self._parser is not None:
            return self._parser.cut(f"{error.failure.value}{detail}")
        if error.failure is Failure.MALFORMED:
            return NotTheService(
                f"what answered does not speak HTTP as it must{detail}; check URL and proxy"
            )
        if error.failure is Failure.STALE:
            self._stale = True
        if error.failure in (Failure.LOST, Failure.STALE):
            return ConnectError(f"the connection was lost before an answer{detail}; try again")
        return ConnectError(f"no connection{detail}; check URL, network and proxy")

    def retry(self, error: GPROChatError, now: float, jitter: float) -> float | None:
        """Decide what follows a failed attempt.

        Args:
            error: what it ended with.
            now: the time.
            jitter: a random number from 0 to 1.

        Returns:
            the seconds to pause before the next `attempt`; None if the error is the caller's.
        """
        self._expect(State.FAILED)
        delay = self._decide(error, now, jitter)
        self.state = State.GIVEN_UP if delay is None else State.READY
        return delay

    def _decide(self, error: GPROChatError, now: float, jitter: float) -> float | None:
        if self._parser is not None and self._parser.is_reply:
            # Whoever has begun to read a reply cannot be given another from its beginning.
            return None
        if self._stale and self._stale_connections < MAX_STALE_CONNECTIONS:
            self._stale_connections += 1
            delay: float | None = 0.0
        elif isinstance(error, SignatureRejected) and self._correct_clock(error):
            delay = 0.0
        else:
            delay = self._retry.delay(error, self.attempts - self._stale_connections, jitter)
        if delay is None or (self._deadline is not None and now + delay >= self._deadline):
            return None
        return delay

    def _correct_clock(self, error: SignatureRejected) -> bool:
        """Set the time right by the service's, once a call; tell whether that changes anything."""
        skew = error.clock_skew
        if skew is None or self._clock_corrected:
            return False
        correction_ms = round(skew * 1000)
        if abs(correction_ms - self.clock_correction_ms) <= TOLERATED_CLOCK_SKEW * 1000:
            return False
        self._clock_corrected = True
        self.clock_correction_ms = correction_ms
        return True

    def _within_total(self, seconds: float | None, now: float) -> float | None:
        if self._deadline is None:
            return seconds
        left = max(0.0, self._deadline - now)
        return left if seconds is None else min(left, seconds)

    def _total_ran_out(self, now: float) -> bool:
        return self._deadline is not None and now + TIMER_SLACK >= self._deadline

    def _timed_out(self, limit: Literal["first_byte", "idle", "total"]) -> GPROChatError:
        self.state = State.FAILED
        if self._parser is not None and not self._parser.is_reply:
            # The status has told enough.
            return self._parser.cut("its body did not come in time")
        text = "" if self._parser is None else self._parser.salvage()
        seconds = {
            "first_byte": self._timeouts.first_byte,
            "idle": self._timeouts.idle,
            "total": self._timeouts.total,
        }[limit]
        what = {
            "first_byte": "no reply began within",
            "idle": "the reply stood still for",
            "total": "the call was not over within",
        }[limit]
        return ReplyTimeout(
            f"{what} {seconds} s, {len(text)} characters arrived; "
            f"try again or allow more: Timeouts({limit}=...)",
            text=text,
            limit=limit,
            seconds=seconds,
        )

    def _expect(self, state: State) -> None:
        if self.state is not state:
            self._refuse()

    def _answer(self) -> ReplyParser:
        if self._parser is None or self.state not in BODY_STATES:
            self._refuse()
        return self._parser

    def _refuse(self) -> NoReturn:
        raise UsageError(f"not now: {self.state.value}")
