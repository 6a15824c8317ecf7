"""A call driven at random beside a model of it: whatever happens when, some things hold.

The model keeps only what a reader of the documentation could: which bytes of which reply were sent
in this attempt, how many attempts there were and why, and what time it is.
"""

import codecs
from collections.abc import Callable
from email.utils import formatdate
from typing import Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from gprochat_core import (
    Acceptance,
    Cause,
    Clock,
    ConnectError,
    Exchange,
    GPROChatError,
    IncompleteReply,
    InterruptedReply,
    Phase,
    ReplyTimeout,
    ReplyTooLong,
    ResponseError,
    RetryPolicy,
    Service,
    SignatureRejected,
    State,
    Timeouts,
    TransportError,
    TruncatedReply,
    UsageError,
)
from gprochat_core.exchange import MAX_AHEAD_MS
from gprochat_core.policy import Limits, is_transient
from gprochat_core.reply import FAILURE_MARKER

SERVICE: Final = Service("https://chat.example", secret_key="made-up key")
ACCEPTANCE: Final = Acceptance(SERVICE)
START_MS: Final = 1_700_000_000_000

# Whole seconds, so that the sums of the model are exact.
seconds = st.integers(1, 40)

pieces = st.one_of(
    st.text(min_size=1, max_size=6).map(str.encode),
    st.binary(min_size=1, max_size=5),
    st.sampled_from([b"I", b"Internal ", FAILURE_MARKER.encode(), "🙂".encode()[:3]]),
)


