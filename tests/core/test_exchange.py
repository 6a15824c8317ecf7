"""One call's decisions: what each failure means where it strikes, and what follows from it."""

import json
from collections.abc import Callable, Sequence
from email.utils import formatdate
from typing import Final, cast

import pytest

from gprochat_core import (
    Acceptance,
    AuthenticationError,
    BadRequest,
    ConfigurationError,
    ConnectError,
    ConnectTimeout,
    Exchange,
    Failure,
    GPROChatError,
    InterruptedReply,
    InvalidMessages,
    Limits,
    NotTheService,
    PasswordRejected,
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
from gprochat_core.exchange import SendLimits

SERVICE: Final = Service("https://chat.example/gpt", secret_key="made-up key")
NOW_MS: Final = 1_700_000_000_000

Headers = Sequence[tuple[bytes, bytes]]


def exchange(
    *,
    timeouts: Timeouts | None = None,
    retry: RetryPolicy | None = None,
    limits: Limits | None = None,
    now: float = 0.0,
    clock_correction_ms: int = 0,
) -> Exchange:
    return Exchange(
        SERVICE,
        "Hello",
        timeouts=timeouts,
        retry=retry,
        limits=limits,
        now=now,
        clock_correction_ms=clock_correction_ms,
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
        error = call.fail(TransportError(Failure.LOST), 0.0)
        if state is State.GIVEN_UP:
            call.retry(error, 0.0, 0.0)
        return call
    call.receive_head(500 if state is State.ERROR else 200, [], sent=0.0, now_ms=NOW_MS)
    if state is State.DONE:
        call.finish()
    return call


def answer(
    call: Exchange, status: int, body: bytes = b"", headers: Headers = (), *, now_ms: int = NOW_MS
) -> GPROChatError:
    """Make an attempt that is answered with an error."""
    call.attempt(now_ms)
    try:
        call.receive_head(status, headers, sent=0.0, now_ms=now_ms)
        call.receive(body)
        call.finish()
    except GPROChatError as error:
        return error
    pytest.fail("this was taken for a reply")


def broken(call: Exchange, failure: Failure, now: float = 0.0) -> GPROChatError:
    """Make an attempt that the transport fails before an answer."""
    call.attempt(NOW_MS)
    return call.fail(TransportError(failure), now)


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
    assert call.finish() == "I"
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
    error = call.fail(TransportError(Failure.LOST), 0.0)
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
    "finish": (lambda call: call.finish(), {State.REPLY, State.ERROR}),
    "fail": (
        lambda call: call.fail(TransportError(Failure.LOST), 0.0),
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
    with pytest.raises(UsageError, match=state.value):
        CALLS[name][0](call)
    assert (call.state, call.attempts, call.text) == before


# What a failure means where it strikes

BEFORE_AN_ANSWER: list[tuple[Failure, type[GPROChatError], str]] = [
    (Failure.CONNECT, ConnectError, "no connection (why)"),
    (Failure.CONNECT_TIMEOUT, ConnectTimeout, "no connection within 10.0 s (why)"),
    (Failure.TIMEOUT, ReplyTimeout, "no reply began within 60.0 s"),
    (Failure.LOST, ConnectError, "the connection was lost before an answer (why)"),
    (Failure.STALE, ConnectError, "the connection was lost before an answer (why)"),
    (Failure.MALFORMED, NotTheService, "does not speak HTTP as it must (why)"),
]


@pytest.mark.parametrize(("failure", "error", "said"), BEFORE_AN_ANSWER)
def test_a_failure_before_an_answer(
    failure: Failure, error: type[GPROChatError], said: str
) -> None:
    call = in_state(State.SENT)
    failed = call.fail(TransportError(failure, "why"), 0.0)
    assert type(failed) is error
    assert said in str(failed)
    assert call.state is State.FAILED


def test_each_failure_has_its_meaning_before_an_answer() -> None:
    assert {failure for failure, _, _ in BEFORE_AN_ANSWER} == set(Failure)


@pytest.mark.parametrize("failure", Failure)
def test_a_failure_without_details_leaves_no_brackets(failure: Failure) -> None:
    told = str(in_state(State.SENT).fail(TransportError(failure), 0.0))
    assert "(" not in told.replace("Timeouts(first_byte=...)", "")
    told_more = str(in_state(State.SENT).fail(TransportError(failure, "why"), 0.0))
    assert told_more.replace(" (why)", "") == told


def test_a_timed_out_connection_without_a_limit_of_ours_names_none() -> None:
    call = exchange(timeouts=Timeouts(connect=None))
    error = broken(call, Failure.CONNECT_TIMEOUT)
    assert isinstance(error, ConnectTimeout)
    assert error.seconds is None
    assert str(error).startswith("no connection in time; ")


@pytest.mark.parametrize(
    "failure", [failure for failure in Failure if failure is not Failure.TIMEOUT]
)
def test_a_failure_within_a_reply_truncates_it(failure: Failure) -> None:
    call = in_state(State.REPLY)
    call.receive(b"Hello Inter")
    error = call.fail(TransportError(failure, "why"), 0.0)
    assert isinstance(error, TruncatedReply)
    assert error.text == call.text == "Hello Inter"
    assert "why" in str(error)
    assert call.state is State.FAILED


def test_silence_within_a_reply_keeps_what_arrived() -> None:
    call = in_state(State.REPLY)
    call.receive(b"Hello Inter")
    error = call.fail(TransportError(Failure.TIMEOUT), 0.0)
    assert isinstance(error, ReplyTimeout)
    assert (error.limit, error.seconds) == ("idle", 30.0)
    assert error.text == call.text == "Hello Inter"
    assert "the reply stood still for 30.0 s, 11 characters arrived" in str(error)


def test_silence_after_a_replys_head_is_a_reply_that_did_not_begin() -> None:
    error = in_state(State.REPLY).fail(TransportError(Failure.TIMEOUT), 0.0)
    assert isinstance(error, ReplyTimeout)
    assert (error.limit, error.seconds, error.text) == ("first_byte", 60.0, "")


@pytest.mark.parametrize("failure", Failure)
def test_a_failure_within_an_error_is_that_error(failure: Failure) -> None:
    call = in_state(State.ERROR)
    call.receive(error_json("it broke"))
    error = call.fail(TransportError(failure), 0.0)
    assert type(error) is ServiceFailed
    assert (error.status, error.message) == (500, "it broke")
    assert call.state is State.FAILED


def test_a_reply_that_the_service_interrupts_fails() -> None:
    call = in_state(State.REPLY)
    call.receive(b"Hello Internal server error")
    with pytest.raises(InterruptedReply) as caught:
        call.finish()
    assert caught.value.text == call.text == "Hello "
    assert call.state is State.FAILED


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
    assert call.retry(failed, 0.0, 0.0) is None
    assert call.state is State.GIVEN_UP


@pytest.mark.parametrize(
    ("failure", "tried_again"),
    [
        (Failure.CONNECT, True),
        (Failure.CONNECT_TIMEOUT, True),
        (Failure.LOST, True),
        (Failure.STALE, True),
        (Failure.TIMEOUT, False),
        (Failure.MALFORMED, False),
    ],
)
def test_which_failures_before_an_answer_are_tried_again(
    failure: Failure, tried_again: bool
) -> None:
    call = exchange()
    assert (call.retry(broken(call, failure), 0.0, 0.0) is not None) is tried_again


def test_an_error_cut_off_is_tried_again_if_its_status_may_pass() -> None:
    for status, pause in ((503, 0.5), (501, None)):
        call = exchange()
        call.attempt(NOW_MS)
        call.receive_head(status, [], sent=0.0, now_ms=NOW_MS)
        assert call.retry(call.fail(TransportError(Failure.LOST), 0.0), 0.0, 1.0) == pause


@pytest.mark.parametrize("failure", Failure)
@pytest.mark.parametrize("data", [b"", b"H", b"\xd0", b"Inter"])
def test_nothing_is_tried_again_once_a_reply_has_begun(failure: Failure, data: bytes) -> None:
    call = exchange()
    call.attempt(NOW_MS)
    call.receive_head(200, [], sent=0.0, now_ms=NOW_MS)
    call.receive(data)
    error = call.fail(TransportError(failure), 0.0)
    assert call.retry(error, 0.0, 0.0) is None


@pytest.mark.parametrize("error", [ConnectError("lost"), RateLimited("busy", retry_after=0)])
def test_no_error_whatever_makes_a_reply_begin_again(error: GPROChatError) -> None:
    call = in_state(State.REPLY)
    call.receive(b"Hello")
    call.fail(TransportError(Failure.LOST), 0.0)
    assert call.retry(error, 0.0, 0.0) is None


def test_a_call_ends_with_its_last_attempt() -> None:
    call = exchange(retry=RetryPolicy(max_attempts=4, base_delay=1, max_delay=3))
    pauses = [call.retry(answer(call, 503), 0.0, 1.0) for _ in range(4)]
    assert pauses == [1, 2, 3, None]
    assert (call.attempts, call.state) == (4, State.GIVEN_UP)


def test_each_attempt_is_signed_afresh_with_its_own_time() -> None:
    call = exchange()
    acceptance = Acceptance(SERVICE, freshness_ms=0)
    for now_ms in (NOW_MS, NOW_MS + 1, NOW_MS + 60_000):
        assert acceptance.accept(call.attempt(now_ms).body, now_ms).time_ms == now_ms
        call.retry(call.fail(TransportError(Failure.LOST), 0.0), 0.0, 0.0)


def test_an_attempt_starts_without_what_the_one_before_has_left() -> None:
    call = exchange(timeouts=Timeouts(first_byte=60, idle=30))
    call.retry(answer(call, 503, b"busy", [(b"x", b"y")]), 0.0, 0.0)
    call.attempt(NOW_MS)
    assert (call.status, call.headers, call.text) == (None, {}, "")
    error = call.fail(TransportError(Failure.TIMEOUT), 0.0)
    assert isinstance(error, ReplyTimeout)
    assert error.limit == "first_byte"


@pytest.mark.parametrize(("asked", "pause"), [(0, 0.0), (120, 120.0), (121, None)])
def test_the_wait_that_a_service_asks_for_is_obeyed_up_to_its_limit(
    asked: int, pause: float | None
) -> None:
    call = exchange()
    error = answer(call, 429, headers=[(b"retry-after", b"%d" % asked)])
    assert call.retry(error, 0.0, 0.1) == pause


# Kept connections that have closed


def test_a_stale_connection_is_tried_again_at_once_and_outside_the_count() -> None:
    call = exchange(retry=RetryPolicy(max_attempts=2))
    for _ in range(5):
        assert call.retry(broken(call, Failure.STALE), 0.0, 1.0) == 0.0
    assert call.retry(broken(call, Failure.LOST), 0.0, 1.0) == 0.5
    assert call.retry(broken(call, Failure.STALE), 0.0, 1.0) == 0.0
    assert call.retry(broken(call, Failure.LOST), 0.0, 1.0) is None


def test_stale_connections_without_end_end() -> None:
    call = exchange(retry=RetryPolicy(max_attempts=1))
    while call.retry(error := broken(call, Failure.STALE), 0.0, 1.0) is not None:
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
    call = exchange(retry=RetryPolicy(max_attempts=1))
    assert call.retry(rejected(call, seconds_behind=seconds_behind), 0.0, 1.0) == 0.0
    assert call.clock_correction_ms == seconds_behind * 1000
    body = call.attempt(NOW_MS).body
    their_time = NOW_MS + seconds_behind * 1000
    assert Acceptance(SERVICE, freshness_ms=0).accept(body, their_time).time_ms == their_time


def test_a_signature_rejected_again_tells_how_far_the_clock_is_off() -> None:
    call = exchange()
    assert call.retry(rejected(call, seconds_behind=90), 0.0, 1.0) == 0.0
    error = rejected(call, seconds_behind=90)
    assert call.retry(error, 0.0, 1.0) is None
    assert error.clock_skew == 90
    assert "90 s behind" in str(error)
    assert call.clock_correction_ms == 90_000
    assert call.attempts == 2


def test_a_clock_is_set_once_a_call_even_if_the_service_contradicts_itself() -> None:
    call = exchange()
    assert call.retry(rejected(call, seconds_behind=90), 0.0, 1.0) == 0.0
    assert call.retry(rejected(call, seconds_behind=900), 0.0, 1.0) is None


def test_a_clock_is_set_right_by_the_millisecond() -> None:
    call = exchange()
    now_ms = NOW_MS - 30_001
    headers = [(b"date", formatdate(NOW_MS / 1000, usegmt=True).encode())]
    error = answer(call, 401, error_json("Invalid signature."), headers, now_ms=now_ms)
    assert call.retry(error, 0.0, 1.0) == 0.0
    assert call.clock_correction_ms == 30_001


@pytest.mark.parametrize("seconds_behind", [0, 30, -30])
def test_a_clock_that_is_little_off_is_not_the_reason(seconds_behind: int) -> None:
    call = exchange()
    assert call.retry(rejected(call, seconds_behind=seconds_behind), 0.0, 1.0) is None
    assert call.clock_correction_ms == 0


def test_a_clock_already_set_right_by_an_earlier_call_is_not_the_reason() -> None:
    call = exchange(clock_correction_ms=90_000)
    assert json.loads(call.attempt(NOW_MS).body)["time"] == NOW_MS + 90_000
    call = exchange(clock_correction_ms=90_000)
    assert call.retry(rejected(call, seconds_behind=100), 0.0, 1.0) is None
    assert call.clock_correction_ms == 90_000


def test_a_correction_that_no_longer_holds_is_corrected() -> None:
    call = exchange(clock_correction_ms=90_000)
    assert call.retry(rejected(call, seconds_behind=0), 0.0, 1.0) == 0.0
    assert call.clock_correction_ms == 0


def test_without_a_date_a_rejected_signature_is_the_callers() -> None:
    call = exchange()
    assert call.retry(answer(call, 401, error_json("Invalid signature.")), 0.0, 1.0) is None


def test_a_rejected_password_does_not_set_the_clock() -> None:
    call = exchange()
    headers = [(b"date", b"Sun, 06 Nov 1994 08:49:37 GMT")]
    error = answer(call, 401, error_json("Invalid password."), headers)
    assert call.retry(error, 0.0, 1.0) is None
    assert call.clock_correction_ms == 0


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
    with pytest.raises(ReplyTimeout) as caught:
        call.read_limit(160.0)
    assert (caught.value.limit, caught.value.seconds) == ("first_byte", 60)
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


@pytest.mark.parametrize("failure", [Failure.TIMEOUT, Failure.CONNECT_TIMEOUT])
def test_a_limit_that_the_total_cut_short_is_the_total(failure: Failure) -> None:
    call = exchange(timeouts=Timeouts(total=5), now=100.0)
    error = broken(call, failure, now=105.0)
    assert isinstance(error, ReplyTimeout)
    assert (error.limit, error.seconds, error.text) == ("total", 5, "")
    assert call.retry(error, 105.0, 0.0) is None


@pytest.mark.parametrize("failure", [Failure.TIMEOUT, Failure.CONNECT_TIMEOUT])
def test_a_limit_that_ran_out_before_the_total_is_itself(failure: Failure) -> None:
    call = exchange(timeouts=Timeouts(connect=1, first_byte=1, total=5), now=100.0)
    error = broken(call, failure, now=101.0)
    assert getattr(error, "limit", "connect") != "total"
    assert getattr(error, "seconds", None) == 1


def test_an_error_whose_body_does_not_come_is_told_by_its_status() -> None:
    for now in (60.0, 100.0):
        call = exchange(timeouts=Timeouts(first_byte=60, total=100))
        call.attempt(NOW_MS)
        call.receive_head(503, [], sent=0.0, now_ms=NOW_MS)
        with pytest.raises(ServiceFailed):
            call.read_limit(now)
        assert call.state is State.FAILED


def test_no_pause_reaches_beyond_the_total() -> None:
    for now, pause in ((19.0, 0.5), (19.499, 0.5), (19.5, None), (25.0, None)):
        call = exchange(timeouts=Timeouts(total=20))
        assert call.retry(answer(call, 503), now, 1.0) == pause


def test_not_even_an_attempt_at_once_is_made_after_the_total() -> None:
    call = exchange(timeouts=Timeouts(total=20))
    assert call.retry(rejected(call, seconds_behind=90), 20.0, 0.0) is None
    # The next call profits from what this one learned.
    assert call.clock_correction_ms == 90_000
    call = exchange(timeouts=Timeouts(total=20))
    assert call.retry(broken(call, Failure.STALE), 20.0, 0.0) is None


def test_a_proxy_that_asks_for_a_password_is_no_connection() -> None:
    call = exchange()
    call.attempt(NOW_MS)
    with pytest.raises(ConnectError, match="the proxy asks for a user and password"):
        call.receive_head(407, [], sent=0.0, now_ms=NOW_MS)
    assert call.state is State.FAILED
