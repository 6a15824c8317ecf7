"""The aiohttp transport: moves bytes with an aiohttp session, on asyncio."""

import asyncio
from base64 import b64encode
from collections.abc import Iterable
from contextlib import suppress
from ssl import SSLContext
from time import monotonic
from types import SimpleNamespace
from typing import Final, cast

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import StreamWriter
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

from ._client import Client as AnyClient
from ._failures import FailureTable
from .environment import FROM_ENVIRONMENT, Proxy, find_proxy

socks_failures: list[tuple[type[Exception], Failure]] = []
with suppress(ImportError):
    from aiohttp_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError

    socks_failures = [
        (ProxyTimeoutError, Failure.CONNECT_TIMEOUT),
        (ProxyConnectionError, Failure.CONNECT),
        (ProxyError, Failure.CONNECT),
        (asyncio.IncompleteReadError, Failure.CONNECT),
    ]

__all__ = ["Client"]

WRITE_SIZE: Final = 64 * 1024

OUT_OF_STEP: Final = "an answer has come that nobody asked for"

FAILURES: Final = FailureTable(
    [
        *socks_failures,
        (aiohttp.ConnectionTimeoutError, Failure.CONNECT_TIMEOUT),
        (aiohttp.ServerTimeoutError, Failure.TIMEOUT),
        (aiohttp.ClientConnectorError, Failure.CONNECT),
        (aiohttp.ClientHttpProxyError, Failure.CONNECT),
        (aiohttp.ClientResponseError, Failure.MALFORMED),
        (aiohttp.ClientPayloadError, Failure.LOST),
        (aiohttp.ClientConnectionError, Failure.LOST),
        (aiohttp.ClientError, Failure.CONNECT),
        # What connecting through SOCKS raises, and a host name that IDNA cannot express.
        (TimeoutError, Failure.CONNECT_TIMEOUT),
        (OSError, Failure.CONNECT),
        (UnicodeError, Failure.CONNECT),
        # Reading from, or sending over, what has been closed here.
        (RuntimeError, Failure.LOST),
    ]
)


class Body(aiohttp.Payload):
    """A request's body that is sent bit by bit and knows how far it is.

    Attributes:
        begun: whether there is a connection to the service, and sending has begun.
        sent_at: when its last byte was sent, by `time.monotonic`.
        reused: whether it goes over a connection that has served before, where that is known.
        in_step: whether nothing had come on that connection when sending began.
    """

    def __init__(self, body: bytes, limits: SendLimits, timeout: asyncio.Timeout) -> None:
        super().__init__(body)
        self._size = len(body)
        self._limits = limits
        self._timeout = timeout
        self.begun = False
        self.sent_at = monotonic()
        self.reused = False
        self.in_step = False

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return cast("bytes", self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        self.begun = True
        protocol = cast("ResponseHandler", cast("StreamWriter", writer).protocol)
        self.in_step = not protocol.should_close
        if self.reused and not self.in_step:
            raise aiohttp.ClientConnectionError(OUT_OF_STEP)
        body = memoryview(cast("bytes", self._value))
        for start in range(0, len(body), WRITE_SIZE):
            self._progress()
            await writer.write(body[start : start + WRITE_SIZE])
        self._progress()

    def _progress(self) -> None:
        self.sent_at = monotonic()
        seconds = self._limits.reply(self.sent_at)
        if seconds is not None and not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time() + seconds)


