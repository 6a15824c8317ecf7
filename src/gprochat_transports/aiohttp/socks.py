"""Connections through a SOCKS5 proxy for aiohttp.

aiohttp-socks makes them. Its own TLS handshake, where it fails or is cancelled, waits for the end
of a stream that never comes, until the time for connecting has run out; so TLS is asyncio's here.
"""

import asyncio
from math import inf
from ssl import SSLContext

from aiohttp_socks import ProxyConnector
from python_socks.async_.asyncio import Proxy

from .connection import Connector, Protocol

__all__ = ["SocksConnector"]


class SocksConnector(Connector, ProxyConnector):
    """aiohttp-socks's connector, with a TLS handshake that ends at once when it fails."""

    async def _connect_via_proxy(
        self, host: str, port: int, ssl: SSLContext | None = None, timeout: float | None = None
    ) -> tuple[asyncio.Transport, Protocol]:
        proxy = Proxy(
            self._proxy_type,
            self._proxy_host,
            self._proxy_port,
            self._proxy_username,
            self._proxy_password,
        )
        # None would stand for a limit of the library's.
        connected = await proxy.connect(host, port, timeout=inf if timeout is None else timeout)
        return await self._loop.create_connection(
            lambda: Protocol(self._loop),
            sock=connected,
            ssl=ssl,
            server_hostname=host if ssl else None,
        )
