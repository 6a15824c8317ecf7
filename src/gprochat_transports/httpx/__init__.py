"""The adapter for httpx, on asyncio, on trio, and without an event loop.

With a client that the caller passes, httpx does everything. Without one, the adapter uses the two
libraries that httpx is built on, anyio and h11, and the project's own pool. In httpx's pool, the
work for each call grows with the number of calls and connections.
"""

from typing import TYPE_CHECKING, Unpack

from gprochat_core import Service

from ..client import Client as AnyClient
from ..client import Transport
from ..environment import proxy_secrets
from ..extras import needs
from ..options import ClientOptions, Settings
from ..sync import SyncClient as AnySyncClient

with needs("httpx"):
    from ..http11.transport import Http11Transport
    from .blocking import BlockingNetwork
    from .connection import AnyioNetwork
    from .given import GivenTransport

if TYPE_CHECKING:
    import httpx
    import httpx2

__all__ = ["Client", "SyncClient"]


class Client(AnyClient):
    """A client on httpx, for asyncio and trio.

    Args:
        service: the deployment to talk to.
        client: an `AsyncClient` of httpx or httpx2 to use, which is never closed here; it brings
            its own proxy and TLS.
        options: see `gprochat_transports.ClientOptions`.

    Raises:
        ConfigurationError: no secret key, a proxy that cannot be used, an option of a wrong type,
            or one that belongs to the client that was passed.
    """

    def __init__(
        self,
        service: Service,
        *,
        client: "httpx.AsyncClient | httpx2.AsyncClient | None" = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        settings, proxy = Settings.take(options, service, socks5="python_socks", given=client)
        transport = make_transport(client, AnyioNetwork(), settings, proxy)
        super().__init__(service, transport, secrets=proxy_secrets(proxy), **settings.shared())


class SyncClient(AnySyncClient):
    """A client that blocks, for any number of threads: `Client` without `async` and `await`.

    Args:
        service, client, options: as for `Client`, but `client` is a `Client` of httpx or httpx2.
    """

    def __init__(
        self,
        service: Service,
        *,
        client: "httpx.Client | httpx2.Client | None" = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        settings, proxy = Settings.take(options, service, socks5="python_socks", given=client)
        transport = make_transport(client, BlockingNetwork(), settings, proxy)
        super().__init__(
            AnyClient(service, transport, secrets=proxy_secrets(proxy), **settings.shared())
        )


def make_transport(
    client: object, network: AnyioNetwork | BlockingNetwork, settings: Settings, proxy: str | None
) -> Transport:
    """Return the transport over a caller's client, else over connections of a network."""
    if client is not None:
        return GivenTransport(client, network)
    return Http11Transport(network, settings, proxy)
