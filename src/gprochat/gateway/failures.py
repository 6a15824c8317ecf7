"""Which answer a caller gets to an error: status, headers and OpenAI's error object. Pure: no I/O.

A wrong key or password of a deployment is a 502 and not a 401, which would blame the caller's key.
OpenAI's clients repeat a request that got a 429 or a 5xx, unless a header says not to.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Final

from gprochat_core import (
    AuthenticationError,
    BadRequest,
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
    ResponseError,
    ServiceFailed,
    SignatureRejected,
    TruncatedReply,
)
from gprochat_core.policy import is_transient

from .frames import encode, error_object
from .requests import Invalid

__all__ = ["INTERNAL", "Failure", "failure_of", "is_callers", "refused"]

DEPLOYMENT: Final = "deployment_error"
"""The type of the errors that are not the caller's fault."""

ANSWERS: Final[Mapping[type[GPROChatError], tuple[int, str, str]]] = {
    InvalidMessages: (400, "invalid_request_error", "invalid_messages"),
    BadRequest: (400, "invalid_request_error", "deployment_refused_request"),
    RateLimited: (429, "rate_limit_error", "rate_limit_exceeded"),
    PasswordRejected: (502, DEPLOYMENT, "deployment_password_rejected"),
    SignatureRejected: (502, DEPLOYMENT, "deployment_key_rejected"),
    AuthenticationError: (502, DEPLOYMENT, "deployment_denies_access"),
    NotTheService: (502, DEPLOYMENT, "not_the_service"),
    ServiceFailed: (502, DEPLOYMENT, "deployment_failed"),
    ConnectTimeout: (504, DEPLOYMENT, "deployment_connect_timeout"),
    ConnectError: (502, DEPLOYMENT, "deployment_unreachable"),
    ReplyTimeout: (504, DEPLOYMENT, "reply_timeout"),
    InterruptedReply: (502, DEPLOYMENT, "reply_interrupted"),
    TruncatedReply: (502, DEPLOYMENT, "reply_truncated"),
    ReplyTooLong: (502, DEPLOYMENT, "reply_too_long"),
    GPROChatError: (500, "server_error", "internal_error"),
}
"""Status, type and code of each error; of an error that is not here, those of its base."""

LIMITED: Final = (ConnectTimeout, ReplyTimeout, ReplyTooLong)
"""The errors whose message ends with which limit of the client to raise; a caller cannot do so."""

REFUSALS: Final[Mapping[int, tuple[str, str]]] = {
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "forbidden"),
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    408: ("invalid_request_error", "request_timeout"),
    413: ("invalid_request_error", "request_too_large"),
    415: ("invalid_request_error", "unsupported_content_encoding"),
    503: ("server_error", "unavailable"),
}
"""Type and code of what the gateway itself refuses, by status."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The answer to a request that failed.

    Attributes:
        status: the HTTP status.
        error: OpenAI's error object.
        headers: headers besides those of every response.
    """

    status: int
    error: dict[str, object]
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def body(self) -> bytes:
        """The body of the response, JSON."""
        return encode({"error": self.error}).encode()

    @property
    def code(self) -> object:
        """The error's code, for the log."""
        return self.error["code"]


INTERNAL: Final = Failure(
    500, error_object("The gateway failed.", "server_error", "internal_error")
)


def failure_of(error: GPROChatError, *, attempts: int = 1, partial_text: str = "") -> Failure:
    """Return the answer that an error of a deployment is.

    Args:
        error: the error.
        attempts: how many requests have been sent to deployments. A caller is told not to repeat
            a request that has been repeated already, or that cannot succeed.
        partial_text: the part of a reply that arrived, for the body of the answer.
    """
    status, kind, code = next(ANSWERS[each] for each in type(error).__mro__ if each in ANSWERS)
    if isinstance(error, BadRequest) and error.status == 413:
        status = 413
    param = "messages" if isinstance(error, InvalidMessages) else None
    message = str(error)
    if isinstance(error, LIMITED):
        message = message.partition("; ")[0]
    told = error_object(message, kind, code, param)
    if partial_text:
        told["partial_text"] = partial_text
    headers: dict[str, str] = {}
    if isinstance(error, ResponseError) and error.retry_after is not None:
        headers["retry-after"] = str(ceil(error.retry_after))
    if attempts > 1 or not is_transient(error):
        headers["x-should-retry"] = "false"
    return Failure(status, told, headers)


def refused(refusal: Refusal | Invalid) -> Failure:
    """Return the answer to a request that the gateway itself refuses."""
    kind, code = REFUSALS.get(refusal.status, ("invalid_request_error", "invalid_request"))
    param = None
    if isinstance(refusal, Invalid):
        code, param = refusal.code, refusal.param
    return Failure(refusal.status, error_object(refusal.message, kind, code, param))


def is_callers(error: GPROChatError) -> bool:
    """Tell whether the request is at fault, so that another deployment would refuse it too."""
    return isinstance(error, (InvalidMessages, BadRequest))
