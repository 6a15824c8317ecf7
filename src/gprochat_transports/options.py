"""The arguments that the clients of all adapters take, written once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import TypeAlias, TypedDict

from gprochat_core import ConfigurationError, GPROChatError, Limits, RetryPolicy, Timeouts

from .environment import FROM_ENVIRONMENT, Proxy

__all__ = ["ClientOptions", "OnRetry", "Settings"]

OnRetry: TypeAlias = Callable[[int, float, GPROChatError], None]
"""What a client calls before it waits for another attempt: with the number of that attempt, which
is 2 or more, the delay in seconds, and the error of the attempt before, without secrets."""


class ClientOptions(TypedDict, total=False):
    """Keyword arguments of every `Client` and `SyncClient`.

    Attributes:
        timeouts: how long to wait; `Timeouts()` by default.
        retry: which failed attempts are made again, and when; `RetryPolicy()` by default.
        on_retry: called before each wait for another attempt; see `OnRetry`. It must not block.
            What it raises ends the call.
        limits: how much to accept, and how many connections to keep; `Limits()` by default.
        proxy: the URL of an HTTP or SOCKS5 proxy, or None for no proxy; by default as the
            environment says.
        ssl_context: for TLS; by default certificates are verified against the system's.
    """

    timeouts: Timeouts | None
    retry: RetryPolicy | None
    on_retry: OnRetry | None
    limits: Limits | None
    proxy: Proxy
    ssl_context: SSLContext | None


class Numbers(TypedDict):
    """The options that a `gprochat_transports.Client` takes itself."""

    timeouts: Timeouts | None
    retry: RetryPolicy | None
    on_retry: OnRetry | None
    limits: Limits | None


@dataclass(frozen=True, slots=True)
class Settings:
    """All options of a client: those that the caller passed, and defaults."""

    timeouts: Timeouts | None = None
    retry: RetryPolicy | None = None
    on_retry: OnRetry | None = None
    limits: Limits | None = None
    proxy: Proxy = field(default=FROM_ENVIRONMENT, repr=False)
    ssl_context: SSLContext | None = None

    def numbers(self) -> Numbers:
        """Return the options that a `gprochat_transports.Client` takes itself."""
        return {
            "timeouts": self.timeouts,
            "retry": self.retry,
            "on_retry": self.on_retry,
            "limits": self.limits,
        }

    def refuse_for(self, given: str) -> None:
        """Refuse proxy and TLS, which a session or client that the caller passed brings itself.

        Args:
            given: "session" or "client".

        Raises:
            ConfigurationError: `proxy` or `ssl_context` was passed as well.
        """
        if self.proxy not in (None, FROM_ENVIRONMENT) or self.ssl_context is not None:
            raise ConfigurationError(f"set proxy and TLS on the {given} that you pass")
