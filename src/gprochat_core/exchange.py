"""One call, from its first attempt to the last byte of its reply, as a state machine.

An `Exchange` takes every decision: what to send, how long to wait, what a failure means, whether
and when to try again, when the reply is complete. It does no I/O and reads no clock. Its driver
does both, with or without `async`:

1. `attempt` returns the request to send. The driver passes the response's head to `receive_head`
   and each piece of its body to `receive`, which returns text; `receive(b"")` is the body's end.
2. When the transport fails, the driver passes the TransportError to `fail`, which returns the
   error that the failure means.
3. The driver passes each error of an attempt to `retry`, also one that came in the body. `retry`
   returns the seconds to pause before the next `attempt`, or raises the error when there is to be
   none. Once a reply has begun, there is none, unless the failure marker is the whole body.

Arguments called `now` and `sent` are seconds of a monotonic clock; `now_ms` is Unix time in
milliseconds.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final, Literal, NamedTuple, NoReturn, TypeAlias, cast

from .diagnosis import one_line
from .errors import (
    Cause,
    ConnectError,
    ConnectTimeout,
    GPROChatError,
    NotTheService,
    Phase,
    ReplyTimeout,
    SignatureRejected,
    TransportError,
    UsageError,
)
from .messages import Conversation, Encoding, read_messages
from .policy import Limits, RetryPolicy, Timeouts
from .redaction import Redactor
from .reply import ReplyParser
from .request import Draft, Request
from .service import Service

__all__ = ["Clock", "Exchange", "SendLimits", "State"]

TOLERATED_CLOCK_SKEW_MS: Final = 30_000
"""Milliseconds that a clock may be off before a rejected signature is blamed on it."""

MAX_AHEAD_MS: Final = 1000
"""How many milliseconds a request's time may be ahead of the clock: each request has its own time,
even if many begin in one millisecond."""

TIMER_SLACK: Final = 0.01
"""Seconds that an event loop's timer may be early, measured by another clock."""

PROXY_AUTHENTICATION_REQUIRED: Final = 407
"""The one status that only a proxy sends (RFC 9110, 15.5.8): the service was never reached."""

MAX_STALE_CONNECTIONS: Final = 100
"""How many stale connections a call may meet before the next one counts as a failed attempt."""


class State(Enum):
    """Where a call stands."""

    READY = "before the attempt has begun"
    SENT = "while the response's head is awaited"
    ERROR = "while the body of an error is received"
    REPLY = "while the reply is received"
    FAILED = "after the attempt failed"
    DONE = "after the reply is complete"
    GIVEN_UP = "after the call failed"


# Python 3.11 calls a function to look up a member of an enumeration.
READY, SENT, ERROR, REPLY, FAILED, DONE, GIVEN_UP = State

BODY_STATES: Final = (REPLY, ERROR)

NEXT_STEP: Final = {
    READY: "call attempt() first",
    SENT: "call receive_head() or fail() first",
    ERROR: "call receive() or fail()",
    REPLY: "call receive() or fail()",
    FAILED: "call retry() first",
    DONE: "make a new Exchange",
    GIVEN_UP: "make a new Exchange",
}
"""What the error tells a driver that has called the wrong method to do."""


Verdict: TypeAlias = Literal[
    "no slot",  # ConnectTimeout: all connections were in use
    "not in time",  # ConnectTimeout
    "unreachable",  # ConnectError
    "no reply",  # ReplyTimeout, limit "first_byte"
    "lost",  # ConnectError
    "not HTTP",  # NotTheService
    "stale",  # ConnectError; the connection was useless from the start, so a retry costs nothing
    "stalled",  # ReplyTimeout, limit "idle", or "first_byte" if only the head has come
    "cut off",  # TruncatedReply, InterruptedReply, or the error that the response is
]
"""What a transport's failure means."""

CAUSES: Final = (Cause.TIMED_OUT, Cause.LOST, Cause.MALFORMED, Cause.UNSOLICITED)

