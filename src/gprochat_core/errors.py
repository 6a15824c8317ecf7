"""Every error that a user of gprochat can meet, in one tree.

The message of an error says what happened and what to do. Its attributes hold what a program needs
to decide. Two branches have attributes in common:

* `ResponseError`: the service answered, and its answer is not a reply;
* `IncompleteReply`: a reply did not end well; `text` is the part that arrived.

All other errors but `UsageError` happen before the service answers.

`TransportError` at the end is not part of the tree: with it a transport reports to the core what
failed (`Cause`) and when (`Phase`). The core turns it into one of the errors above, so users never
meet it.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Literal, Self

__all__ = [
    "AuthenticationError",
    "BadRequest",
    "Cause",
    "ConfigurationError",
    "ConnectError",
    "ConnectTimeout",
    "GPROChatError",
    "IncompleteReply",
    "InterruptedReply",
    "InvalidMessages",
    "NotTheService",
    "PasswordRejected",
    "Phase",
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
    """The base of every error that this library raises on purpose."""


class ConfigurationError(GPROChatError, ValueError):
    """A setting cannot be used: a malformed URL, a missing secret key, a negative time limit."""


class UsageError(GPROChatError, RuntimeError):
    """A client, reply or exchange was used at the wrong time, or on another event loop."""


class InvalidMessages(GPROChatError, ValueError):
    """The conversation cannot be sent, and nothing was sent.

    Attributes:
        index: which message is at fault, counted from 0; None if no single message is.
        position: the character at fault in that message's text, counted from 0; None if unknown.
    """

    def __init__(self, what: str, *, index: int | None = None, position: int | None = None) -> None:
        super().__init__(what)
        self.index = index
        self.position = position


class ConnectError(GPROChatError):
    """No connection could be made, or it was lost before an answer: DNS, TCP, TLS, a proxy."""


class ConnectTimeout(ConnectError):
    """No connection could be made in time.

    Attributes:
        seconds: the limit that ran out, in seconds; None if it was not one of `Timeouts`.
    """

    def __init__(self, what: str, *, seconds: float | None = None) -> None:
        super().__init__(what)
        self.seconds = seconds


class ResponseError(GPROChatError):
    """The service, or a gateway or proxy in front of it, answered with something else than a reply.

    Attributes:
        status: the HTTP status; 0 if the answer was not HTTP.
        message: the message in the response's body, at most 500 characters; "" if there was none,
            and on NotTheService.
        code: the `code` of the response's JSON error; None if there was none, and on
            NotTheService.
        retry_after: how many seconds the service asks to wait, by its Retry-After header or in
            the words of its model; None if it does not ask. Set on RateLimited and ServiceFailed.
        clock_skew: how many seconds the service's clock is ahead of this machine's;
            negative if it is behind. It is 0 if the response's Date lies between the request and
            the response, and None without a Date. Set on AuthenticationError.
        location: the target of a redirect, which is never followed. Set on NotTheService.
        permanent: whether only the deployment's owner can correct the cause, so that trying again
            changes nothing. Set on ServiceFailed.
    """

    def __init__(
        self,
        what: str,
        *,
        status: int = 0,
        message: str = "",
        code: str | None = None,
        retry_after: float | None = None,
        clock_skew: float | None = None,
        location: str | None = None,
        permanent: bool = False,
    ) -> None:
        super().__init__(what)
        self.status = status
        self.message = message
        self.code = code
        self.retry_after = retry_after
        self.clock_skew = clock_skew
        self.location = location
        self.permanent = permanent


class BadRequest(ResponseError):
    """The service rejects this request: a wrong conversation (400), one that is too long (413)."""


class AuthenticationError(ResponseError):
    """The service denies access (401, 403)."""


class SignatureRejected(AuthenticationError):
    """The signature is wrong: another secret key, or this machine's clock is off."""


class PasswordRejected(AuthenticationError):
    """The site password is missing or wrong."""


