"""The aiohttp transport: moves bytes with an aiohttp session, on asyncio."""

import asyncio
from base64 import b64encode
from functools import lru_cache
from math import inf
from ssl import SSLContext
from weakref import WeakSet

from ..extras import needs

with needs("aiohttp"):
    import aiohttp
    from aiohttp.client_proto import ResponseHandler
    from yarl import URL

from gprochat_core import (
    ConfigurationError,
    Failure,
    Limits,
    Request,
    RetryPolicy,
    SendLimits,
    Service,
    Timeouts,
    TransportError,
)

from .._failures import OUT_OF_STEP
from .._secrets import proxy_secrets
from .._watch_asyncio import AsyncioWatch
from ..client import Client as AnyClient
from ..environment import FROM_ENVIRONMENT, Proxy, find_proxy
from .connection import TcpConnector
from .request import FAILURES, Body
from .response import READ_BUFFER, AiohttpResponse

__all__ = ["Client"]


class AiohttpTransport:
    """Sends requests with an aiohttp session: the one given, or one of its own made when needed."""

    def __init__(
        self,
        session: aiohttp.ClientSession | None,
        limits: Limits,
        proxy: str | None,
        ssl_context: SSLContext | None,
    ) -> None:
        self._session = session
        self._own_session: aiohttp.ClientSession | None = None
        self._watch: AsyncioWatch | None = None
        self._served = WeakSet[ResponseHandler]()
        self._limits = limits
        self._socks_proxy: str | None = None
        self._http_proxy: URL | None = None
        self._proxy_headers: dict[str, str] = {}
        if proxy is not None and proxy.startswith("socks5:"):
            self._socks_proxy = proxy
        elif proxy is not None:
            url = URL(proxy)
            # Apart from the URL, which aiohttp quotes in its exceptions.
            self._http_proxy = url.with_user(None)
            if url.user is not None:
                credentials = b64encode(f"{url.user}:{url.password or ''}".encode()).decode()
                self._proxy_headers["Proxy-Authorization"] = f"Basic {credentials}"
        self._ssl_context = ssl_context

    async def send(self, request: Request, limits: SendLimits) -> AiohttpResponse:
        session = self._session or self._make_session()
        watch = self._watch = self._watch or AsyncioWatch()
        body = Body(request.body, limits, watch, self._served)
        watch.waits.add(body)
        try:
            response = await self._request(session, request, body, limits.connect)
        except BaseException:
            body.abort()
            raise
        finally:
            watch.waits.discard(body)
            body.deadline = inf
        if body.reused and not body.in_step:
            # aiohttp would take it for the answer to this request.
            response.close()
            raise TransportError(Failure.STALE, OUT_OF_STEP)
        return AiohttpResponse(response, body.sent_at, watch, decompressed=session.auto_decompress)

    async def _request(
        self,
        session: aiohttp.ClientSession,
        request: Request,
        body: Body,
        connect_timeout: float | None,
    ) -> aiohttp.ClientResponse:
        headers = [*request.headers]
        if request.url.startswith("http:"):
            # The request itself goes to the proxy; with TLS it is another one that does.
            headers += self._proxy_headers.items()
        try:
            return await session.request(
                request.method,
                request.url,
                headers=headers,
                data=body,
                allow_redirects=False,
                raise_for_status=False,
                proxy=self._http_proxy,
                proxy_headers=self._proxy_headers,
                timeout=client_timeout(connect_timeout),
                read_bufsize=READ_BUFFER,
                max_line_size=self._limits.max_head_bytes,
                max_field_size=self._limits.max_head_bytes,
            )
        except FAILURES.kinds as error:
            if body.late:
                raise TransportError(Failure.TIMEOUT) from error
            failed = FAILURES.translate(error, reused=body.reused)
            if not (body.begun or body.reused) and failed.failure is not Failure.CONNECT_TIMEOUT:
                # A proxy breaks the rules of HTTP, or off.
                failed.failure = Failure.CONNECT
            raise failed from error

    def current_loop(self) -> object:
        return asyncio.get_running_loop()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def aclose(self) -> None:
        if self._watch is not None:
            await self._watch.stop()
        if self._own_session is not None:
            await self._own_session.close()

    def _make_session(self) -> aiohttp.ClientSession:
        if self._own_session is None:
            # True stands for a context of aiohttp's that verifies, and that all its sessions share.
            ssl_context = self._ssl_context or True
            limit = self._limits.max_connections
            if self._socks_proxy is not None:
                from .socks import SocksConnector

                connector: aiohttp.BaseConnector = SocksConnector.from_url(
                    self._socks_proxy, ssl=ssl_context, limit=limit
                )
            else:
                connector = TcpConnector(ssl=ssl_context, limit=limit)
            self._own_session = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._own_session


@lru_cache(maxsize=8)
def client_timeout(connect: float | None) -> aiohttp.ClientTimeout:
    """The one time limit that is left to aiohttp: its others start anew with every byte."""
    return aiohttp.ClientTimeout(connect=connect, sock_connect=connect)


class Client(AnyClient):
    """A client on aiohttp, for asyncio.

    Args:
        service, timeouts, retry, limits: as for `gprochat_transports.Client`.
        proxy: the URL of an HTTP or SOCKS5 proxy, None for none; by default as the environment
            says.
        ssl_context: for TLS; by default certificates are verified against the system's.
        session: a session to use, which is never closed here; it brings its own proxy and TLS.

    Raises:
        ConfigurationError: no secret key, a proxy that cannot be used, or a setting that
            belongs to the session given.
    """

    def __init__(
        self,
        service: Service,
        *,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        limits: Limits | None = None,
        proxy: Proxy = FROM_ENVIRONMENT,
        ssl_context: SSLContext | None = None,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        if session is not None:
            if proxy not in (None, FROM_ENVIRONMENT) or ssl_context is not None:
                raise ConfigurationError("set proxy and TLS on the session that you pass")
            proxy = None
        found = find_proxy(service.url, proxy, socks5="aiohttp_socks")
        transport = AiohttpTransport(session, limits or Limits(), found, ssl_context)
        super().__init__(
            service,
            transport,
            timeouts=timeouts,
            retry=retry,
            limits=limits,
            secrets=proxy_secrets(found),
        )
