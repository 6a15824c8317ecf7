"""Which answer an error is."""

import json

import pytest

from gprochat.gateway.failures import failure_of, refused
from gprochat.gateway.requests import Invalid
from gprochat_core import (
    AuthenticationError,
    BadRequest,
    ConfigurationError,
    ConnectError,
    ConnectTimeout,
    GPROChatError,
    InterruptedReply,
    InvalidMessages,
    NotTheService,
    PasswordRejected,
    RateLimited,
    Refusal,
    ReplyTimeout,
    ReplyTooLong,
    ServiceFailed,
    SignatureRejected,
    TruncatedReply,
    UsageError,
)

TABLE: list[tuple[GPROChatError, int, str]] = [
    (InvalidMessages("x"), 400, "invalid_messages"),
    (BadRequest("x", status=400), 400, "deployment_refused_request"),
    (BadRequest("x", status=413), 413, "deployment_refused_request"),
    (RateLimited("x", status=429), 429, "rate_limit_exceeded"),
    (PasswordRejected("x", status=401), 502, "deployment_password_rejected"),
    (SignatureRejected("x", status=401), 502, "deployment_key_rejected"),
    (AuthenticationError("x", status=403), 502, "deployment_denies_access"),
    (NotTheService("x", status=404), 502, "not_the_service"),
    (ServiceFailed("x", status=500), 502, "deployment_failed"),
    (ConnectError("x"), 502, "deployment_unreachable"),
    (ConnectTimeout("x"), 504, "deployment_connect_timeout"),
    (ReplyTimeout("x"), 504, "reply_timeout"),
    (InterruptedReply("x"), 502, "reply_interrupted"),
    (TruncatedReply("x"), 502, "reply_truncated"),
    (ReplyTooLong("x"), 502, "reply_too_long"),
    (UsageError("x"), 500, "internal_error"),
    (ConfigurationError("x"), 500, "internal_error"),
]


@pytest.mark.parametrize(("error", "status", "code"), TABLE, ids=lambda each: type(each).__name__)
def test_every_error_has_its_status_and_code(error: GPROChatError, status: int, code: str) -> None:
    failure = failure_of(error)
    assert failure.status == status
    told = json.loads(failure.body)["error"]
    assert told["code"] == code
    assert told["message"] == "x"
    assert told.keys() == {"message", "type", "param", "code"}


def test_no_error_of_a_deployment_blames_the_callers_key() -> None:
    assert not {failure_of(error).status for error, _, _ in TABLE} & {401, 403}


@pytest.mark.parametrize("kind", [ConnectTimeout, ReplyTimeout, ReplyTooLong])
def test_no_caller_is_told_to_raise_a_limit_of_the_gateway(kind: type[GPROChatError]) -> None:
    told = json.loads(failure_of(kind("it is too long; raise a limit")).body)["error"]
    assert told["message"] == "it is too long"


@pytest.mark.parametrize(("seconds", "told"), [(3.2, "4"), (0.0, "0"), (60.0, "60")])
def test_how_long_to_wait_is_told_in_whole_seconds(seconds: float, told: str) -> None:
    failure = failure_of(RateLimited("x", status=429, retry_after=seconds))
    assert failure.headers["retry-after"] == told


class TestShouldRetry:
    def test_a_request_that_may_succeed_later_may_be_repeated(self) -> None:
        assert "x-should-retry" not in failure_of(ConnectError("x")).headers

    def test_a_request_that_was_repeated_should_not_be(self) -> None:
        failure = failure_of(ConnectError("x"), attempts=2)
        assert failure.headers["x-should-retry"] == "false"

    @pytest.mark.parametrize(
        "error", [SignatureRejected("x"), ServiceFailed("x", status=500, permanent=True)]
    )
    def test_a_request_that_cannot_succeed_should_not_be(self, error: GPROChatError) -> None:
        assert failure_of(error).headers["x-should-retry"] == "false"


def test_the_partial_text_is_in_the_body() -> None:
    failure = failure_of(TruncatedReply("x"), partial_text="Hel")
    assert json.loads(failure.body)["error"]["partial_text"] == "Hel"


def test_a_refusal_names_the_parameter() -> None:
    failure = refused(Invalid("x", "messages[0]", "invalid_type"))
    told = json.loads(failure.body)["error"]
    assert failure.status == 400
    assert told == {
        "message": "x",
        "type": "invalid_request_error",
        "param": "messages[0]",
        "code": "invalid_type",
    }


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 413, 415, 503])
def test_a_refusal_of_the_gateway_keeps_its_status(status: int) -> None:
    failure = refused(Refusal(status, "x"))
    assert failure.status == status
    assert failure.code