class RateLimited(ResponseError):
    """Too many requests: status 429, or a 500 with the model's 429 in its message."""


class ServiceFailed(ResponseError):
    """The service, its model, or a gateway in front of it failed (5xx, 408).

    It is also raised if the model's API refuses the deployment and the service passes the API's
    answer through (401, 403 or 404, with an error of OpenAI's shape).
    """


class NotTheService(ResponseError):
    """No service of this family answered: a redirect, a 404, an HTML page, not HTTP."""


class IncompleteReply(GPROChatError):
    """A reply did not end well.

    Attributes:
        text: the part of the reply that arrived.
    """

    def __init__(self, what: str, *, text: str = "") -> None:
        super().__init__(what)
        self.text = text


class ReplyTimeout(IncompleteReply):
    """The service was silent for too long, or the whole call took too long.

    Attributes:
        limit: which limit of `Timeouts` ran out.
        seconds: that limit in seconds.
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
    """The connection ended, or broke the rules of HTTP, before the reply was complete."""


class InterruptedReply(IncompleteReply):
    """The service failed during the reply and appended its failure marker; `text` is without it.

    The service may fail before the first word too: then the marker is the whole reply.
    """


class ReplyTooLong(IncompleteReply):
    """The reply is longer than `Limits.max_reply_bytes`."""


class Cause(Enum):
    """What the transport's library reported."""

    TIMED_OUT = "timed out"
    """A time limit that the core gave the transport ran out."""

    LOST = "connection lost"
    """Refused, unknown host, reset, closed, TLS failed."""

    MALFORMED = "not HTTP"
    """Bytes arrived that break the rules of HTTP, or of a proxy's protocol."""

    UNSOLICITED = "unsolicited bytes"
    """Bytes arrived on an idle connection before the request was sent."""


class Phase(Enum):
    """How far the call was when the transport failed."""

    WAITING = "waiting for a slot"
    """All `Limits.max_connections` connections were in use."""

    CONNECTING = "connecting"
    """DNS, TCP, the proxy, the TLS handshake."""

    SENDING = "sending the request"
    AWAITING_HEAD = "awaiting the head"
    READING = "reading the reply"


class TransportError(Exception):
    """What a transport raises when it fails. It states facts; the core decides what they mean.

    Raise it from the library's exception (`raise TransportError.wrap(...) from error`), which then
    becomes the `__cause__` of the error that the user gets.

    Attributes:
        cause: what the library reported.
        phase: how far the call was.
        reused: whether the connection had served an earlier request.
        detail: the library's words, for the message that the user reads; may be "".
    """

    def __init__(
        self, cause: Cause, phase: Phase, *, reused: bool = False, detail: str = ""
    ) -> None:
        super().__init__(cause, phase)
        self.cause = cause
        self.phase = phase
        self.reused = reused
        self.detail = detail

    def __str__(self) -> str:
        said = f"{self.cause.value} while {self.phase.value}"
        return f"{said}: {self.detail}" if self.detail else said

    @classmethod
    def wrap(
        cls,
        error: Exception,
        causes: Mapping[type[Exception], Cause],
        phase: Phase,
        *,
        reused: bool = False,
    ) -> Self:
        """Return a library's exception as a TransportError, to be raised from it.

        Args:
            error: the exception.
            causes: the cause that each class of exception reports. It holds the class of `error`
                or one of its bases; the first in the class's method resolution order counts.
            phase, reused: as the attributes.
        """
        cause = next(causes[kind] for kind in type(error).__mro__ if kind in causes)
        return cls(cause, phase, reused=reused, detail=words(error))


def words(error: BaseException) -> str:
    """Return an exception's message, else the message of its cause or context, else its class."""
    link: BaseException | None = error
    while link is not None:
        if str(link):
            return str(link)
        link = link.__cause__ or link.__context__
    return type(error).__name__
