"""The GPROChat protocol without I/O: values and bytes in, values and bytes out.

This package builds signed requests, parses streamed replies and decides what each failure means.
`gprochat_transports`, or code of your own, sends and receives the bytes. It uses the standard
library only, and neither a clock nor a socket.
"""

from .acceptance import Acceptance, Accepted, Refusal
from .errors import (
    AuthenticationError,
    BadRequest,
    Cause,
    ConfigurationError,
    ConnectError,
    ConnectTimeout,
    GPROChatError,
    IncompleteReply,
    InterruptedReply,
    InvalidMessages,
    NotTheService,
    PasswordRejected,
    Phase,
    RateLimited,
    ReplyTimeout,
    ReplyTooLong,
    ResponseError,
    ServiceFailed,
    SignatureRejected,
    TransportError,
    TruncatedReply,
    UsageError,
)
from .exchange import Clock, Exchange, SendLimits, State
from .messages import Conversation, Encoding, Message, Role, format_prompt, read_messages
from .policy import Limits, RetryPolicy, Timeouts
from .redaction import Redactor
from .reply import ReplyParser
from .request import Draft, Request
from .service import DEFAULT_MODEL, GPROCHAT, Service, get_model
from .signing import Signer, generate_signature

__all__ = [
    "DEFAULT_MODEL",
    "GPROCHAT",
    "Acceptance",
    "Accepted",
    "AuthenticationError",
    "BadRequest",
    "Cause",
    "Clock",
    "ConfigurationError",
    "ConnectError",
    "ConnectTimeout",
    "Conversation",
    "Draft",
    "Encoding",
    "Exchange",
    "GPROChatError",
    "IncompleteReply",
    "InterruptedReply",
    "InvalidMessages",
    "Limits",
    "Message",
    "NotTheService",
    "PasswordRejected",
    "Phase",
    "RateLimited",
    "Redactor",
    "Refusal",
    "ReplyParser",
    "ReplyTimeout",
    "ReplyTooLong",
    "Request",
    "ResponseError",
    "RetryPolicy",
    "Role",
    "SendLimits",
    "Service",
    "ServiceFailed",
    "SignatureRejected",
    "Signer",
    "State",
    "Timeouts",
    "TransportError",
    "TruncatedReply",
    "UsageError",
    "format_prompt",
    "generate_signature",
    "get_model",
    "read_messages",
]