# fmt: off
VERDICTS: Final[Mapping[tuple[Phase, bool], tuple[Verdict, ...]]] = {
    # Phase and `reused`, then a column for each of CAUSES. Whatever the phase, TIMED_OUT is a
    # ReplyTimeout of limit "total" once `Timeouts.total` has run out.
    (Phase.WAITING,       False): ("no slot",     "unreachable", "unreachable", "unreachable"),
    (Phase.WAITING,       True):  ("no slot",     "unreachable", "unreachable", "unreachable"),
    (Phase.CONNECTING,    False): ("not in time", "unreachable", "unreachable", "unreachable"),
    (Phase.CONNECTING,    True):  ("not in time", "unreachable", "unreachable", "unreachable"),
    (Phase.SENDING,       False): ("no reply",    "lost",        "not HTTP",    "stale"),
    (Phase.SENDING,       True):  ("no reply",    "stale",       "stale",       "stale"),
    (Phase.AWAITING_HEAD, False): ("no reply",    "lost",        "not HTTP",    "stale"),
    (Phase.AWAITING_HEAD, True):  ("no reply",    "stale",       "stale",       "stale"),
    (Phase.READING,       False): ("stalled",     "cut off",     "cut off",     "cut off"),
    (Phase.READING,       True):  ("stalled",     "cut off",     "cut off",     "cut off"),
}
# fmt: on


class Clock:
    """The time that requests are signed with, shared by all calls to one service.

    Attributes:
        correction_ms: milliseconds to add to this machine's time when signing. A call whose
            signature was rejected because of the clock sets it.
    """

    def __init__(self, correction_ms: int = 0) -> None:
        self.correction_ms = correction_ms
        self._last_ms = 0

    def stamp(self, now_ms: int) -> int:
        """Return the corrected time, or the next millisecond that no request was signed with.

        The same text has the same signature in the same millisecond, and a service may refuse a
        signature that it has seen.
        """
        time_ms = now_ms + self.correction_ms
        if time_ms <= self._last_ms <= time_ms + MAX_AHEAD_MS:
            time_ms = self._last_ms + 1
        self._last_ms = time_ms
        return time_ms


class SendLimits(NamedTuple):
    """How long an attempt may take until its response begins.

    Attributes:
        connect: seconds until there is a connection; None for no limit.
        first_byte: seconds from the last byte sent to the response's head, and for sending to
            make progress; None for no limit.
        deadline: when the whole call must be over, on the clock of `now`; None for never.
    """

    connect: float | None
    first_byte: float | None
    deadline: float | None = None

    def reply(self, now: float) -> float | None:
        """Return `first_byte`, or the seconds from `now` to the deadline if these are fewer."""
        return until(self.deadline, self.first_byte, now)