class Calls(RuleBasedStateMachine):
    """One call after another, each with its own numbers; what it learned of the clock stays."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.clock = Clock()
        self.signed_ms = 0
        self.call: Exchange
        self.error: GPROChatError | None = None

    @initialize(
        max_attempts=st.integers(1, 4),
        first_byte=st.none() | seconds,
        idle=st.none() | seconds,
        total=st.none() | st.integers(1, 100),
        max_reply_bytes=st.sampled_from([10, 1 << 20]),
    )
    def begin(
        self,
        max_attempts: int,
        first_byte: int | None,
        idle: int | None,
        total: int | None,
        max_reply_bytes: int,
    ) -> None:
        self.retries = RetryPolicy(max_attempts=max_attempts, base_delay=1, max_delay=4)
        self.max_reply_bytes = max_reply_bytes
        self.deadline = None if total is None else self.now + total
        self.call = Exchange(
            SERVICE,
            "Hello",
            timeouts=Timeouts(first_byte=first_byte, idle=idle, total=total),
            retry=self.retries,
            limits=Limits(max_reply_bytes=max_reply_bytes),
            now=self.now,
            clock=self.clock,
        )
        self.attempts = self.stale = self.corrections = 0
        self.began_a_reply = self.was_stale = False
        self.sent = b""
        self.text = ""
        self.error = None

    # What a driver does

    @precondition(lambda self: self.call.state is State.READY)
    @rule()
    def attempt(self) -> None:
        request = self.call.attempt(self.now_ms)
        self.attempts += 1
        self.error = None
        self.was_stale = False
        time_ms = self.now_ms + self.clock.correction_ms
        signed_ms = ACCEPTANCE.accept(request.body, time_ms).time_ms
        # It is ahead of the time if an earlier request was signed with the same one.
        assert time_ms <= signed_ms <= time_ms + MAX_AHEAD_MS
        assert signed_ms != self.signed_ms
        self.signed_ms = signed_ms

    @precondition(lambda self: self.call.state is State.SENT)
    @rule()
    def the_head_of_a_reply_comes(self) -> None:
        self.call.receive_head(200, [], sent=self.now, now_ms=self.now_ms)
        assert self.call.state is State.REPLY
        self.began_a_reply = True
        self.sent = b""

    @precondition(lambda self: self.call.state is State.SENT)
    @rule(
        status=st.sampled_from([302, 400, 403, 404, 413, 429, 500, 501, 503]),
        headers=st.sampled_from([[], [(b"retry-after", b"3")], [(b"retry-after", b"999")]]),
    )
    def the_head_of_an_error_comes(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        try:
            self.call.receive_head(status, headers, sent=self.now, now_ms=self.now_ms)
        except ResponseError as error:
            self.failed(error)
        else:
            assert self.call.state is State.ERROR

    @precondition(lambda self: self.call.state is State.SENT)
    @rule(seconds_behind=st.sampled_from([-100_000, -31, -30, 0, 30, 31, 90]))
    def the_signature_is_rejected(self, seconds_behind: int) -> None:
        date = formatdate(self.now_ms / 1000 + seconds_behind, usegmt=True).encode()
        self.call.receive_head(401, [(b"date", date)], sent=self.now, now_ms=self.now_ms)
        self.call.receive(b'{"error": {"message": "Invalid signature."}}')
        with pytest.raises(SignatureRejected) as caught:
            self.call.receive(b"")
        self.failed(caught.value)

    @precondition(lambda self: self.call.state in (State.REPLY, State.ERROR))
    @rule(data=pieces)
    def a_piece_comes(self, data: bytes) -> None:
        if self.call.state is State.REPLY:
            self.sent += data
        try:
            self.text += self.call.receive(data)
        except ReplyTooLong as error:
            self.failed(error)
            assert len(self.sent) > self.max_reply_bytes
        else:
            assert len(self.sent) <= self.max_reply_bytes

    @precondition(lambda self: self.call.state in (State.REPLY, State.ERROR))
    @rule()
    def the_body_ends(self) -> None:
        is_reply = self.call.state is State.REPLY
        try:
            self.text += self.call.receive(b"")
        except (InterruptedReply, ResponseError) as error:
            self.failed(error)
        if is_reply and self.error is not None:
            assert isinstance(self.error, InterruptedReply)
            assert self.all_that_was_sent == self.call.text + FAILURE_MARKER
        elif is_reply:
            assert self.call.state is State.DONE
            assert self.text == self.all_that_was_sent
            assert not self.text.endswith(FAILURE_MARKER)
        else:
            assert isinstance(self.error, ResponseError)

    @precondition(lambda self: self.call.state in (State.SENT, State.REPLY, State.ERROR))
    @rule(
        cause=st.sampled_from(Cause),
        phase=st.sampled_from([Phase.CONNECTING, Phase.AWAITING_HEAD, Phase.READING]),
        reused=st.booleans(),
    )
    def the_transport_fails(self, cause: Cause, phase: Phase, reused: bool) -> None:
        before = self.call.state
        error = self.call.fail(TransportError(cause, phase, reused=reused), self.now)
        self.failed(error)
        if before is State.REPLY:
            assert isinstance(error, (TruncatedReply, InterruptedReply, ReplyTimeout))
            assert self.whole_characters.startswith(error.text)
            assert self.whole_characters.removeprefix(error.text) in ("", FAILURE_MARKER)
        elif before is State.ERROR:
            assert isinstance(error, ResponseError)
        elif phase is not Phase.CONNECTING and (
            cause is Cause.UNSOLICITED or (reused and cause in (Cause.LOST, Cause.MALFORMED))
        ):
            assert isinstance(error, ConnectError)
            self.was_stale = True

    @precondition(lambda self: self.call.state in (State.REPLY, State.ERROR))
    @rule()
    def the_driver_asks_how_long_to_read(self) -> None:
        try:
            limit = self.call.read_limit(self.now)
        except (ReplyTimeout, ResponseError) as error:
            self.failed(error)
        else:
            assert limit is None or limit > 0
            assert self.deadline is None or limit is not None
            assert self.deadline is None or self.now + (limit or 0) <= self.deadline

    @rule(elapsed=seconds)
    def time_goes_by(self, elapsed: int) -> None:
        self.now += elapsed

    @precondition(lambda self: self.call.state is State.FAILED and self.error is not None)
    @rule(jitter=st.sampled_from([0.0, 0.5, 1.0]))
    def the_driver_asks_for_another_attempt(self, jitter: float) -> None:
        assert self.error is not None
        correction_ms = self.clock.correction_ms
        try:
            pause = self.call.retry(self.error, self.now, jitter)
        except GPROChatError as raised:
            if raised is not self.error:
                raise
            assert self.call.state is State.GIVEN_UP
            delay = self.retries.delay(self.error, self.attempts - self.stale, jitter)
            earliest = 0.0 if self.was_stale else delay
            assert (
                (self.began_a_reply and not self.failed_before_the_first_word)
                or earliest is None
                or (self.deadline is not None and self.now + earliest >= self.deadline)
            )
            return
        assert self.call.state is State.READY
        assert not self.began_a_reply or self.failed_before_the_first_word
        self.began_a_reply = False
        assert 0 <= pause <= max(self.retries.max_delay, self.retries.max_retry_after)
        assert self.deadline is None or self.now + pause < self.deadline
        if self.clock.correction_ms != correction_ms:
            assert isinstance(self.error, SignatureRejected)
            self.corrections += 1
        elif not self.was_stale:
            assert is_transient(self.error)
        self.stale += self.was_stale

    @precondition(lambda self: self.call.state in (State.DONE, State.GIVEN_UP))
    @rule(
        max_attempts=st.integers(1, 4),
        total=st.none() | st.integers(1, 100),
    )
    def another_call(self, max_attempts: int, total: int | None) -> None:
        self.begin(max_attempts, 60, 30, total, 1 << 20)

    @rule(name=st.sampled_from(["attempt", "head", "receive", "fail", "retry"]))
    def the_driver_is_confused(self, name: str) -> None:
        call, state = self.call, self.call.state
        calls: dict[str, tuple[Callable[[], object], set[State]]] = {
            "attempt": (lambda: call.attempt(self.now_ms), {State.READY}),
            "head": (
                lambda: call.receive_head(200, [], sent=self.now, now_ms=self.now_ms),
                {State.SENT},
            ),
            "receive": (lambda: call.receive(b"late"), {State.REPLY, State.ERROR}),
            "fail": (
                lambda: call.fail(TransportError(Cause.LOST, Phase.READING), self.now),
                {State.SENT, State.REPLY, State.ERROR},
            ),
            "retry": (lambda: call.retry(ConnectError("late"), self.now, 0.0), {State.FAILED}),
        }
        misplaced, allowed = calls[name]
        if state in allowed:
            return
        with pytest.raises(UsageError):
            misplaced()
        assert call.state is state

    # What holds

    @invariant()
    def what_was_handed_over_is_the_beginning_of_what_was_sent(self) -> None:
        assert self.all_that_was_sent.startswith(self.text)
        assert self.call.text == (self.text if self.error is None else self.text_after_failure)

    @invariant()
    def no_text_so_far_is_lost(self) -> None:
        assert self.call.text.startswith(self.text)

    @invariant()
    def the_attempts_are_counted_and_bounded(self) -> None:
        assert self.call.attempts == self.attempts
        assert self.corrections <= 1
        assert self.attempts - self.stale <= self.retries.max_attempts + self.corrections

    # The model

    @property
    def now_ms(self) -> int:
        return START_MS + self.now * 1000

    @property
    def all_that_was_sent(self) -> str:
        return self.sent.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")

    @property
    def whole_characters(self) -> str:
        """What was sent, but for the bytes of a character that did not come to its end."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return decoder.decode(self.sent).removeprefix("\ufeff")

    @property
    def failed_before_the_first_word(self) -> bool:
        alone = self.sent == FAILURE_MARKER.encode()
        return alone and isinstance(self.error, InterruptedReply)

    @property
    def text_after_failure(self) -> str:
        return self.error.text if isinstance(self.error, IncompleteReply) else ""

    def failed(self, error: GPROChatError) -> None:
        assert self.call.state is State.FAILED
        self.error = error


Calls.TestCase.settings = settings(
    max_examples=2 * settings().max_examples,
    stateful_step_count=min(40, settings().stateful_step_count),
)
TestCalls = Calls.TestCase
