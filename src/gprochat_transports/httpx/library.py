"""Which httpx: the library itself or httpx2, its exceptions, and how a client of it is made.

httpx2 is the same library under a new name: a client of either may be passed, and where only one
of them is installed, that one is used.
"""

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ssl import SSLContext, SSLError, create_default_context
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Self, cast

import anyio

from gprochat_core import ConfigurationError, Failure, Limits, Service, TransportError

from .._failures import FailureTable
from .._secrets import Hidden, split_proxy
from ..environment import FROM_ENVIRONMENT, Proxy, find_proxy

if TYPE_CHECKING:
    import httpx

    from .call import Progress
else:
    try:
        import httpx
    except ImportError:
        import httpx2 as httpx

socks_failures: list[tuple[type[Exception], Failure]] = []
with suppress(ImportError):
    from socksio import SOCKSError

    # The assertions are the library's, about what a proxy says.
    socks_failures = [(SOCKSError, Failure.CONNECT), (AssertionError, Failure.CONNECT)]

__all__ = ["KEPT_SECONDS", "Library", "client_settings"]

KEPT_SECONDS: Final = 5.0
"""How long a connection is kept for another call; also what the library itself does."""

FAILURES: Final[tuple[tuple[str, Failure], ...]] = (
    ("ConnectTimeout", Failure.CONNECT_TIMEOUT),
    ("PoolTimeout", Failure.CONNECT_TIMEOUT),
    ("TimeoutException", Failure.TIMEOUT),
    ("ConnectError", Failure.CONNECT),
    ("ProxyError", Failure.CONNECT),
    ("NetworkError", Failure.LOST),
    ("RemoteProtocolError", Failure.MALFORMED),
    ("TransportError", Failure.CONNECT),
    ("InvalidURL", Failure.CONNECT),
)
"""Exceptions by the name that they have in both libraries."""


class Library:
    """httpx or httpx2: what the transports need of it besides a client.

    Args:
        client: a client of the library to use; None for the one that is installed.
        kind: what a client's class is called there.
    """

    def __init__(self, client: object, kind: str) -> None:
        self.module: ModuleType = httpx
        if client is not None:
            modules = (sys.modules.get(name) for name in ("httpx", "httpx2"))
            found = [one for one in modules if one and isinstance(client, getattr(one, kind))]
            if not found:
                raise ConfigurationError(
                    f"client= takes an httpx.{kind}, not a {type(client).__qualname__}"
                )
            self.module = found[0]
        rows = [(getattr(self.module, name), failure) for name, failure in FAILURES]
        if trio := sys.modules.get("trio"):
            rows.append((trio.ClosedResourceError, Failure.LOST))
        self.failures = FailureTable(
            [
                *rows,
                *socks_failures,
                # What anyio's time limit raises, and what its TLS lets through; trio's the same.
                (TimeoutError, Failure.TIMEOUT),
                (SSLError, Failure.LOST),
                (anyio.ClosedResourceError, Failure.LOST),
            ]
        )
        self.body = cast(
            "Callable[[bytes], httpx.AsyncByteStream]",
            type("Body", (Body, self.module.AsyncByteStream), {}),
        )

    def make_client(self, settings: Mapping[str, object]) -> "httpx.Client":
        """Make a blocking client with `client_settings`."""
        client = self.module.Client(
            **self._with_proxy(settings),
            # Each call stands for itself, whatever a service would like to remember.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        )
        client.headers.clear()
        return cast("httpx.Client", client)

    def connect_with(
        self, settings: Mapping[str, object]
    ) -> "Callable[[], httpx.AsyncHTTPTransport]":
        """What makes a transport for a single connection, with `client_settings`."""
        alone = self.module.Limits(max_connections=1, keepalive_expiry=KEPT_SECONDS)
        return partial(
            self.module.AsyncHTTPTransport, **{**self._with_proxy(settings), "limits": alone}
        )

    def _with_proxy(self, settings: Mapping[str, object]) -> dict[str, Any]:
        proxy = settings["proxy"]
        if not isinstance(proxy, str):
            return {**settings}
        url, user, password = split_proxy(proxy)
        # The library logs what it tells a SOCKS proxy.
        auth = (user, Hidden(password)) if user or password else None
        return {**settings, "proxy": self.module.Proxy(url, auth=auth)}

    def translate(self, error: Exception, progress: "Progress | None" = None) -> TransportError:
        """Return an exception of the library's as a TransportError."""
        reused = progress is not None and progress.reused
        failed = self.failures.translate(error, reused=reused)
        if failed.failure is Failure.MALFORMED and "disconnected" in failed.detail:
            # The one thing it calls a protocol error that is none.
            failed.failure = Failure.LOST
        if progress is not None and progress.connecting:
            # What a proxy does, too, is no more than part of connecting.
            in_time = failed.failure not in (Failure.TIMEOUT, Failure.CONNECT_TIMEOUT)
            failed.failure = Failure.CONNECT if in_time else Failure.CONNECT_TIMEOUT
        return failed


class Body:
    """A request's body, in one piece.

    The library's own is an asynchronous generator, and one that a request leaves unfinished when
    it fails.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = [data]

    def __aiter__(self) -> Self:
        self._left = [self._data]
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


@cache
def system_context() -> SSLContext:
    """The context that trusts the system's authorities; to make one takes longer than a call."""
    return create_default_context()


def client_settings(
    service: Service,
    limits: Limits,
    proxy: Proxy,
    ssl_context: SSLContext | None,
    client: object | None,
) -> dict[str, object]:
    """What a client made here is made with; refuses what belongs to one made elsewhere."""
    if client is not None:
        if proxy not in (None, FROM_ENVIRONMENT) or ssl_context is not None:
            raise ConfigurationError("set proxy and TLS on the client that you pass")
        return {}
    return {
        "proxy": find_proxy(service.url, proxy, socks5="socksio"),
        "verify": ssl_context or system_context(),
        "trust_env": False,
        "limits": httpx.Limits(
            max_connections=limits.max_connections, keepalive_expiry=KEPT_SECONDS
        ),
    }
