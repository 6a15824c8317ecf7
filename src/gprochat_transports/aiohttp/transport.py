"""Sends requests with an aiohttp session: one that the caller passes, or one made here."""

import asyncio
from functools import lru_cache
from math import inf
from typing import Final
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from gprochat_core import Cause, Limits, Request, SendLimits, TransportError

from ..environment import basic_authorization, without_credentials
from ..options import Settings
from ..watchdog import AsyncioWatchdog
from .connection import CAUSES, EXCEPTIONS, make_connector
from .request import RequestBody
from .response import AiohttpResponse

__all__ = ["AiohttpTransport"]

READ_BUFFER: Final = 64 * 1024
"""aiohttp's buffer in bytes. When twice as many wait for a slow reader, aiohttp stops reading."""


class AiohttpTransport:
    """A `Transport` over the caller's session, or one that is made on the running loop."""

    current_loop: "staticmethod[[], object]" = staticmethod(asyncio.get_running_loop)

    def __init__(
        self, session: aiohttp.ClientSession | None, settings: Settings, proxy: str | None
    ) -> None:
        self._session = session
        self._own_session: aiohttp.ClientSession | None = None
        self._watchdog = AsyncioWatchdog()
        self._served = WeakSet[ResponseHandler]()
        self._limits = settings.limits or Limits()
        self._ssl_context = settings.ssl_context
        self._socks_proxy = proxy if proxy and proxy.startswith("socks5:") else None
        # Whether each request is given the headers; a session made here may hold them instead.
        self._gives_headers = session is not None
        self._http_proxy: URL | None = None
        self._proxy_headers: dict[str, str] = {}
        if proxy and not self._socks_proxy:
            # aiohttp quotes the proxy's URL in its exceptions, so the password is not part of it.
            self._http_proxy = URL(without_credentials(proxy))
            self._proxy_headers = dict(basic_authorization(proxy))

    async def send(self, request: Request, limits: SendLimits) -> AiohttpResponse:
        session = self._session or self._open_session(request)
        body = RequestBody(request.body, limits, self._watchdog, self._served)
        self._watchdog.waits.add(body)
        try:
            response = await session.request(
                request.method,
                # Without `encoded`, yarl would percent-encode in another way than the user did.
                URL(request.url, encoded=True),
                headers=request.headers if self._gives_headers else None,
                data=body,
                allow_redirects=False,
                raise_for_status=False,
                proxy=self._http_proxy,
                proxy_headers=self._proxy_headers,
                timeout=connect_timeout(limits.connect),
                read_bufsize=READ_BUFFER,
                max_line_size=self._limits.max_head_bytes,
                max_field_size=self._limits.max_head_bytes,
            )
        except EXCEPTIONS as error:
            body.abort()
            raise body.failed(error, CAUSES) from error
        except asyncio.CancelledError as error:
            body.abort()
            task = asyncio.current_task()
            if not session.closed or task is None or task.cancelling():
                raise
            # Closing a session cancels the futures of the calls that wait for a slot.
            raise TransportError(Cause.LOST, body.phase, detail="the client was closed") from error
        finally:
            self._watchdog.waits.discard(body)
            body.deadline = inf
        return AiohttpResponse(response, body, self._watchdog, decompressed=session.auto_decompress)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def aclose(self) -> None:
        try:
            if self._own_session is not None:
                await self._own_session.close()
        finally:
            await self._watchdog.aclose()
            for wait in tuple(self._watchdog.waits):
                # Nothing limits a call over the caller's session any more.
                if isinstance(wait, RequestBody):
                    wait.abort()

    def _open_session(self, request: Request) -> aiohttp.ClientSession:
        if self._own_session is None:
            # aiohttp sends the headers of a session to the proxy too, with each CONNECT.
            self._gives_headers = bool(self._http_proxy) and request.url.startswith("https:")
            # Otherwise the session has them: all requests of a client have the same headers, and
            # aiohttp copies those of a session faster. With plain http the proxy reads them too.
            headers = [*request.headers, *self._proxy_headers.items()]
            self._own_session = aiohttp.ClientSession(
                connector=make_connector(self._limits, self._ssl_context, self._socks_proxy),
                headers=None if self._gives_headers else headers,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._own_session


@lru_cache
def connect_timeout(seconds: float | None) -> aiohttp.ClientTimeout:
    """Return a limit for connecting alone: aiohttp's other limits start again with every byte."""
    # Beyond the threshold aiohttp would round a limit up.
    return aiohttp.ClientTimeout(connect=seconds, sock_connect=seconds, ceil_threshold=inf)
