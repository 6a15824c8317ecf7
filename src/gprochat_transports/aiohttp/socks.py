"""Connections through a SOCKS5 proxy for aiohttp.

aiohttp-socks makes them, but for TLS: where a handshake fails or is cancelled, it waits for the
end of a stream that asyncio never tells it of, until the time for connecting has run out.
"""

import asyncio
from ssl import SSLContext

from aiohttp_socks import ProxyConnector
from python_socks.async_.asyncio import Proxy

from .connection import NotingConnector, Protocol

__all__ = ["SocksConnector"]


class SocksConnector(NotingConnector, ProxyConnector):
    """What aiohttp-socks has, with a TLS handshake that ends at once when it must."""

    async def _connect_via_proxy(
        self,
        host: str,
        port: int,
        ssl: SSLContext | None = None,
        timeout: float | None = None,
    ) -> tuple[asyncio.Transport, Protocol]:
        proxy = Proxy(
            self._proxy_type,
            self._proxy_host,
            self._proxy_port,
            self._proxy_username,
            self._proxy_password,
        )
        # It has a limit of its own for None.
        limit = float("inf") if timeout is None else timeout
        sock = await proxy.connect(host, port, timeout=limit)
        return await self._loop.create_connection(
            lambda: Protocol(self._loop),
            sock=sock,
            ssl=ssl,
            server_hostname=host if ssl else None,
        )