class Exchange:
    """One call. A method that is called at the wrong time raises UsageError.

    Args:
        service: the deployment to ask; it must have its secret key.
        conversation: what to ask.
        timeouts, retry, limits: the caller's numbers; None for the defaults.
        keep_text: as in `ReplyParser`.
        now: the time, from which `timeouts.total` counts.
        clock: the time to sign with, which calls to one service share.
        redactor: removes secrets from what errors quote; by default the service's secrets.

    Raises:
        InvalidMessages: the conversation cannot be sent.
        ConfigurationError: the service has no secret key.

    Attributes:
        state: where the call stands.
        attempts: how many attempts have been made.
    """

    __slots__ = (
        "_attempted_ms",
        "_body_begun",
        "_clock",
        "_deadline",
        "_draft",
        "_encoding",
        "_keep_text",
        "_limits",
        "_parser",
        "_redactor",
        "_retried_for_clock",
        "_retry",
        "_sent",
        "_signed_correction_ms",
        "_stale",
        "_stale_connections",
        "_timeouts",
        "attempts",
        "state",
    )

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
        clock: Clock | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        self._draft = Draft(service, read_messages(conversation))
        self._encoding: Encoding = service.encoding
        self._keep_text = keep_text
        self._redactor = redactor or Redactor([service.secret_key or "", service.password or ""])
        self._timeouts = timeouts or Timeouts()
        self._retry = retry or RetryPolicy()
        self._limits = limits or Limits()
        self._deadline = None if self._timeouts.total is None else now + self._timeouts.total
        self._clock = clock or Clock()
        self._attempted_ms = 0
        self._signed_correction_ms = 0
        self._retried_for_clock = False
        self._parser: ReplyParser | None = None
        self._sent = now
        self._body_begun = False
        self._stale = False
        self._stale_connections = 0
        self.state: State = READY
        self.attempts: int = 0

    @property
    def text(self) -> str:
        """The reply so far."""
        return "" if self._parser is None else self._parser.text

    @property
    def status(self) -> int | None:
        """The HTTP status of the attempt's response; None before its head has come."""
        return None if self._parser is None else self._parser.status

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the attempt's response by lower-case name; empty before they have come."""
        return {} if self._parser is None else self._parser.headers

    def attempt(self, now_ms: int) -> Request:
        """Begin an attempt; return its request, signed with the time of the shared clock."""
        if self.state is not READY:
            self._refuse("attempt")
        self.state = SENT
        self.attempts += 1
        self._parser = None
        self._body_begun = self._stale = False
        self._attempted_ms = now_ms
        self._signed_correction_ms = self._clock.correction_ms
        return self._draft.sign(self._clock.stamp(now_ms))

    def send_limits(self, now: float) -> SendLimits:
        """Return how long the attempt that begins now may take to its response's head."""
        return SendLimits(
            until(self._deadline, self._timeouts.connect, now),
            self._timeouts.first_byte,
            self._deadline,
        )

    def read_limit(self, now: float) -> float | None:
        """Return how many seconds to wait for the next piece of the response's body.

        Raises:
            ReplyTimeout: `timeouts.total` has run out.
            ResponseError: it has run out before the body of an error came.
        """
        timeouts = self._timeouts
        if self._body_begun:
            limit = timeouts.idle
        elif timeouts.first_byte is None:
            limit = None
        else:
            # Bytes may have come in time for a caller who reads late, so a moment is always left.
            limit = max(self._sent + timeouts.first_byte - now, TIMER_SLACK)
        if self._deadline is None:
            return limit
        if now >= self._deadline:
            self.state = FAILED
            raise self._timed_out("total")
        return until(self._deadline, limit, now)

    def receive_head(
        self, status: int, headers: Iterable[tuple[bytes, bytes]], *, sent: float, now_ms: int
    ) -> None:
        """Take the response's status and headers; then `state` is REPLY or ERROR.

        Args:
            status: the HTTP status.
            headers: names and values as they came.
            sent: when the last byte of the request was sent, for `timeouts.first_byte`.
            now_ms: the time.

        Raises:
            ResponseError: the head alone shows which error the response is.
            ConnectError: a proxy answered, not the service.
        """
        if self.state is not SENT:
            self._refuse("receive_head")
        self._sent = sent
        try:
            if status == PROXY_AUTHENTICATION_REQUIRED:
                detail = "the proxy asks for a user and password"
                raise self.fail(TransportError(Cause.LOST, Phase.CONNECTING, detail=detail), sent)
            self._parser = ReplyParser(
                status,
                headers,
                max_bytes=self._limits.max_reply_bytes,
                max_head_bytes=self._limits.max_head_bytes,
                keep_text=self._keep_text,
                now=now_ms / 1000,
                waited=(now_ms - self._attempted_ms) / 1000,
                redactor=self._redactor,
                encoding=self._encoding,
            )
        except GPROChatError as error:
            self.state = FAILED
            # A traceback may be logged with its local variables, and these may echo a secret.
            headers = ()
            raise error.with_traceback(None) from None
        self.state = REPLY if self._parser.is_reply else ERROR

    def receive(self, data: bytes) -> str:
        """Take a piece of the response's body; return the text that it completes, or "".

        Args:
            data: the piece; b"" for the proper end of the body, after which `state` is DONE.

        Raises:
            ReplyTooLong, TruncatedReply, InterruptedReply, ResponseError: as in
                `ReplyParser.feed` and `ReplyParser.finish`.
        """
        parser = self._parser
        if parser is None or self.state not in BODY_STATES:
            self._refuse("receive")
        self._body_begun = True
        try:
            if data:
                return parser.feed(data)
            text = parser.finish()
        except GPROChatError as error:
            self.state = FAILED
            # As in receive_head.
            data = b""
            raise error.with_traceback(None) from None
        self.state = DONE
        return text

    def fail(self, error: TransportError, now: float) -> GPROChatError:
        """Return the error that a transport's failure means."""
        if self.state is not SENT and self.state not in BODY_STATES:
            self._refuse("fail")
        self.state = FAILED
        if error.cause is Cause.TIMED_OUT and self._total_ran_out(now):
            return self._timed_out("total")
        phase = error.phase
        # A response is read from the moment when its head was received here, and not before.
        if self._parser is not None:
            phase = Phase.READING
        elif phase is Phase.READING:
            phase = Phase.AWAITING_HEAD
        verdict = VERDICTS[phase, error.reused][CAUSES.index(error.cause)]
        self._stale = verdict == "stale"
        return self._make_error(verdict, error)

    def retry(self, error: GPROChatError, now: float, jitter: float) -> float:
        """Return the seconds to pause before the next attempt.

        Args:
            error: the error of the failed attempt.
            now: the time.
            jitter: a random number from 0 to 1.

        Raises:
            GPROChatError: `error` itself, if there is to be no further attempt.
        """
        if self.state is not FAILED:
            self._refuse("retry")
        pause = self._pause(error, now, jitter)
        if pause is None:
            self.state = GIVEN_UP
            try:
                raise error
            finally:
                # The error's traceback holds this frame: without it there is no cycle.
                del error
        self.state = READY
        return pause

    def _pause(self, error: GPROChatError, now: float, jitter: float) -> float | None:
        parser = self._parser
        if parser is not None and parser.is_reply and not parser.is_marker_alone:
            # The caller may have read the beginning of this reply; another would begin differently.
            return None
        if self._stale and self._stale_connections < MAX_STALE_CONNECTIONS:
            self._stale_connections += 1
            pause: float | None = 0.0
        elif isinstance(error, SignatureRejected) and self._correct_clock(error):
            pause = 0.0
        else:
            pause = self._retry.delay(error, self.attempts - self._stale_connections, jitter)
        if pause is None or (self._deadline is not None and now + pause >= self._deadline):
            return None
        return pause

    def _correct_clock(self, error: SignatureRejected) -> bool:
        """Correct the shared clock if it caused the error; tell whether to try again for that."""
        skew = error.clock_skew
        if skew is None or self._retried_for_clock:
            return False
        correction_ms = round(skew * 1000)
        # Another call may have corrected the clock since this attempt was signed.
        if abs(correction_ms - self._signed_correction_ms) <= TOLERATED_CLOCK_SKEW_MS:
            return False
        self._retried_for_clock = True
        self._clock.correction_ms = correction_ms
        return True

    def _make_error(self, verdict: Verdict, error: TransportError) -> GPROChatError:
        words = one_line(self._redactor.redact(error.detail))
        detail = f" ({words})" if words else ""
        match verdict:
            case "no slot" | "not in time":
                seconds = self._timeouts.connect
                if verdict == "no slot":
                    what = f"no connection was free {within(seconds)}"
                    advice = "raise Limits(max_connections=...) or make fewer calls at once"
                else:
                    what = f"no connection {within(seconds)}"
                    advice = "check URL, network and proxy"
                return ConnectTimeout(f"{what}; {advice}", seconds=seconds)
            case "unreachable":
                return ConnectError(f"no connection{detail}; check URL, network and proxy")
            case "no reply":
                return self._timed_out("first_byte")
            case "lost" | "stale":
                return ConnectError(f"the connection was lost before an answer{detail}; try again")
            case "not HTTP":
                return NotTheService(
                    f"the answer breaks the rules of HTTP{detail}; check URL and proxy"
                )
            case "stalled":
                return self._timed_out("idle" if self._body_begun else "first_byte")
            case "cut off":  # pragma: no branch (mypy sees that no verdict is left)
                # This verdict is given only after a head has come.
                parser = cast("ReplyParser", self._parser)
                if error.cause is Cause.MALFORMED and words:
                    # The library's words tell more: MALFORMED may mean that the body has no end.
                    return parser.cut(words)
                return parser.cut(f"{error.cause.value}{detail}")

    def _total_ran_out(self, now: float) -> bool:
        return self._deadline is not None and now + TIMER_SLACK >= self._deadline

    def _timed_out(self, limit: Literal["first_byte", "idle", "total"]) -> GPROChatError:
        if self._parser is not None and not self._parser.is_reply:
            # The status alone tells which error the response is.
            return self._parser.cut("its body did not come in time")
        text = "" if self._parser is None else self._parser.partial_text()
        seconds: float | None = getattr(self._timeouts, limit)
        what = {
            "first_byte": "no reply began",
            "idle": "the reply did not go on",
            "total": "the call was not over",
        }[limit]
        return ReplyTimeout(
            f"{what} {within(seconds)}, {len(text)} characters arrived; "
            f"try again or raise Timeouts({limit}=...)",
            text=text,
            limit=limit,
            seconds=seconds,
        )

    def _refuse(self, method: str) -> NoReturn:
        raise UsageError(f"{method}() {self.state.value}; {NEXT_STEP[self.state]}")


def until(deadline: float | None, seconds: float | None, now: float) -> float | None:
    """Return the seconds, or those from now to the deadline if these are fewer."""
    if deadline is None:
        return seconds
    left = max(0.0, deadline - now)
    return left if seconds is None else min(left, seconds)


def within(seconds: float | None) -> str:
    return "in time" if seconds is None else f"within {seconds} s"
