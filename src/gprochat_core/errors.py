"""Every error a user of gprochat can meet, in one tree.

An error says in its message what happened and what to do about it; what a program needs to
decide is in its attributes. Three branches share attributes:

* `ResponseError`: the service answered, and its answer was not a reply;
* `IncompleteReply`: a reply began and did not end well; `text` is what arrived of it;
* everything else happened before the service said anything.

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
    """The service, or a gateway or proxy in front of it, answered with something else than a reply.

    Attributes:
        status: the HTTP status.
        message: what the response's body said, "" where it said nothing readable.
        code: the `code` of the response's JSON error, where there was one.
        retry_after: how many seconds the service asks to wait; None where it did not say. Only
            RateLimited and ServiceFailed have it.
        clock_skew: how many seconds the service's clock is ahead of this machine's, by the
            response's Date header; None where it had none. Only AuthenticationError has it.
        location: where a redirect pointed; it is never followed. Only NotTheService has it.
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
    ) -> None:
        super().__init__(what)
        self.status = status
        self.message = message
        self.code = code
        self.retry_after = retry_after
        self.clock_skew = clock_skew
        self.location = location


class BadRequest(ResponseError):
    """The service cannot take this request: a wrong conversation (400), too long a one (413)."""


class AuthenticationError(ResponseError):
    """The service does not let this request in (401, 403)."""


class SignatureRejected(AuthenticationError):
    """The signature does not hold: a wrong secret key, or a clock that is off."""


class PasswordRejected(AuthenticationError):
    """The site password is missing or wrong."""


class RateLimited(ResponseError):
    """Too many requests: a 429, or the model's 429 that hides in a 500."""


class ServiceFailed(ResponseError):
    """The service, its model or a gateway in front of it failed (5xx, 408)."""


class NotTheService(ResponseError):
    """The answer is not from a service of this family: a redirect, a 404, a page, no HTTP."""


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
    """What a transport raises when it fails: the facts, for the core to judge.

    Raise it from the library's own exception (`raise TransportError.wrap(...) from error`): that
    one becomes the `__cause__` of the error which the user gets.

    Attributes:
        cause: what the library reported.
        phase: how far the call was.
        reused: whether the connection had served an earlier request.
        detail: the library's words, for the message that a user reads; may be "".
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
            causes: what each of the library's exceptions reports. The class of `error` or one of
                its bases must be among them; the one nearest to the class of `error` counts.
            phase, reused: as the attributes.
        """
        cause = next(causes[kind] for kind in type(error).__mro__ if kind in causes)
        return cls(cause, phase, reused=reused, detail=words(error))


def words(error: BaseException) -> str:
    """Return an exception's words: its own, else those of what caused it, else its class name."""
    link: BaseException | None = error
    while link is not None:
        if str(link):
            return str(link)
        link = link.__cause__ or link.__context__
    return type(error).__name__
