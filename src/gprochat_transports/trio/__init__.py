"""The adapter for trio: trio's sockets and TLS, h11 for HTTP/1.1."""

from typing import Unpack

from gprochat_core import Service

from ..client import Client as AnyClient
from ..environment import proxy_secrets
from ..extras import needs
from ..options import ClientOptions, Settings

with needs("trio"):
    from ..http11.transport import Http11Transport
    from .connection import TrioNetwork

__all__ = ["Client"]


class Client(AnyClient):
    """A client on trio.

    Args:
        service: the deployment to talk to.
        options: see `gprochat_transports.ClientOptions`.

    Raises:
        ConfigurationError: no secret key, a proxy that cannot be used, or an option of a wrong
            type.
    """

    def __init__(self, service: Service, **options: Unpack[ClientOptions]) -> None:
        settings, proxy = Settings.take(options, service, socks5="python_socks")
        transport = Http11Transport(TrioNetwork(), settings, proxy)
        super().__init__(service, transport, secrets=proxy_secrets(proxy), **settings.shared())
