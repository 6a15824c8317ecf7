"""The adapter for aiohttp, on asyncio."""

from typing import Unpack

from gprochat_core import Limits, Service

from ..client import Client as AnyClient
from ..environment import find_proxy, proxy_secrets
from ..extras import needs
from ..options import ClientOptions, Settings

with needs("aiohttp"):
    import aiohttp

    from .transport import AiohttpTransport

__all__ = ["Client"]


class Client(AnyClient):
    """A client on aiohttp, for asyncio.

    Args:
        service: whom to talk to.
        session: a session to use, which is never closed here; it brings its own proxy and TLS.
        options: see `gprochat_transports.ClientOptions`.

    Raises:
        ConfigurationError: no secret key, a proxy that cannot be used, or an option that belongs
            to the session that was passed.
    """

    def __init__(
        self,
        service: Service,
        *,
        session: aiohttp.ClientSession | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        settings = Settings(**options)
        proxy = None
        if session is None:
            proxy = find_proxy(service.url, settings.proxy, socks5="aiohttp_socks")
        else:
            settings.refuse_for("session")
        limits = settings.limits or Limits()
        super().__init__(
            service,
            AiohttpTransport(session, limits, proxy, settings.ssl_context),
            timeouts=settings.timeouts,
            retry=settings.retry,
            limits=limits,
            secrets=proxy_secrets(proxy),
        )
