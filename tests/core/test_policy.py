"""The caller's numbers: which are refused, and what pauses and second attempts follow from them."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import fields, replace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprochat_core import (
    AuthenticationError,
    BadRequest,
    ConfigurationError,
    ConnectError,
    ConnectTimeout,
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
    ServiceFailed,
    SignatureRejected,
    Timeouts,
    TruncatedReply,
    UsageError,
)
from gprochat_core.diagnosis import diagnose
from gprochat_core.policy import is_transient

NO_NUMBERS = [float("nan"), float("inf"), float("-inf"), "1", True, b"1", [1], 1j]

AT_MOST = "at most 1000000000"

# Called with a wrong value on purpose, and so with any name and any type.
Build = Callable[..., object]


def test_the_defaults_are_those_the_documentation_gives() -> None:
    assert Timeouts() == Timeouts(connect=10, first_byte=60, idle=30, total=None)
    assert RetryPolicy() == RetryPolicy(
        max_attempts=3, base_delay=0.5, max_delay=8, max_retry_after=120
    )
    assert Limits() == Limits(
        max_reply_bytes=16 * 2**20, max_head_bytes=64 * 2**10, max_connections=100, keep_alive=4
    )


@pytest.mark.parametrize("name", ["connect", "first_byte", "idle", "total"])
@pytest.mark.parametrize("seconds", [None, 1, 0.001, 1e6, 10**9])
def test_a_time_limit_is_none_or_a_positive_number(name: str, seconds: float | None) -> None:
    build = cast("Build", Timeouts)
    assert getattr(build(**{name: seconds}), name) == seconds


@pytest.mark.parametrize("name", ["connect", "first_byte", "idle", "total"])
@pytest.mark.parametrize("seconds", [0, -1, -0.5, 10**10, 10**400, *NO_NUMBERS])
def test_any_other_time_limit_is_refused_by_name(name: str, seconds: object) -> None:
    build = cast("Build", Timeouts)
    with pytest.raises(ConfigurationError, match=f"timeout {name}=.*seconds above 0, {AT_MOST}$"):
        build(**{name: seconds})


TIMES: list[tuple[Build, str]] = [
    (RetryPolicy, "base_delay"),
    (RetryPolicy, "max_delay"),
    (RetryPolicy, "max_retry_after"),
    (Limits, "keep_alive"),
]


@pytest.mark.parametrize(("build", "name"), TIMES)
@pytest.mark.parametrize("seconds", [0, 0.5, 100])
def test_a_pause_or_an_idle_time_is_a_number_that_may_be_nought(
    build: Build, name: str, seconds: float
) -> None:
    assert getattr(build(**{name: seconds}), name) == seconds


@pytest.mark.parametrize(("build", "name"), TIMES)
@pytest.mark.parametrize("seconds", [None, -0.001, 10**10, *NO_NUMBERS])
def test_any_other_pause_or_idle_time_is_refused_by_name(
    build: Build, name: str, seconds: object
) -> None:
    kind = "retry" if build is RetryPolicy else "limit"
    with pytest.raises(ConfigurationError, match=f"^{kind} {name}=.*number of seconds, {AT_MOST}$"):
        build(**{name: seconds})


COUNTS: list[tuple[Build, str]] = [
    (RetryPolicy, "max_attempts"),
    (Limits, "max_reply_bytes"),
    (Limits, "max_head_bytes"),
    (Limits, "max_connections"),
]


@pytest.mark.parametrize(("build", "name"), COUNTS)
def test_a_count_is_an_int_of_at_least_one(build: Build, name: str) -> None:
    for count in (1, 10**20):
        assert getattr(build(**{name: count}), name) == count


@pytest.mark.parametrize(("build", "name"), COUNTS)
@pytest.mark.parametrize("count", [None, 0, -1, 1.0, *NO_NUMBERS])
def test_any_other_count_is_refused_by_name(build: Build, name: str, count: object) -> None:
    kind = "retry" if build is RetryPolicy else "limit"
    with pytest.raises(ConfigurationError, match=f"^{kind} {name}=.*an int of at least 1"):
        build(**{name: count})


@pytest.mark.parametrize("build", [Timeouts, RetryPolicy, Limits])
def test_numbers_are_given_by_name_only(build: Build) -> None:
    with pytest.raises(TypeError):
        build(1)


@pytest.mark.parametrize(
    ("numbers", "name"),
    [(Timeouts(), "idle"), (RetryPolicy(), "base_delay"), (Limits(), "max_head_bytes")],
)
def test_numbers_do_not_change_once_they_are_checked(numbers: object, name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(numbers, name, -1)


@pytest.mark.parametrize(
    "numbers",
    [
        Timeouts(connect=1, first_byte=2, idle=3, total=4),
        RetryPolicy(max_attempts=4, base_delay=1, max_delay=2, max_retry_after=3),
        Limits(max_reply_bytes=1, max_head_bytes=2, max_connections=3, keep_alive=4),
    ],
    ids=repr,
)
def test_numbers_are_the_same_after_a_journey_and_others_where_one_differs(
    numbers: Timeouts | RetryPolicy | Limits,
) -> None:
    for arrived in (pickle.loads(pickle.dumps(numbers)), copy.deepcopy(numbers)):
        assert arrived == numbers
        assert {arrived: "found"}[numbers] == "found"
    for field in fields(numbers):
        value = getattr(numbers, field.name)
        assert f"{field.name}={value}" in repr(numbers)
        assert replace(numbers, **{field.name: value + 1}) != numbers


def test_numbers_that_replace_others_are_checked_too() -> None:
    with pytest.raises(ConfigurationError, match="connect"):
        replace(Timeouts(), connect=-1)


# Pauses

LOST = ConnectError("no connection")

policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 2000),
    # Below a microsecond no back-off is meant, and none gets above a maximum in time.
    base_delay=st.just(0.0) | st.floats(1e-6, 1e6),
    max_delay=st.floats(0, 1e6),
    max_retry_after=st.floats(0, 1e6),
)
jitters = st.floats(0, 1)


@given(policies, st.integers(1, 2000), jitters)
def test_a_pause_is_drawn_from_nought_to_what_the_back_off_allows(
    policy: RetryPolicy, attempt: int, jitter: float
) -> None:
    delay = policy.delay(LOST, attempt, jitter)
    if attempt >= policy.max_attempts:
        assert delay is None
        return
    ceiling = min(policy.max_delay, policy.base_delay * 2 ** min(attempt - 1, 1000))
    assert delay is not None
    assert delay == pytest.approx(jitter * ceiling)
    assert 0 <= delay <= policy.max_delay


def test_the_longest_pause_doubles_up_to_its_maximum() -> None:
    policy = RetryPolicy(max_attempts=9, base_delay=0.5, max_delay=3)
    pauses = [policy.delay(LOST, attempt, 1.0) for attempt in range(1, 10)]
    assert pauses == [0.5, 1, 2, 3, 3, 3, 3, 3, None]


def test_one_attempt_is_no_retry() -> None:
    assert RetryPolicy(max_attempts=1).delay(LOST, 1, 0.0) is None


@pytest.mark.parametrize("error", [RateLimited, ServiceFailed])
@given(
    policy=policies,
    attempt=st.integers(1, 5),
    jitter=jitters,
    asked=st.floats(0, 2e6),
)
def test_what_the_service_asks_to_wait_is_waited_or_ends_the_attempts(
    error: type[RateLimited | ServiceFailed],
    policy: RetryPolicy,
    attempt: int,
    jitter: float,
    asked: float,
) -> None:
    delay = policy.delay(error("busy", status=503, retry_after=asked), attempt, jitter)
    if attempt < policy.max_attempts and asked <= policy.max_retry_after:
        assert delay == asked
    else:
        assert delay is None


# Which errors pass


def test_of_all_statuses_those_that_may_pass_are_tried_again() -> None:
    statuses = [*range(100, 200), *range(201, 600)]
    tried_again = [status for status in statuses if is_transient(diagnose(status, {}, b""))]
    assert tried_again == [408, 429, 500, 502, 503, 504, *range(520, 530)]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (LOST, True),
        (ConnectTimeout("no connection in time"), True),
        (RateLimited("hidden in a 500", status=500), True),
        (ServiceFailed("unexplained", status=500, message="fetch failed"), True),
        (ServiceFailed("misconfigured", status=500, permanent=True), False),
        (ServiceFailed("not implemented", status=501), False),
        (BadRequest("wrong", status=400), False),
        (AuthenticationError("who?", status=401), False),
        (SignatureRejected("wrong key", status=401), False),
        (PasswordRejected("wrong password", status=401), False),
        (NotTheService("a page", status=503), False),
        (ReplyTimeout("silence"), False),
        (TruncatedReply("cut off"), False),
        (InterruptedReply("failed"), True),
        (ReplyTooLong("too long"), False),
        (InvalidMessages("none"), False),
        (ConfigurationError("wrong"), False),
        (UsageError("not now"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_tried_again_only_where_that_may_help(
    error: GPROChatError, expected: bool
) -> None:
    assert is_transient(error) is expected
    assert (RetryPolicy().delay(error, 1, 1.0) is not None) is expected
