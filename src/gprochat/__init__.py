"""The names that a first program needs.

    import asyncio
    import gprochat

    async def main():
        async with gprochat.Client(gprochat.service_from_environment()) as client:
            print(await client.complete("Hello"))

    asyncio.run(main())

A name is imported when it is first used, so `import gprochat` is quick and needs no other library.
All other names are in `gprochat_core`, `gprochat_transports` and the modules of this package.
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
"""The modules of those names that do not come from `gprochat_core`."""


# Hidden from type checkers, which otherwise would accept any name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(HOMES.get(name, "gprochat_core")), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