class AiohttpResponse:
    """A response of aiohttp's."""

    def __init__(
        self, response: aiohttp.ClientResponse, sent_at: float, *, decompressed: bool
    ) -> None:
        self._response = response
        self._content = response.content
        self._loop = asyncio.get_running_loop()
        connection = response.connection
        protocol = None if connection is None else connection.protocol
        self._closed = None if protocol is None else protocol.closed
        self._lost = False
        if self._closed is not None:
            self._closed.add_done_callback(self._end)
            self._content.on_eof(self._note_loss)
        self.sent_at = sent_at
        self.status = response.status
        self.headers: Iterable[tuple[bytes, bytes]] = response.raw_headers
        if decompressed:
            self.headers = [
                header for header in self.headers if header[0].lower() != b"content-encoding"
            ]

    async def read(self, timeout: float | None) -> bytes:
        content = self._content
        error = content.exception()
        if error is not None:
            # aiohttp would raise before it gives what had arrived until then.
            content.set_exception(cast("BaseException", None))
            data = content.read_nowait()
            content.set_exception(error)
            if data:
                return data
        watch = None
        if timeout is not None:
            silence = aiohttp.SocketTimeoutError("silence")
            watch = self._loop.call_later(timeout, content.set_exception, silence)
        try:
            data = await content.readany()
            if self._lost and not data:
                raise aiohttp.ClientPayloadError("the connection was lost within the body")
            return data
        except FAILURES.kinds as failure:
            raise FAILURES.translate(failure) from failure
        finally:
            if watch is not None:
                watch.cancel()

    async def aclose(self) -> None:
        if self._closed is not None:
            self._closed.remove_done_callback(self._end)
            # Once on a connection, however many responses come over it.
            self._closed.remove_done_callback(retrieve)
            self._closed.add_done_callback(retrieve)
        # Once read to its end, the response has given back its connection itself.
        self._response.close()

    def _note_loss(self) -> None:
        # aiohttp takes a reset for the end of a body that has no other end than closing.
        self._lost = (
            self._closed is not None
            and self._closed.done()
            and self._closed.exception() is not None
        )

    def _end(self, closed: "asyncio.Future[None]") -> None:
        # aiohttp forgets a body whose framing is broken, and would wait for the rest of it.
        error = retrieve(closed)
        if not self._content.is_eof() and self._content.exception() is None:
            lost = aiohttp.ClientPayloadError("the connection was closed within the body")
            lost.__cause__ = error
            self._content.set_exception(lost)


def retrieve(closed: "asyncio.Future[None]") -> BaseException | None:
    """How a connection ended; asyncio reports an exception that nobody has asked for."""
    return None if closed.cancelled() else closed.exception()


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
        try:
            async with asyncio.timeout(None) as timeout:
                body = Body(request.body, limits, timeout)
                response = await self._request(session, request, body, limits.connect)
        except TimeoutError as error:
            raise TransportError(Failure.TIMEOUT) from error
        if body.reused and not body.in_step:
            # aiohttp would take it for the answer to this request.
            response.close()
            raise TransportError(Failure.STALE, OUT_OF_STEP)
        return AiohttpResponse(response, body.sent_at, decompressed=session.auto_decompress)

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
                # The other limits are kept here: they do not start anew with every byte.
                timeout=aiohttp.ClientTimeout(
                    connect=connect_timeout, sock_connect=connect_timeout
                ),
                max_line_size=self._limits.max_head_bytes,
                max_field_size=self._limits.max_head_bytes,
                trace_request_ctx=body,
            )
        except FAILURES.kinds as error:
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
        if self._own_session is not None:
            await self._own_session.close()

    def _make_session(self) -> aiohttp.ClientSession:
        if self._own_session is None:
            # True stands for a context of aiohttp's that verifies, and that all its sessions share.
            ssl_context = self._ssl_context or True
            limit = self._limits.max_connections
            if self._socks_proxy is not None:
                from aiohttp_socks import ProxyConnector

                connector: aiohttp.BaseConnector = ProxyConnector.from_url(
                    self._socks_proxy, ssl=ssl_context, limit=limit
                )
            else:
                connector = aiohttp.TCPConnector(ssl=ssl_context, limit=limit)
            trace = aiohttp.TraceConfig()
            trace.on_connection_reuseconn.append(note_reuse)
            self._own_session = aiohttp.ClientSession(
                connector=connector,
                trace_configs=[trace],
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._own_session


async def note_reuse(
    session: aiohttp.ClientSession,
    context: SimpleNamespace,
    params: aiohttp.TraceConnectionReuseconnParams,
) -> None:
    """Tell a request's body that it goes over a connection that has served before."""
    body: Body = context.trace_request_ctx
    body.reused = True


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
        transport = AiohttpTransport(
            session, limits or Limits(), find_proxy(service.url, proxy), ssl_context
        )
        super().__init__(service, transport, timeouts=timeouts, retry=retry, limits=limits)
