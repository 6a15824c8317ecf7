"""Sends requests with an aiohttp session: one that the caller passes, or one made here."""

import asyncio
from base64 import b64encode
from functools import lru_cache
from math import inf
from ssl import SSLContext
from typing import Final
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from gprochat_core import Cause, Limits, Request, SendLimits, TransportError

from ..watchdog import AsyncioWatchdog
from .connection import CAUSES, make_connector
from .request import RequestBody
from .response import AiohttpResponse

__all__ = ["AiohttpTransport"]

EXCEPTIONS = tuple(CAUSES)

READ_BUFFER: Final = 64 * 1024
"""Bytes kept for a slow reader after which aiohttp reads no more: twice as many, and one read."""


class AiohttpTransport:
    """A `Transport` over an aiohttp session.

    Args:
        session: the caller's; None to make one when it is needed, on the running loop.
        limits: the client's.
        proxy: the URL of a proxy, as `find_proxy` gives it; None for none.
        ssl_context: for TLS; None to verify certificates against the system's.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession | None,
        limits: Limits,
        proxy: str | None,
        ssl_context: SSLContext | None,
    ) -> None:
        self._session = session
        self._own_session: aiohttp.ClientSession | None = None
        self._watchdog = AsyncioWatchdog()
        self._served = WeakSet[ResponseHandler]()
        self._limits = limits
        self._ssl_context = ssl_context
        self._socks_proxy = proxy if proxy and proxy.startswith("socks5:") else None
        self._http_proxy: URL | None = None
        self._proxy_headers: dict[str, str] = {}
        if proxy and not self._socks_proxy:
            url = URL(proxy)
            # aiohttp quotes a proxy's URL in its exceptions, so the password goes apart.
            self._http_proxy = url.with_user(None)
            if url.user is not None:
                credentials = b64encode(f"{url.user}:{url.password or ''}".encode()).decode()
                self._proxy_headers["Proxy-Authorization"] = f"Basic {credentials}"

    async def send(self, request: Request, limits: SendLimits) -> AiohttpResponse:
        session = self._session or self._open_session()
        body = RequestBody(request.body, limits, self._watchdog, self._served)
        self._watchdog.waits.add(body)
        headers = [*request.headers]
        if request.url.startswith("http:"):
            # The request itself goes to the proxy; with TLS only a CONNECT request does.
            headers += self._proxy_headers.items()
        response = None
        try:
            response = await session.request(
                request.method,
                request.url,
                headers=headers,
                data=body,
                allow_redirects=False,
                raise_for_status=False,
                proxy=self._http_proxy,
                proxy_headers=self._proxy_headers,
                timeout=client_timeout(limits.connect),
                read_bufsize=READ_BUFFER,
                max_line_size=self._limits.max_head_bytes,
                max_field_size=self._limits.max_head_bytes,
            )
        except EXCEPTIONS as error:
            raise body.failed(error, CAUSES) from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # aiohttp cancels, where it is closed, what the calls that wait for a slot wait for.
            raise TransportError(Cause.LOST, body.phase, detail="the client was closed") from error
        finally:
            if response is None:
                body.abort()
            self._watchdog.waits.discard(body)
            body.deadline = inf
        if body.unsolicited:
            # aiohttp takes the bytes that had arrived before for the answer to this request.
            response.close()
            raise TransportError(Cause.UNSOLICITED, body.phase, reused=True)
        decompressed = session.auto_decompress
        return AiohttpResponse(response, body, self._watchdog, decompressed=decompressed)

    def current_loop(self) -> object:
        return asyncio.get_running_loop()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def aclose(self) -> None:
        try:
            if self._own_session is not None:
                await self._own_session.close()
        finally:
            await self._watchdog.aclose()

    def _open_session(self) -> aiohttp.ClientSession:
        if self._own_session is None:
            self._own_session = aiohttp.ClientSession(
                connector=make_connector(self._limits, self._ssl_context, self._socks_proxy),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._own_session


@lru_cache(maxsize=8)
def client_timeout(connect: float | None) -> aiohttp.ClientTimeout:
    """Return the one time limit that is left to aiohttp: its others start anew with every byte."""
    return aiohttp.ClientTimeout(connect=connect, sock_connect=connect)
