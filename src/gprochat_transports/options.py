"""The arguments that the clients of all adapters take, written once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from ssl import SSLContext
from types import UnionType
from typing import Final, Self, TypeAlias, TypedDict

from gprochat_core import ConfigurationError, GPROChatError, Limits, RetryPolicy, Service, Timeouts

from .environment import FROM_ENVIRONMENT, Proxy, ProxyUrl, find_proxy

__all__ = ["ClientOptions", "OnRetry", "Settings", "check_types"]

OnRetry: TypeAlias = Callable[[int, float, GPROChatError], None]
"""A function that a client calls before it waits for another attempt. Its arguments are the number
of that attempt, 2 or more, the pause in seconds, and the error of the attempt before, without
secrets."""

TYPES: Final[Mapping[str, tuple[type | UnionType, str]]] = {
    "service": (Service, 'a Service, such as Service("https://chat.example", secret_key="...")'),
    "timeouts": (Timeouts, "a Timeouts, such as Timeouts(first_byte=90)"),
    "retry": (RetryPolicy, "a RetryPolicy, such as RetryPolicy(max_attempts=1)"),
    "on_retry": (object, "a function of attempt, pause and error, without async"),
    "limits": (Limits, "a Limits, such as Limits(max_connections=20)"),
    "proxy": (str | type(FROM_ENVIRONMENT), "the proxy's URL as a str, or None"),
    "ssl_context": (
        SSLContext,
        "an ssl.SSLContext, such as ssl.create_default_context(cafile=...)",
    ),
}
"""The type of each argument of a client, and what an error says to pass."""


class SharedOptions(TypedDict, total=False):
    """The options that a `gprochat_transports.Client` takes itself."""

    timeouts: Timeouts | None
    retry: RetryPolicy | None
    on_retry: OnRetry | None
    limits: Limits | None


class ClientOptions(SharedOptions, total=False):
    """Keyword arguments of every `Client` and `SyncClient`.

    Attributes:
        timeouts: how long to wait; `Timeouts()` by default.
        retry: which failed attempts are made again, and when; `RetryPolicy()` by default.
        on_retry: called before each wait for another attempt; see `OnRetry`. It must not block.
            What it raises ends the call.
        limits: how much to receive, and how many connections to keep; `Limits()` by default.
        proxy: the URL of an HTTP or SOCKS5 proxy, or None for no proxy; by default as the
            environment says.
        ssl_context: for TLS; by default certificates are verified against the system's authorities.
    """

    proxy: Proxy
    ssl_context: SSLContext | None


@dataclass(frozen=True, slots=True)
class Settings:
    """All options of a client: those that the caller passed, and defaults."""

    timeouts: Timeouts | None = None
    retry: RetryPolicy | None = None
    on_retry: OnRetry | None = None
    limits: Limits | None = None
    proxy: Proxy = field(default=FROM_ENVIRONMENT, repr=False)
    ssl_context: SSLContext | None = None

    @classmethod
    def take(
        cls, options: ClientOptions, service: Service, *, socks5: str = "", given: object = None
    ) -> tuple[Self, ProxyUrl | None]:
        """Return the settings of a client, and the URL of its proxy; None for no proxy.

        Args:
            options: what the caller passed. Its proxy is taken out of it: the URL may hold a
                password, and a traceback may be shown with local variables.
            service: the deployment.
            socks5: the module that the transport needs for a SOCKS5 proxy; "" for none.
            given: the session or client that the caller passed, which brings its own proxy and TLS.

        Raises:
            ConfigurationError: `service` or an option has a wrong type, the proxy cannot be used
                (see `gprochat_transports.environment.find_proxy`), or `proxy` or `ssl_context` was
                passed beside `given`.
            TypeError: an option has another name than those of `ClientOptions`.
        """
        if unknown := options.keys() - set(cls.__slots__):
            raise TypeError(f"no option {min(unknown)!r}; there are {', '.join(cls.__slots__)}")
        settings = cls(**options)
        options.pop("proxy", None)
        if given is None:
            check_types(
                service=service, **{name: getattr(settings, name) for name in cls.__slots__}
            )
            return settings, find_proxy(service.url, settings.proxy, socks5=socks5)
        if settings.proxy not in (None, FROM_ENVIRONMENT) or settings.ssl_context is not None:
            kind = type(given).__name__
            raise ConfigurationError(f"set proxy and TLS on the {kind} that you pass")
        return settings, None

    def shared(self) -> SharedOptions:
        """Return the options that a `gprochat_transports.Client` takes itself."""
        return {
            "timeouts": self.timeouts,
            "retry": self.retry,
            "on_retry": self.on_retry,
            "limits": self.limits,
        }


def check_types(**arguments: object) -> None:
    """Refuse arguments of a client or a call that have a wrong type; `service` may not be None.

    Raises:
        ConfigurationError: the message says what to pass. It does not show what was passed, which
            may hold a secret.
    """
    for name, value in arguments.items():
        if value is None and name != "service":
            continue
        expected, example = TYPES[name]
        fits = isinstance(value, expected)
        if name == "on_retry":
            fits = callable(value) and not iscoroutinefunction(value)
        if not fits:
            found = type(value).__name__
            # A traceback may be shown with its local variables.
            del arguments, value
            raise ConfigurationError(f"{name} must be {example}; got {found}")
