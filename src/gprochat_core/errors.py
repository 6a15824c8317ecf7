"""Every error a user of gprochat can meet, in one tree.

An error says in its message what happened and what to do about it; what a program needs to
decide is in its attributes. Three branches share attributes:

* `ResponseError`: the service answered, and its answer was not a reply;
* `IncompleteReply`: a reply began and did not end well; `text` is what arrived of it;
* everything else happened before the service said anything.

`TransportError` at the end is not part of the tree: it is how a transport tells the core that
moving bytes failed. The core turns it into one of the errors above, so users never meet it.
"""

from enum import Enum
from typing import Literal

__all__ = [
    "AuthenticationError",
    "BadRequest",
    "ConfigurationError",
    "ConnectError",
    "ConnectTimeout",
    "Failure",
    "GPROChatError",
    "IncompleteReply",
    "InterruptedReply",
    "InvalidMessages",
    "NotTheService",
    "PasswordRejected",
    "RateLimited",
    "ReplyTimeout",
    "ReplyTooLong",
    "ResponseError",
    "ServiceFailed",
    "SignatureRejected",
    "TransportError",
    "TruncatedReply",
    "UsageError",
]


class GPROChatError(Exception):
    """The base of every error this library raises on purpose."""


class ConfigurationError(GPROChatError, ValueError):
    """A setting cannot be used: a malformed URL, a missing secret key, a negative time limit."""


class UsageError(GPROChatError, RuntimeError):
    """A client or a reply was used where it cannot be: after closing, or from another loop."""


class InvalidMessages(GPROChatError, ValueError):
    """The conversation cannot be sent; nothing has been.

    Attributes:
        index: which message is at fault, counted from 0; None where it is not a single one.
        position: the character in that message's text, counted from 0, where that is known.
    """

    def __init__(self, what: str, *, index: int | None = None, position: int | None = None) -> None:
        super().__init__(what)
        self.index = index
        self.position = position


class ConnectError(GPROChatError):
    """There was no connection: refused, an unknown host name, TLS, a proxy, or lost too early."""


class ConnectTimeout(ConnectError):
    """There was no connection in time.

    Attributes:
        seconds: the limit that ran out.
    """

    def __init__(self, what: str, *, seconds: float | None = None) -> None:
        super().__init__(what)
        self.seconds = seconds


class ResponseError(GPROChatError):
    """The service, or whatever stands in front of it, answered with something else than a reply.

    Attributes:
        status: the HTTP status.
        message: what the response's body said, "" where it said nothing readable.
        code: the `code` of the response's JSON error, where there was one.
    """

    def __init__(
        self, what: str, *, status: int = 0, message: str = "", code: str | None = None
    ) -> None:
        super().__init__(what)
        self.status = status
        self.message = message
        self.code = code


class BadRequest(ResponseError):
    """The service cannot take this request: a wrong conversation (400), too long a one (413)."""


class AuthenticationError(ResponseError):
    """The service does not let this request in (401, 403).

    Attributes:
        clock_skew: how many seconds the service's clock is ahead of this machine's, by the
            response's Date header; None where it had none.
    """

    def __init__(
        self,
        what: str,
        *,
        status: int = 0,
        message: str = "",
        code: str | None = None,
        clock_skew: float | None = None,
    ) -> None:
        super().__init__(what, status=status, message=message, code=code)
        self.clock_skew = clock_skew


class SignatureRejected(AuthenticationError):
    """The signature does not hold: a wrong secret key, or a clock that is off."""


class PasswordRejected(AuthenticationError):
    """The site password is missing or wrong."""


class RateLimited(ResponseError):
    """Too many requests: a 429, or the model's 429 that hides in a 500.

    Attributes:
        retry_after: how many seconds the service asks to wait; None where it did not say.
    """

    def __init__(
        self,
        what: str,
        *,
        status: int = 0,
        message: str = "",
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(what, status=status, message=message, code=code)
        self.retry_after = retry_after


class ServiceFailed(ResponseError):
    """The service, its model or a gateway in front of it failed (5xx, 408).

    Attributes:
        retry_after: how many seconds the service asks to wait; None where it did not say.
    """

    def __init__(
        self,
        what: str,
        *,
        status: int = 0,
        message: str = "",
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(what, status=status, message=message, code=code)
        self.retry_after = retry_after


class NotTheService(ResponseError):
    """Whatever answered is not a service of this family: a redirect, a 404, a page, no HTTP.

    Attributes:
        location: where a redirect pointed; it is never followed.
    """

    def __init__(
        self,
        what: str,
        *,
        status: int = 0,
        message: str = "",
        code: str | None = None,
        location: str | None = None,
    ) -> None:
        super().__init__(what, status=status, message=message, code=code)
        self.location = location


class IncompleteReply(GPROChatError):
    """A reply did not end well.

    Attributes:
        text: all of the reply that arrived.
    """

    def __init__(self, what: str, *, text: str = "") -> None:
        super().__init__(what)
        self.text = text


class ReplyTimeout(IncompleteReply):
    """The service was silent for too long, or the whole call took too long.

    Attributes:
        limit: which limit ran out.
        seconds: how long it was.
    """

    def __init__(
        self,
        what: str,
        *,
        text: str = "",
        limit: Literal["first_byte", "idle", "total"] = "idle",
        seconds: float | None = None,
    ) -> None:
        super().__init__(what, text=text)
        self.limit = limit
        self.seconds = seconds


class TruncatedReply(IncompleteReply):
    """The connection ended, or its bytes made no sense, before the reply was complete."""


class InterruptedReply(IncompleteReply):
    """The service failed in the middle of the reply, and said so; `text` leaves that remark out."""


class ReplyTooLong(IncompleteReply):
    """The reply passed the caller's limit."""


class Failure(Enum):
    """What can go wrong while bytes are moved, in the only words a transport needs."""

    CONNECT = "no connection"
    """No connection was made: refused, unknown host, TLS handshake, proxy."""

    CONNECT_TIMEOUT = "no connection in time"
    """No connection within the limit given, waiting for a free one included."""

    TIMEOUT = "silence"
    """A connection is there, and nothing moved on it within the limit given."""

    LOST = "connection lost"
    """The connection ended before the response was complete."""

    STALE = "kept connection lost"
    """A connection that had served before ended before any of this response had come."""

    MALFORMED = "not HTTP"
    """What arrived breaks the rules of HTTP."""


class TransportError(Exception):
    """What a transport raises when it could not move bytes; the core decides what that means.

    Attributes:
        failure: what happened.
        detail: the underlying library's words, for the message a user will read.
    """

    def __init__(self, failure: Failure, detail: str = "") -> None:
        super().__init__(failure, detail)
        self.failure = failure
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.failure.value}: {self.detail}" if self.detail else self.failure.value
