"""Connections through a SOCKS5 proxy for aiohttp.

The TLS handshake of aiohttp-socks does not end when it is cancelled: it goes on until the time
limit for connecting has passed. If that limit is what cancelled it, the handshake may never end.
Here asyncio does the handshake.
"""

import asyncio
from math import inf
from ssl import SSLContext
from typing import Any

from aiohttp_socks import ProxyConnector
from python_socks.async_.asyncio import Proxy

from .connection import Connector, Protocol

__all__ = ["SocksConnector"]


class SocksConnector(Connector, ProxyConnector):
    """aiohttp-socks's connector, with a TLS handshake that ends at once when it is cancelled."""

    def __init__(self, proxy_url: str, **settings: Any) -> None:
        # The base class keeps the proxy's address under private names, so they stay empty.
        super().__init__(host="", port=0, **settings)
        self._proxy_url = proxy_url

    async def _connect_via_proxy(
        self, host: str, port: int, ssl: SSLContext | None = None, timeout: float | None = None
    ) -> tuple[asyncio.Transport, Protocol]:
        # python-socks would take 60 seconds for None.
        limit = inf if timeout is None else timeout
        connected = await Proxy.from_url(self._proxy_url).connect(host, port, timeout=limit)
        loop = asyncio.get_running_loop()
        return await loop.create_connection(
            lambda: Protocol(loop), sock=connected, ssl=ssl, server_hostname=host if ssl else None
        )
