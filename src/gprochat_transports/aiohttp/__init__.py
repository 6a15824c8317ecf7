"""The adapter for aiohttp, on asyncio."""

from typing import Unpack

from gprochat_core import Service

from ..client import Client as AnyClient
from ..environment import proxy_secrets
from ..extras import needs
from ..options import ClientOptions, Settings

with needs("aiohttp"):
    import aiohttp

    from .transport import AiohttpTransport

__all__ = ["Client"]


class Client(AnyClient):
    """A client on aiohttp, for asyncio.

    Args:
        service: the deployment to talk to.
        session: a session to use, which is never closed here; it brings its own proxy and TLS.
        options: see `gprochat_transports.ClientOptions`.

    Raises:
        ConfigurationError: no secret key, a proxy that cannot be used, an option of a wrong type,
            or one that belongs to the session that was passed.
    """

    def __init__(
        self,
        service: Service,
        *,
        session: aiohttp.ClientSession | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        settings, proxy = Settings.take(options, service, socks5="aiohttp_socks", given=session)
        transport = AiohttpTransport(session, settings, proxy)
        super().__init__(service, transport, secrets=proxy_secrets(proxy), **settings.shared())
