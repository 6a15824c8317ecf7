"""Calls over an httpx client that the caller made: the client does everything, in its own way.

How far a call is, httpx tells by the `trace` extension (its documentation, "Request extensions").
httpx2 is the same library under another name.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from math import inf
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import anyio.lowlevel
import h11

from gprochat_core import Cause, ConfigurationError, Phase, Request, SendLimits, TransportError

from ..http11.network import Causes
from . import connection

if TYPE_CHECKING:
    import httpx

__all__ = ["BlockingGivenTransport", "GivenTransport"]

BY_NAME: Final = {
    "TimeoutException": Cause.TIMED_OUT,
    "NetworkError": Cause.LOST,
    "ProxyError": Cause.LOST,
    # httpx calls it a protocol error when a server closes without an answer; h11 does not.
    "RemoteProtocolError": Cause.LOST,
    "TransportError": Cause.LOST,
    "StreamError": Cause.LOST,
    "InvalidURL": Cause.LOST,
}
"""Exceptions by the name that they have in httpx and httpx2."""


def read_causes(client: object, kind: str) -> Causes:
    """Return the exceptions of the library that a client is of.

    Args:
        client: what the caller passed.
        kind: the name of the class that it must be of.

    Raises:
        ConfigurationError: it is not of that class.
    """
    for name in ("httpx", "httpx2"):
        library = sys.modules.get(name)
        if library is not None and isinstance(client, getattr(library, kind)):
            by_class = {getattr(library, name): cause for name, cause in BY_NAME.items()}
            with suppress(ImportError):
                from socksio import SOCKSError

                by_class[SOCKSError] = Cause.LOST
            return {**connection.CAUSES, h11.RemoteProtocolError: Cause.MALFORMED, **by_class}
    raise ConfigurationError(f"client= takes an httpx.{kind}, not a {type(client).__qualname__}")


class Call:
    """One call, and how far it is.

    Attributes:
        timeouts: the time limits in httpx's form, in seconds.
        sent_at: when the last byte of the request was sent, by `time.monotonic`.
        connected: the stream of a connection that is not ready for the request yet. httpx leaves
            it open where a SOCKS proxy does not answer in time.
    """

    def __init__(self, causes: Causes, limits: SendLimits) -> None:
        reply = limits.reply(monotonic())
        connect = limits.connect
        self.timeouts = {"pool": connect, "connect": connect, "write": reply, "read": reply}
        self.sent_at = monotonic()
        self.connected: Any = None
        self._causes = causes
        self._phase = Phase.WAITING
        self._reused = True

    def note(self, event: str, info: Mapping[str, Any]) -> Phase | None:
        """Take an event of the `trace` extension; return the phase that begins with it, if any."""
        step = event.partition(".")[2]
        begun: Phase | None = None
        if step == "connect_tcp.started":
            begun = Phase.CONNECTING
            self._reused = False
        elif step == "connect_tcp.complete":
            self.connected = info["return_value"]
        elif step == "send_request_headers.started" and info["request"].method != b"CONNECT":
            begun = Phase.SENDING
            self.connected = None
        elif step == "send_request_body.complete" and self._phase is Phase.SENDING:
            begun = Phase.AWAITING_HEAD
            self.sent_at = monotonic()
        elif step == "receive_response_body.started":
            begun = Phase.READING
        self._phase = begun or self._phase
        return begun

    def build(
        self, client: "httpx.Client | httpx.AsyncClient", request: Request, trace: object
    ) -> "httpx.Request":
        """Return a request in httpx's form, with the client's headers where it has none."""
        return client.build_request(
            request.method,
            request.url,
            headers=request.headers,
            content=request.body,
            extensions={"timeout": self.timeouts, "trace": trace},
        )

    def failed(self, error: Exception) -> TransportError:
        """Report an exception of httpx's, or the one of h11's behind it."""
        chain: list[BaseException] = [error]
        while cause := chain[-1].__cause__ or chain[-1].__context__:
            chain.append(cause)
        malformed = (each for each in chain if isinstance(each, h11.RemoteProtocolError))
        reported = next(malformed, error)
        return TransportError.wrap(reported, self._causes, self._phase, reused=self._reused)


class GivenTransport:
    """A `Transport` over an asynchronous client, on asyncio and trio."""

    def __init__(self, client: "httpx.AsyncClient") -> None:
        self._client = client
        self._causes = read_causes(client, "AsyncClient")

    async def send(self, request: Request, limits: SendLimits) -> "GivenResponse":
        call = Call(self._causes, limits)

        connect_by = deadline(limits.connect)

        async def trace(event: str, info: Mapping[str, Any]) -> None:
            # httpx limits each of its steps and reads; here all of them together must be in time.
            match call.note(event, info):
                case Phase.CONNECTING:
                    scope.deadline = connect_by
                case Phase.SENDING:
                    scope.deadline = inf
                case Phase.AWAITING_HEAD:
                    scope.deadline = deadline(limits.reply(monotonic()))
                case _:
                    pass

        built = call.build(self._client, request, trace)
        try:
            with anyio.fail_after(None) as scope:
                response = await self._client.send(built, stream=True, follow_redirects=False)
        except tuple(self._causes) as error:
            raise call.failed(error) from error
        finally:
            if call.connected is not None:
                with anyio.CancelScope(shield=True):
                    await call.connected.aclose()
        return GivenResponse(response, call, tuple(self._causes))

    def current_loop(self) -> object:
        return anyio.lowlevel.current_token()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def aclose(self) -> None:
        pass


def deadline(seconds: float | None) -> float:
    return inf if seconds is None else anyio.current_time() + seconds


class GivenResponse:
    """A `Response` of an asynchronous client."""

    def __init__(
        self, response: "httpx.Response", call: Call, exceptions: tuple[type[Exception], ...]
    ) -> None:
        self._response = response
        self._body = aiter(cast("httpx.AsyncByteStream", response.stream))
        self._call = call
        self._exceptions = exceptions
        self.status = response.status_code
        self.headers = response.headers.raw
        self.sent_at = call.sent_at

    async def read(self, timeout: float | None) -> bytes:
        try:
            self._call.timeouts["read"] = None
            with anyio.fail_after(timeout):
                return await anext(self._body, b"")
        except self._exceptions as error:
            raise self._call.failed(error) from error

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._response.aclose()


class BlockingGivenTransport:
    """A `Transport` over a blocking client; its coroutines never suspend."""

    def __init__(self, client: "httpx.Client") -> None:
        self._client = client
        self._causes = read_causes(client, "Client")

    async def send(self, request: Request, limits: SendLimits) -> "BlockingGivenResponse":
        call = Call(self._causes, limits)
        built = call.build(self._client, request, call.note)
        try:
            response = self._client.send(built, stream=True, follow_redirects=False)
        except tuple(self._causes) as error:
            raise call.failed(error) from error
        finally:
            if call.connected is not None:
                call.connected.close()
        return BlockingGivenResponse(response, call, tuple(self._causes))

    def current_loop(self) -> object:
        return self

    async def sleep(self, seconds: float) -> None:
        sleep(seconds)  # noqa: ASYNC251 - blocking is its purpose

    async def aclose(self) -> None:
        pass


class BlockingGivenResponse:
    """A `Response` of a blocking client."""

    def __init__(
        self, response: "httpx.Response", call: Call, exceptions: tuple[type[Exception], ...]
    ) -> None:
        self._response = response
        self._body: Iterator[bytes] = iter(cast("httpx.SyncByteStream", response.stream))
        self._call = call
        self._exceptions = exceptions
        self.status = response.status_code
        self.headers = response.headers.raw
        self.sent_at = call.sent_at

    async def read(self, timeout: float | None) -> bytes:
        try:
            # httpx looks at this once, before its first read of the body.
            self._call.timeouts["read"] = timeout
            return next(self._body, b"")
        except self._exceptions as error:
            raise self._call.failed(error) from error

    async def aclose(self) -> None:
        self._response.close()
