"""One call's decisions: what each failure means where it strikes, and what follows from it."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from email.utils import formatdate
from itertools import accumulate
from typing import Final, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprochat_core import (
    Acceptance,
    AuthenticationError,
    BadRequest,
    Cause,
    Clock,
    ConfigurationError,
    ConnectError,
    ConnectTimeout,
    Exchange,
    GPROChatError,
    InterruptedReply,
    InvalidMessages,
    Limits,
    NotTheService,
    PasswordRejected,
    Phase,
    RateLimited,
    ReplyTimeout,
    ReplyTooLong,
    RetryPolicy,
    Service,
    ServiceFailed,
    SignatureRejected,
    State,
    Timeouts,
    TransportError,
    TruncatedReply,
    UsageError,
)
from gprochat_core.exchange import NEXT_STEP, SendLimits

SERVICE: Final = Service("https://chat.example/gpt", secret_key="made-up key")
NOW_MS: Final = 1_700_000_000_000

LOST: Final = TransportError(Cause.LOST, Phase.AWAITING_HEAD)
STALE: Final = TransportError(Cause.LOST, Phase.AWAITING_HEAD, reused=True)
SILENT: Final = TransportError(Cause.TIMED_OUT, Phase.AWAITING_HEAD)
NOT_CONNECTED_IN_TIME: Final = TransportError(Cause.TIMED_OUT, Phase.CONNECTING)
NO_SLOT: Final = TransportError(Cause.TIMED_OUT, Phase.WAITING)

Headers = Sequence[tuple[bytes, bytes]]


def exchange(
    *,
    timeouts: Timeouts | None = None,
    retry: RetryPolicy | None = None,
    limits: Limits | None = None,
    now: float = 0.0,
    clock: Clock | None = None,
) -> Exchange:
    return Exchange(
        SERVICE,
        "Hello",
        timeouts=timeouts,
        retry=retry,
        limits=limits,
        now=now,
        clock=clock,
    )


def in_state(state: State) -> Exchange:
    """A call that has come to a state."""
    call = exchange(retry=RetryPolicy(max_attempts=1))
    if state is State.READY:
        return call
    call.attempt(NOW_MS)
    if state is State.SENT:
        return call
    if state in (State.FAILED, State.GIVEN_UP):
        error = call.fail(LOST, 0.0)
        if state is State.GIVEN_UP:
            assert pause(call, error, 0.0, 0.0) is None
        return call
    call.receive_head(500 if state is State.ERROR else 200, [], sent=0.0, now_ms=NOW_MS)
    if state is State.DONE:
        call.receive(b"")
    return call


def answer(
    call: Exchange, status: int, body: bytes = b"", headers: Headers = (), *, now_ms: int = NOW_MS
) -> GPROChatError:
    """Make an attempt that is answered with an error."""
    call.attempt(now_ms)
    try:
        call.receive_head(status, headers, sent=0.0, now_ms=now_ms)
        call.receive(body)
        call.receive(b"")
    except GPROChatError as error:
        return error
    pytest.fail("this was taken for a reply")


def broken(call: Exchange, failure: TransportError, now: float = 0.0) -> GPROChatError:
    """Make an attempt that the transport fails before an answer."""
    call.attempt(NOW_MS)
    return call.fail(failure, now)


def pause(call: Exchange, error: GPROChatError, now: float, jitter: float) -> float | None:
    """Ask for a retry; None where the error is raised instead."""
    try:
        return call.retry(error, now, jitter)
    except GPROChatError as raised:
        if raised is not error:
            raise
        return None


def error_json(message: str) -> bytes:
    return json.dumps({"error": {"message": message}}).encode()


# A call that goes well


def test_a_call_goes_from_ready_to_done() -> None:
    call = exchange()
    assert (call.state, call.attempts, call.text) == (State.READY, 0, "")
    assert (call.status, call.headers) == (None, {})
    request = call.attempt(NOW_MS)
    assert (call.state, call.attempts) == (State.SENT, 1)
    assert Acceptance(SERVICE).accept(request.body, NOW_MS).messages[0].text == "Hello"
    assert request.url == "https://chat.example/gpt/api/generate"
    call.receive_head(200, [(b"X-From", b"far")], sent=0.0, now_ms=NOW_MS)
    assert (call.state, call.status, call.headers) == (State.REPLY, 200, {"x-from": "far"})
    assert [call.receive(piece) for piece in (b"Hi ", b"\xf0\x9f", b"\x99\x82 I")] == [
        "Hi ",
        "",
        "🙂 ",
    ]
    assert call.text == "Hi 🙂 "
    assert call.receive(b"") == "I"
    assert (call.state, call.text, call.attempts) == (State.DONE, "Hi 🙂 I", 1)


def test_a_conversation_that_cannot_be_sent_is_refused_before_anything_is() -> None:
    with pytest.raises(InvalidMessages):
        Exchange(SERVICE, [])


def test_a_service_without_a_key_cannot_be_asked() -> None:
    with pytest.raises(ConfigurationError, match="secret key"):
        Exchange(Service("https://chat.example"), "Hello")


def test_a_call_need_not_keep_its_text() -> None:
    call = Exchange(SERVICE, "Hello", keep_text=False)
    call.attempt(NOW_MS)
    call.receive_head(200, [], sent=0.0, now_ms=NOW_MS)
    assert call.receive(b"Hi, I") == "Hi, "
    error = call.fail(LOST, 0.0)
    assert isinstance(error, TruncatedReply)
    assert error.text == call.text == "I"


# Calls in a wrong order

CALLS: dict[str, tuple[Callable[[Exchange], object], set[State]]] = {
    "attempt": (lambda call: call.attempt(NOW_MS), {State.READY}),
    "receive_head": (
        lambda call: call.receive_head(200, [], sent=0.0, now_ms=NOW_MS),
        {State.SENT},
    ),
    "receive": (lambda call: call.receive(b"more"), {State.REPLY, State.ERROR}),
    "fail": (
        lambda call: call.fail(LOST, 0.0),
        {State.SENT, State.REPLY, State.ERROR},
    ),
    "retry": (lambda call: call.retry(ConnectError("lost"), 0.0, 0.0), {State.FAILED}),
}


@pytest.mark.parametrize("state", State)
def test_each_state_can_be_reached(state: State) -> None:
    assert in_state(state).state is state


@pytest.mark.parametrize(
    ("state", "name"),
    [
        pytest.param(state, name, id=f"{name} when {state.name}")
        for name, (_, allowed) in CALLS.items()
        for state in State
        if state not in allowed
    ],
)
def test_a_call_in_the_wrong_order_is_refused_and_changes_nothing(state: State, name: str) -> None:
    call = in_state(state)
    before = (call.state, call.attempts, call.text)
    with pytest.raises(UsageError, match=rf"^{name}\(\) {state.value}; (call|make) "):
        CALLS[name][0](call)
    assert (call.state, call.attempts, call.text) == before


def test_a_call_in_the_wrong_order_is_told_what_to_call_instead() -> None:
    call = in_state(State.FAILED)
    with pytest.raises(UsageError) as caught:
        call.receive(b"more")
    assert str(caught.value) == "receive() after the attempt failed; call retry() first"


@pytest.mark.parametrize("state", State)
def test_each_method_that_is_advised_is_allowed(state: State) -> None:
    allowed = {name for name, (_, states) in CALLS.items() if state in states}
    advised = set(re.findall(r"(\w+)\(\)", NEXT_STEP[state]))
    assert advised == allowed


# What a failure means where it strikes

NO_CONNECTION = "no connection (why); check URL, network and proxy"
NO_SLOT_IN_TIME = "no connection was free within 10.0 s; raise Limits(max_connections=...)"
NOT_IN_TIME = "no connection within 10.0 s; check URL, network and proxy"
NO_REPLY = "no reply began within 60.0 s, 0 characters arrived; "
NO_ANSWER = "the connection was lost before an answer (why); try again"
NOT_HTTP = "the answer breaks the rules of HTTP (why); check URL and proxy"

BEFORE_THE_REQUEST = (Phase.WAITING, Phase.CONNECTING)
BEFORE_AN_ANSWER = (*BEFORE_THE_REQUEST, Phase.SENDING, Phase.AWAITING_HEAD)

FAILURES: list[tuple[TransportError, type[GPROChatError], str, bool]] = [
    # What a transport reports, which error it means, what that says, and whether a retry is free.
    *[
        (TransportError(cause, phase, reused=reused, detail="why"), error, said, False)
        for reused in (False, True)
        for cause, phase, error, said in (
            (Cause.TIMED_OUT, Phase.WAITING, ConnectTimeout, NO_SLOT_IN_TIME),
            (Cause.TIMED_OUT, Phase.CONNECTING, ConnectTimeout, NOT_IN_TIME),
            (Cause.TIMED_OUT, Phase.SENDING, ReplyTimeout, NO_REPLY),
            (Cause.TIMED_OUT, Phase.AWAITING_HEAD, ReplyTimeout, NO_REPLY),
            *(
                (cause, phase, ConnectError, NO_CONNECTION)
                for cause in (Cause.LOST, Cause.MALFORMED, Cause.UNSOLICITED)
                for phase in BEFORE_THE_REQUEST
            ),
        )
    ],
    *[
        (TransportError(cause, phase, reused=reused, detail="why"), error, said, free)
        for phase in (Phase.SENDING, Phase.AWAITING_HEAD)
        for cause, reused, error, said, free in (
            (Cause.LOST, False, ConnectError, NO_ANSWER, False),
            (Cause.LOST, True, ConnectError, NO_ANSWER, True),
            (Cause.MALFORMED, False, NotTheService, NOT_HTTP, False),
            (Cause.MALFORMED, True, ConnectError, NO_ANSWER, True),
            (Cause.UNSOLICITED, False, ConnectError, NO_ANSWER, True),
            (Cause.UNSOLICITED, True, ConnectError, NO_ANSWER, True),
        )
    ],
]


def facts(error: TransportError) -> tuple[Cause, Phase, bool]:
    return (error.cause, error.phase, error.reused)


@pytest.mark.parametrize(
    ("failure", "error", "said", "free"), FAILURES, ids=lambda value: str(value)[:60]
)
def test_a_failure_before_an_answer(
    failure: TransportError, error: type[GPROChatError], said: str, free: bool
) -> None:
    call = exchange(retry=RetryPolicy(max_attempts=1))
    failed = broken(call, failure)
    assert type(failed) is error
    assert str(failed).startswith(said)
    assert call.state is State.FAILED
    assert pause(call, failed, 0.0, 1.0) == (0.0 if free else None)


def test_each_failure_has_its_meaning_before_an_answer() -> None:
    assert sorted(map(str, (facts(failure) for failure, *_ in FAILURES))) == sorted(
        str((cause, phase, reused))
        for cause in Cause
        for phase in BEFORE_AN_ANSWER
        for reused in (False, True)
    )


def test_a_transport_that_reports_reading_before_the_head_means_awaiting_it() -> None:
    for cause in Cause:
        reading = broken(exchange(), TransportError(cause, Phase.READING))
        awaiting = broken(exchange(), TransportError(cause, Phase.AWAITING_HEAD))
        assert (type(reading), str(reading)) == (type(awaiting), str(awaiting))


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("phase", Phase)
def test_a_failure_without_details_leaves_no_brackets(cause: Cause, phase: Phase) -> None:
    told = str(broken(exchange(), TransportError(cause, phase)))
    assert " (" not in told
    told_more = str(broken(exchange(), TransportError(cause, phase, detail="why")))
    assert told_more.replace(" (why)", "") == told


def test_a_timed_out_connection_without_a_limit_of_ours_names_none() -> None:
    call = exchange(timeouts=Timeouts(connect=None))
    error = broken(call, NOT_CONNECTED_IN_TIME)
    assert isinstance(error, ConnectTimeout)
    assert error.seconds is None
    assert str(error).startswith("no connection in time; ")


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause is not Cause.TIMED_OUT])
@pytest.mark.parametrize("phase", Phase)
def test_a_failure_within_a_reply_truncates_it(cause: Cause, phase: Phase) -> None:
    call = in_state(State.REPLY)
    call.receive(b"Hello Inter")
    error = call.fail(TransportError(cause, phase, detail="why"), 0.0)
    assert isinstance(error, TruncatedReply)
    assert error.text == call.text == "Hello Inter"
    assert "why" in str(error)
    assert call.state is State.FAILED


def test_silence_within_a_reply_keeps_what_arrived() -> None:
    call = in_state(State.REPLY)
    call.receive(b"Hello Inter")
    error = call.fail(TransportError(Cause.TIMED_OUT, Phase.READING), 0.0)
    assert isinstance(error, ReplyTimeout)
    assert (error.limit, error.seconds) == ("idle", 30.0)
    assert error.text == call.text == "Hello Inter"
    assert "the reply did not go on within 30.0 s, 11 characters arrived" in str(error)


def test_silence_after_a_replys_head_is_a_reply_that_did_not_begin() -> None:
    error = in_state(State.REPLY).fail(TransportError(Cause.TIMED_OUT, Phase.READING), 0.0)
    assert isinstance(error, ReplyTimeout)
    assert (error.limit, error.seconds, error.text) == ("first_byte", 60.0, "")


@pytest.mark.parametrize("cause", Cause)
def test_a_failure_within_an_error_is_that_error(cause: Cause) -> None:
    call = in_state(State.ERROR)
    call.receive(error_json("it broke"))
    error = call.fail(TransportError(cause, Phase.READING), 0.0)
    assert type(error) is ServiceFailed
    assert (error.status, error.message) == (500, "it broke")
    assert call.state is State.FAILED


@pytest.mark.parametrize(
    ("cause", "detail", "why"),
    [
        (Cause.LOST, "reset by peer", "connection lost (reset by peer)"),
        (Cause.LOST, "", "connection lost"),
        (Cause.MALFORMED, "body not complete", "body not complete"),
        (Cause.MALFORMED, "", "not HTTP"),
    ],
)
def test_a_reply_that_was_cut_off_says_why(cause: Cause, detail: str, why: str) -> None:
    call = in_reply_with(b"Hello")
    error = call.fail(TransportError(cause, Phase.READING, detail=detail), 0.0)
    assert str(error) == f"the reply was cut off after 5 characters: {why}"


def test_a_reply_that_the_service_interrupts_fails() -> None:
    call = in_state(State.REPLY)
    call.receive(b"Hello Internal server error")
    with pytest.raises(InterruptedReply) as caught:
        call.receive(b"")
    assert caught.value.text == call.text == "Hello "
    assert call.state is State.FAILED


def failed_before_the_first_word(call: Exchange, pieces: Sequence[bytes]) -> GPROChatError:
    call.attempt(NOW_MS)
    call.receive_head(200, [], sent=0.0, now_ms=NOW_MS)
    for piece in pieces:
        assert call.receive(piece) == ""
    with pytest.raises(InterruptedReply) as caught:
        call.receive(b"")
    return caught.value


@pytest.mark.parametrize("pieces", [[b"Internal server error"], [b"Internal ", b"server error"]])
def test_a_failure_before_the_first_word_is_tried_again_and_said_to_be_one(
    pieces: list[bytes],
) -> None:
    call = exchange()
    assert call.retry(failed_before_the_first_word(call, pieces), 0.0, 1.0) == 0.5
    assert call.retry(failed_before_the_first_word(call, pieces), 0.0, 1.0) == 1.0
    error = failed_before_the_first_word(call, pieces)
    assert isinstance(error, InterruptedReply)
    assert "before the first word" in str(error)
    assert error.text == call.text == ""
    assert pause(call, error, 0.0, 1.0) is None


def test_the_failure_marker_before_a_lost_connection_is_tried_again() -> None:
    call = in_reply_with(b"Internal server error")
    assert call.retry(call.fail(TransportError(Cause.LOST, Phase.READING), 0.0), 0.0, 1.0) == 0.5


@pytest.mark.parametrize("keep_text", [True, False])
@pytest.mark.parametrize("body", [b"I", b"Hello", b" ", b"Internal server errorInternal server"])
def test_a_failure_after_some_text_is_not_tried_again(body: bytes, keep_text: bool) -> None:
    call = in_reply_with(body + b"Internal server error", keep_text=keep_text)
    with pytest.raises(InterruptedReply, match="characters of the reply") as caught:
        call.receive(b"")
    assert pause(call, caught.value, 0.0, 1.0) is None


def in_reply_with(body: bytes, *, keep_text: bool = True) -> Exchange:
    call = Exchange(SERVICE, "Hello", keep_text=keep_text)
    call.attempt(NOW_MS)
    call.receive_head(200, [], sent=0.0, now_ms=NOW_MS)
    call.receive(body)
    return call


def test_a_reply_longer_than_the_limit_fails() -> None:
    call = exchange(limits=Limits(max_reply_bytes=5))
    call.attempt(NOW_MS)
    call.receive_head(200, [], sent=0.0, now_ms=NOW_MS)
    with pytest.raises(ReplyTooLong) as caught:
        call.receive(b"123456")
    assert caught.value.text == call.text == "12345"
    assert call.state is State.FAILED


def test_an_answer_that_its_head_settles_fails_at_once() -> None:
    call = in_state(State.SENT)
    with pytest.raises(NotTheService):
        call.receive_head(302, [(b"location", b"/login")], sent=0.0, now_ms=NOW_MS)
    assert call.state is State.FAILED


def test_a_head_longer_than_the_limit_is_not_the_services() -> None:
    head = [(b"name", b"value")] * 10
    size = 10 * len("name: value\r\n")
    for limit in (size, size - 1):
        call = exchange(limits=Limits(max_head_bytes=limit))
        call.attempt(NOW_MS)
        if limit == size:
            call.receive_head(200, head, sent=0.0, now_ms=NOW_MS)
            assert call.state is State.REPLY
        else:
            with pytest.raises(
                NotTheService, match=f"{size} bytes long, more than {limit}"
            ) as caught:
                call.receive_head(200, head, sent=0.0, now_ms=NOW_MS)
            assert caught.value.status == 200
            assert call.state is State.FAILED


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        ([(b"Content-Length", b"5")], True),
        ([(b"Transfer-Encoding", b"chunked")], True),
        ([(b"Content-Length", b"5"), (b"content-length", b"5")], True),
        ([(b"Content-Length", b"5"), (b"content-length", b"6")], False),
        ([(b"Content-Length", b"5"), (b"transfer-encoding", b"chunked")], False),
    ],
)
def test_a_body_has_one_length(headers: Headers, accepted: bool) -> None:
    call = in_state(State.SENT)
    if accepted:
        call.receive_head(200, headers, sent=0.0, now_ms=NOW_MS)
        assert call.state is State.REPLY
    else:
        with pytest.raises(NotTheService, match="length in two ways") as caught:
            call.receive_head(200, headers, sent=0.0, now_ms=NOW_MS)
        assert caught.value.status == 200


@pytest.mark.parametrize("secret", ["made-up key", "open sesame"])
def test_a_secret_that_the_service_repeats_is_not_repeated(secret: str) -> None:
    service = Service("https://chat.example", secret_key="made-up key", password="open sesame")
    error = answer(Exchange(service, "Hello"), 500, error_json(f"cannot use {secret} here"))
    assert isinstance(error, ServiceFailed)
    assert secret not in error.message
    assert secret not in str(error)


# What is tried again

QUOTA = "[429 Too Many Requests] Quota exceeded"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(408, b"", id="408"),
        pytest.param(429, b"", id="429"),
        pytest.param(502, b"", id="502"),
        pytest.param(503, b"<html>", id="503"),
        pytest.param(504, b"", id="504"),
        pytest.param(520, b"", id="520"),
        pytest.param(529, b"", id="529"),
        pytest.param(500, b"", id="unexplained 500"),
        pytest.param(500, error_json("fetch failed"), id="failed 500"),
        pytest.param(500, error_json(QUOTA), id="429 hidden in a 500"),
    ],
)
def test_an_answer_that_may_pass_is_tried_again(status: int, body: bytes) -> None:
    call = exchange()
    error = answer(call, status, body)
    assert call.retry(error, 0.0, 1.0) == 0.5
    assert call.state is State.READY


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, b"", BadRequest),
        (413, b"", BadRequest),
        (401, error_json("Invalid password."), PasswordRejected),
        (401, error_json("Invalid signature."), SignatureRejected),
        (403, b"", AuthenticationError),
        (404, b"", NotTheService),
        (302, b"", NotTheService),
        (501, b"", ServiceFailed),
        (500, error_json("API key not valid. Please pass a valid one."), ServiceFailed),
    ],
)
def test_an_answer_that_stays_is_the_callers(
    status: int, body: bytes, error: type[GPROChatError]
) -> None:
    call = exchange()
    failed = answer(call, status, body)
    assert type(failed) is error
    assert pause(call, failed, 0.0, 0.0) is None
    assert call.state is State.GIVEN_UP


@pytest.mark.parametrize(
    ("cause", "phase", "tried_again"),
    [
        (Cause.TIMED_OUT, Phase.WAITING, True),
        (Cause.TIMED_OUT, Phase.CONNECTING, True),
        (Cause.LOST, Phase.CONNECTING, True),
        (Cause.MALFORMED, Phase.CONNECTING, True),
        (Cause.LOST, Phase.AWAITING_HEAD, True),
        (Cause.UNSOLICITED, Phase.SENDING, True),
        (Cause.TIMED_OUT, Phase.SENDING, False),
        (Cause.TIMED_OUT, Phase.AWAITING_HEAD, False),
        (Cause.MALFORMED, Phase.AWAITING_HEAD, False),
    ],
)
def test_which_failures_before_an_answer_are_tried_again(
    cause: Cause, phase: Phase, tried_again: bool
) -> None:
    call = exchange()
    failed = broken(call, TransportError(cause, phase))
    assert (pause(call, failed, 0.0, 0.0) is not None) is tried_again


def test_an_error_cut_off_is_tried_again_if_its_status_may_pass() -> None:
    for status, seconds in ((503, 0.5), (501, None)):
        call = exchange()
        call.attempt(NOW_MS)
        call.receive_head(status, [], sent=0.0, now_ms=NOW_MS)
        assert pause(call, call.fail(LOST, 0.0), 0.0, 1.0) == seconds


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("data", [b"", b"H", b"\xd0", b"Inter"])
def test_nothing_is_tried_again_once_a_reply_has_begun(cause: Cause, data: bytes) -> None:
    call = exchange()
    call.attempt(NOW_MS)
    call.receive_head(200, [], sent=0.0, now_ms=NOW_MS)
    if data:
        call.receive(data)
    error = call.fail(TransportError(cause, Phase.READING), 0.0)
    assert pause(call, error, 0.0, 0.0) is None


@pytest.mark.parametrize("error", [ConnectError("lost"), RateLimited("busy", retry_after=0)])
def test_no_error_whatever_makes_a_reply_begin_again(error: GPROChatError) -> None:
    call = in_state(State.REPLY)
    call.receive(b"Hello")
    call.fail(LOST, 0.0)
    assert pause(call, error, 0.0, 0.0) is None


def test_a_call_ends_with_its_last_attempt() -> None:
    call = exchange(retry=RetryPolicy(max_attempts=4, base_delay=1, max_delay=3))
    pauses = [pause(call, answer(call, 503), 0.0, 1.0) for _ in range(4)]
    assert pauses == [1, 2, 3, None]
    assert (call.attempts, call.state) == (4, State.GIVEN_UP)


def test_each_attempt_is_signed_afresh_with_its_own_time() -> None:
    call = exchange()
    acceptance = Acceptance(SERVICE, freshness_ms=0)
    for now_ms in (NOW_MS, NOW_MS + 1, NOW_MS + 60_000):
        assert acceptance.accept(call.attempt(now_ms).body, now_ms).time_ms == now_ms
        pause(call, call.fail(LOST, 0.0), 0.0, 0.0)


def test_an_attempt_starts_without_what_the_one_before_has_left() -> None:
    call = exchange(timeouts=Timeouts(first_byte=60, idle=30))
    call.retry(answer(call, 503, b"busy", [(b"x", b"y")]), 0.0, 0.0)
    call.attempt(NOW_MS)
    assert (call.status, call.headers, call.text) == (None, {}, "")
    error = call.fail(SILENT, 0.0)
    assert isinstance(error, ReplyTimeout)
    assert error.limit == "first_byte"


@pytest.mark.parametrize(("asked", "seconds"), [(0, 0.0), (120, 120.0), (121, None)])
def test_the_wait_that_a_service_asks_for_is_obeyed_up_to_its_limit(
    asked: int, seconds: float | None
) -> None:
    call = exchange()
    error = answer(call, 429, headers=[(b"retry-after", b"%d" % asked)])
    assert pause(call, error, 0.0, 0.1) == seconds


# Kept connections that have closed


def test_a_stale_connection_is_tried_again_at_once_and_outside_the_count() -> None:
    call = exchange(retry=RetryPolicy(max_attempts=2))
    for _ in range(5):
        assert call.retry(broken(call, STALE), 0.0, 1.0) == 0.0
    assert call.retry(broken(call, LOST), 0.0, 1.0) == 0.5
    assert call.retry(broken(call, STALE), 0.0, 1.0) == 0.0
    assert pause(call, broken(call, LOST), 0.0, 1.0) is None


def test_stale_connections_without_end_end() -> None:
    call = exchange(retry=RetryPolicy(max_attempts=1))
    while pause(call, error := broken(call, STALE), 0.0, 1.0) is not None:
        assert call.attempts < 1000
    assert type(error) is ConnectError
    # More than a client has connections; the last of them counted as an attempt.
    assert call.attempts == 101


# A clock that is off


def rejected(call: Exchange, *, seconds_behind: float) -> SignatureRejected:
    """Make an attempt whose signature is rejected, by a service whose clock is ahead of ours."""
    date = formatdate(NOW_MS / 1000 + seconds_behind, usegmt=True).encode()
    error = answer(call, 401, error_json("Invalid signature."), [(b"date", date)])
    return cast("SignatureRejected", error)


@pytest.mark.parametrize("seconds_behind", [31, 3600, -31, -86400])
def test_a_wrong_clock_is_set_right_for_one_more_attempt(seconds_behind: int) -> None:
    clock = Clock()
    call = exchange(retry=RetryPolicy(max_attempts=1), clock=clock)
    assert call.retry(rejected(call, seconds_behind=seconds_behind), 0.0, 1.0) == 0.0
    assert clock.correction_ms == seconds_behind * 1000
    body = call.attempt(NOW_MS).body
    their_time = NOW_MS + seconds_behind * 1000
    assert Acceptance(SERVICE, freshness_ms=0).accept(body, their_time).time_ms == their_time


@pytest.mark.parametrize(
    ("date", "skew"),
    [(0, 0), (33, 0), (-1, -1), (34, 1), (-60, -60), (33 + 60, 60)],
    ids=["at-the-request", "at-the-answer", "before", "after", "long-before", "long-after"],
)
def test_a_clock_is_judged_by_the_whole_wait_for_the_answer(date: int, skew: int) -> None:
    clock = Clock()
    call = exchange(retry=RetryPolicy(max_attempts=1), clock=clock)
    call.attempt(NOW_MS)
    headers = [(b"date", formatdate(NOW_MS / 1000 + date, usegmt=True).encode())]
    call.receive_head(401, headers, sent=0.0, now_ms=NOW_MS + 33_000)
    call.receive(error_json("Invalid signature."))
    with pytest.raises(SignatureRejected) as caught:
        call.receive(b"")
    assert caught.value.clock_skew == skew
    assert ("the clock" in str(caught.value)) is (abs(skew) > 1)
    corrected = pause(call, caught.value, 33.0, 1.0) is not None
    assert corrected is (abs(skew) > 30)
    assert clock.correction_ms == (skew * 1000 if corrected else 0)


def test_a_signature_rejected_again_tells_how_far_the_clock_is_off() -> None:
    clock = Clock()
    call = exchange(clock=clock)
    assert call.retry(rejected(call, seconds_behind=90), 0.0, 1.0) == 0.0
    error = rejected(call, seconds_behind=90)
    assert pause(call, error, 0.0, 1.0) is None
    assert error.clock_skew == 90
    assert "90 s behind" in str(error)
    assert clock.correction_ms == 90_000
    assert call.attempts == 2


def test_a_clock_is_set_once_a_call_even_if_the_service_contradicts_itself() -> None:
    call = exchange()
    assert call.retry(rejected(call, seconds_behind=90), 0.0, 1.0) == 0.0
    assert pause(call, rejected(call, seconds_behind=900), 0.0, 1.0) is None


def test_a_clock_is_set_right_by_the_millisecond() -> None:
    clock = Clock()
    call = exchange(clock=clock)
    now_ms = NOW_MS - 30_001
    headers = [(b"date", formatdate(NOW_MS / 1000, usegmt=True).encode())]
    error = answer(call, 401, error_json("Invalid signature."), headers, now_ms=now_ms)
    assert call.retry(error, 0.0, 1.0) == 0.0
    assert clock.correction_ms == 30_001


@pytest.mark.parametrize(
    ("date", "correction"),
    [(-40, 0), (-1, 0), (30, 0), (40, 40), (-70, 0), (-80, -40), (-3640, -3600)],
)
def test_a_clock_is_compared_with_the_whole_wait_for_the_answer(date: int, correction: int) -> None:
    clock = Clock()
    call = exchange(clock=clock)
    call.attempt(NOW_MS - 40_000)
    headers = [(b"date", formatdate(NOW_MS / 1000 + date, usegmt=True).encode())]
    call.receive_head(401, headers, sent=0.0, now_ms=NOW_MS)
    call.receive(error_json("Invalid signature."))
    with pytest.raises(SignatureRejected) as caught:
        call.receive(b"")
    assert (pause(call, caught.value, 0.0, 0.0) is not None) is (correction != 0)
    assert clock.correction_ms == correction * 1000


@pytest.mark.parametrize("seconds_behind", [0, 30, -30])
def test_a_clock_that_is_little_off_is_not_the_reason(seconds_behind: int) -> None:
    clock = Clock()
    call = exchange(clock=clock)
    assert pause(call, rejected(call, seconds_behind=seconds_behind), 0.0, 1.0) is None
    assert clock.correction_ms == 0


def test_a_clock_already_set_right_by_an_earlier_call_is_not_the_reason() -> None:
    clock = Clock(90_000)
    call = exchange(clock=clock)
    assert json.loads(call.attempt(NOW_MS).body)["time"] == NOW_MS + 90_000
    call = exchange(clock=clock)
    assert pause(call, rejected(call, seconds_behind=100), 0.0, 1.0) is None
    assert clock.correction_ms == 90_000


def test_a_correction_that_no_longer_holds_is_corrected() -> None:
    clock = Clock(90_000)
    call = exchange(clock=clock)
    assert call.retry(rejected(call, seconds_behind=0), 0.0, 1.0) == 0.0
    assert clock.correction_ms == 0


def test_without_a_date_a_rejected_signature_is_the_callers() -> None:
    call = exchange()
    assert pause(call, answer(call, 401, error_json("Invalid signature.")), 0.0, 1.0) is None


def test_a_rejected_password_does_not_set_the_clock() -> None:
    clock = Clock()
    call = exchange(clock=clock)
    headers = [(b"date", b"Sun, 06 Nov 1994 08:49:37 GMT")]
    error = answer(call, 401, error_json("Invalid password."), headers)
    assert pause(call, error, 0.0, 1.0) is None
    assert clock.correction_ms == 0


def test_calls_that_are_rejected_at_once_are_each_signed_anew_once() -> None:
    clock = Clock()
    calls = [exchange(clock=clock, retry=RetryPolicy(max_attempts=1)) for _ in range(3)]
    errors = [rejected(call, seconds_behind=90) for call in calls]
    for number, (call, error) in enumerate(zip(calls, errors, strict=True)):
        assert call.retry(error, 0.0, 1.0) == 0.0
        assert json.loads(call.attempt(NOW_MS).body)["time"] == NOW_MS + 90_000 + number
    assert clock.correction_ms == 90_000


def test_a_call_made_before_a_correction_is_signed_with_it() -> None:
    clock = Clock()
    learning, waiting = exchange(clock=clock), exchange(clock=clock)
    learning.retry(rejected(learning, seconds_behind=90), 0.0, 1.0)
    assert json.loads(waiting.attempt(NOW_MS).body)["time"] == NOW_MS + 90_000


def test_calls_that_share_no_clock_share_no_correction() -> None:
    learning, other = exchange(), exchange()
    learning.retry(rejected(learning, seconds_behind=90), 0.0, 1.0)
    assert json.loads(other.attempt(NOW_MS).body)["time"] == NOW_MS


@given(st.lists(st.integers(-3, 3), min_size=1))
def test_no_two_requests_of_a_client_have_the_same_time(steps: list[int]) -> None:
    clock = Clock()
    times = [clock.stamp(NOW_MS + moment) for moment in accumulate(steps)]
    assert times == sorted(set(times))


@pytest.mark.parametrize("seconds", [-3600, -2, 2, 3600])
def test_a_clock_that_is_set_is_followed(seconds: int) -> None:
    clock = Clock()
    clock.stamp(NOW_MS)
    assert clock.stamp(NOW_MS + seconds * 1000) == NOW_MS + seconds * 1000


# Time limits


def test_without_a_total_each_limit_is_its_own() -> None:
    call = exchange(timeouts=Timeouts(connect=1, first_byte=2, idle=3))
    assert call.send_limits(1e6) == SendLimits(connect=1, first_byte=2)
    call.attempt(NOW_MS)
    call.receive_head(200, [], sent=10.0, now_ms=NOW_MS)
    assert call.read_limit(10.5) == 1.5
    call.receive(b"H")
    assert call.read_limit(1e6) == 3


def test_without_limits_there_are_none() -> None:
    call = exchange(timeouts=Timeouts(connect=None, first_byte=None, idle=None))
    assert call.send_limits(0.0) == SendLimits(None, None)
    call.attempt(NOW_MS)
    call.receive_head(200, [], sent=0.0, now_ms=NOW_MS)
    assert call.read_limit(1e6) is None
    call.receive(b"H")
    assert call.read_limit(1e6) is None


def test_the_total_cuts_every_limit_short() -> None:
    call = exchange(timeouts=Timeouts(connect=10, first_byte=60, idle=30, total=20), now=100.0)
    for now, connect, reply in ((100.0, 10, 20), (115.0, 5, 5), (121.0, 0, 0)):
        limits = call.send_limits(now)
        assert (limits.connect, limits.reply(now)) == (connect, reply)
    call.attempt(NOW_MS)
    call.receive_head(200, [], sent=100.0, now_ms=NOW_MS)
    assert call.read_limit(105.0) == 15
    call.receive(b"H")
    assert call.read_limit(119.0) == 1


def test_a_total_that_is_far_leaves_the_other_limits_as_they_are() -> None:
    call = exchange(timeouts=Timeouts(connect=1, first_byte=2, idle=3, total=1000))
    limits = call.send_limits(0.0)
    assert (limits.connect, limits.reply(0.5)) == (1, 2)
    call.attempt(NOW_MS)
    call.receive_head(200, [], sent=0.0, now_ms=NOW_MS)
    assert call.read_limit(0.5) == 1.5
    call.receive(b"H")
    assert call.read_limit(10.0) == 3


def test_a_call_begins_at_nought_and_by_this_machines_clock_unless_it_is_told() -> None:
    call = Exchange(SERVICE, "Hello", timeouts=Timeouts(connect=None, total=20))
    assert call.send_limits(0.0).connect == 20
    assert json.loads(call.attempt(NOW_MS).body)["time"] == NOW_MS


def test_the_total_alone_is_a_limit_everywhere() -> None:
    timeouts = Timeouts(connect=None, first_byte=None, idle=None, total=20)
    call = exchange(timeouts=timeouts, now=100.0)
    limits = call.send_limits(115.0)
    assert limits.connect == 5
    # Connecting has taken of it what it has taken.
    assert limits.reply(117.0) == 3
    call.attempt(NOW_MS)
    call.receive_head(200, [], sent=115.0, now_ms=NOW_MS)
    assert call.read_limit(118.0) == 2


def test_the_first_byte_may_not_take_longer_because_the_head_came() -> None:
    call = exchange(timeouts=Timeouts(first_byte=60))
    call.attempt(NOW_MS)
    call.receive_head(200, [], sent=100.0, now_ms=NOW_MS)
    assert call.read_limit(159.0) == 1
    # Bytes that came in time are read all the same, so there is always a moment.
    assert call.read_limit(160.0) == call.read_limit(1e6) == 0.01
    error = call.fail(TransportError(Cause.TIMED_OUT, Phase.READING), 160.01)
    assert isinstance(error, ReplyTimeout)
    assert (error.limit, error.seconds) == ("first_byte", 60)
    assert call.state is State.FAILED


def test_a_reply_that_trickles_ends_with_the_total() -> None:
    call = exchange(timeouts=Timeouts(idle=30, total=45))
    call.attempt(NOW_MS)
    call.receive_head(200, [], sent=0.0, now_ms=NOW_MS)
    for now, piece in ((0.0, b"H"), (20.0, b"e"), (40.0, b"Inter")):
        assert call.read_limit(now) == min(30 if now else 45, 45 - now)
        call.receive(piece)
    with pytest.raises(ReplyTimeout) as caught:
        call.read_limit(45.0)
    assert (caught.value.limit, caught.value.seconds) == ("total", 45)
    assert caught.value.text == call.text == "HeInter"
    assert "not over within 45 s, 7 characters arrived" in str(caught.value)


@pytest.mark.parametrize("failure", [SILENT, NOT_CONNECTED_IN_TIME, NO_SLOT], ids=str)
def test_a_limit_that_the_total_cut_short_is_the_total(failure: TransportError) -> None:
    call = exchange(timeouts=Timeouts(total=5), now=100.0)
    error = broken(call, failure, now=105.0)
    assert isinstance(error, ReplyTimeout)
    assert (error.limit, error.seconds, error.text) == ("total", 5, "")
    assert pause(call, error, 105.0, 0.0) is None


@pytest.mark.parametrize("failure", [SILENT, NOT_CONNECTED_IN_TIME, NO_SLOT], ids=str)
def test_a_limit_that_ran_out_before_the_total_is_itself(failure: TransportError) -> None:
    call = exchange(timeouts=Timeouts(connect=1, first_byte=1, total=5), now=100.0)
    error = broken(call, failure, now=101.0)
    assert getattr(error, "limit", "connect") != "total"
    assert getattr(error, "seconds", None) == 1


def test_an_error_whose_body_does_not_come_is_told_by_its_status() -> None:
    call = exchange(timeouts=Timeouts(first_byte=60, total=100))
    call.attempt(NOW_MS)
    call.receive_head(503, [], sent=0.0, now_ms=NOW_MS)
    with pytest.raises(ServiceFailed):
        call.read_limit(100.0)
    assert call.state is State.FAILED


def test_no_pause_reaches_beyond_the_total() -> None:
    for now, seconds in ((19.0, 0.5), (19.499, 0.5), (19.5, None), (25.0, None)):
        call = exchange(timeouts=Timeouts(total=20))
        assert pause(call, answer(call, 503), now, 1.0) == seconds


def test_not_even_an_attempt_at_once_is_made_after_the_total() -> None:
    clock = Clock()
    call = exchange(timeouts=Timeouts(total=20), clock=clock)
    assert pause(call, rejected(call, seconds_behind=90), 20.0, 0.0) is None
    # The next call is signed with the right time at once.
    assert clock.correction_ms == 90_000
    call = exchange(timeouts=Timeouts(total=20))
    assert pause(call, broken(call, STALE), 20.0, 0.0) is None


def test_a_proxy_that_asks_for_a_password_is_no_connection() -> None:
    call = exchange()
    call.attempt(NOW_MS)
    with pytest.raises(ConnectError, match="the proxy asks for a user and password"):
        call.receive_head(407, [], sent=0.0, now_ms=NOW_MS)
    assert call.state is State.FAILED


def test_an_error_names_the_encoding_where_it_may_be_the_cause() -> None:
    call = exchange()
    assert 'encoding="content"' in str(answer(call, 401, error_json("Invalid signature.")))
    call = Exchange(replace(SERVICE, encoding="content"), "Hello")
    assert 'encoding="native"' in str(answer(call, 500))
