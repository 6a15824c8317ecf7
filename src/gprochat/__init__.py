"""The front door: the names of a first program.

    import gprochat

    service = gprochat.service_from_environment()
    async with gprochat.Client(service) as client:
        print(await client.complete("Hello"))

Each name is imported when it is first used, so that `import gprochat` is quick and needs no
library. What else there is stands in `gprochat_core`, `gprochat_transports` and this package's
modules.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gprochat_core import (
        AuthenticationError,
        BadRequest,
        ConfigurationError,
        ConnectError,
        ConnectTimeout,
        GPROChatError,
        IncompleteReply,
        InterruptedReply,
        InvalidMessages,
        Limits,
        Message,
        NotTheService,
        PasswordRejected,
        RateLimited,
        ReplyTimeout,
        ReplyTooLong,
        ResponseError,
        RetryPolicy,
        Service,
        ServiceFailed,
        SignatureRejected,
        Signer,
        Timeouts,
        TruncatedReply,
        UsageError,
    )
    from gprochat_transports import service_from_environment
    from gprochat_transports.httpx import SyncClient

    from .client import Client
    from .provider import GPROChat

__all__ = [
    "AuthenticationError",
    "BadRequest",
    "Client",
    "ConfigurationError",
    "ConnectError",
    "ConnectTimeout",
    "GPROChat",
    "GPROChatError",
    "IncompleteReply",
    "InterruptedReply",
    "InvalidMessages",
    "Limits",
    "Message",
    "NotTheService",
    "PasswordRejected",
    "RateLimited",
    "ReplyTimeout",
    "ReplyTooLong",
    "ResponseError",
    "RetryPolicy",
    "Service",
    "ServiceFailed",
    "SignatureRejected",
    "Signer",
    "SyncClient",
    "Timeouts",
    "TruncatedReply",
    "UsageError",
    "service_from_environment",
]

HOMES: Final = {
    "Client": "gprochat.client",
    "GPROChat": "gprochat.provider",
    "SyncClient": "gprochat_transports.httpx",
    "service_from_environment": "gprochat_transports",
}
"""The modules of the names that are not the core's."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(HOMES.get(name, "gprochat_core")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
