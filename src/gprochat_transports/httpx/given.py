"""Calls over an httpx client that the caller made; connections, proxy and TLS are the client's."""

from collections.abc import Mapping
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.lowlevel

from gprochat_core import Phase, Request, SendLimits

from .blocking import BlockingNetwork
from .call import Call, read_causes

if TYPE_CHECKING:
    import httpx

__all__ = ["BlockingGivenTransport", "GivenTransport"]


class GivenTransport:
    """A `Transport` over an asynchronous client, on asyncio and trio."""

    def __init__(self, client: "httpx.AsyncClient") -> None:
        self._client = client
        self._causes = read_causes(client, "AsyncClient")

    async def send(self, request: Request, limits: SendLimits) -> "GivenResponse":
        call = Call(self._causes, limits)
        connect_by = deadline(limits.connect)

        async def trace(event: str, info: Mapping[str, Any]) -> None:
            # httpx limits each of its steps and reads; the limits here are for a whole phase.
            begun = call.note(event, info)
            if begun is Phase.CONNECTING:
                scope.deadline = connect_by
            elif begun is Phase.SENDING:
                scope.deadline = inf
            elif begun is Phase.AWAITING_HEAD:
                scope.deadline = deadline(limits.reply(monotonic()))

        try:
            with call.reporting(), anyio.fail_after(None) as scope:
                built = call.build(self._client, request, trace)
                response = await self._client.send(built, stream=True, follow_redirects=False)
        finally:
            if call.connected is not None:
                with anyio.CancelScope(shield=True):
                    await call.connected.aclose()
        return GivenResponse(response, call)

    def current_loop(self) -> object:
        return anyio.lowlevel.current_token()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def aclose(self) -> None:
        """Leave the client open: it is the caller's."""


def deadline(seconds: float | None) -> float:
    return inf if seconds is None else anyio.current_time() + seconds


class GivenResponse:
    """A `Response` of an asynchronous client."""

    def __init__(self, response: "httpx.Response", call: Call) -> None:
        self._response = response
        # Not aiter_raw: it refuses a response that was made from a text, as mocks make them.
        self._body = aiter(cast("httpx.AsyncByteStream", response.stream))
        self._call = call
        self.status: int = response.status_code
        self.headers: list[tuple[bytes, bytes]] = response.headers.raw
        self.sent_at: float = call.sent_at

    async def read(self, timeout: float | None) -> bytes:
        self._call.timeouts["read"] = None
        with self._call.reporting(), anyio.fail_after(timeout):
            return await anext(self._body, b"")

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
        try:
            with call.reporting():
                built = call.build(self._client, request, call.note)
                response = self._client.send(built, stream=True, follow_redirects=False)
        finally:
            if call.connected is not None:
                call.connected.close()
        return BlockingGivenResponse(response, call)

    def current_loop(self) -> object:
        return self

    async def sleep(self, seconds: float) -> None:
        await BlockingNetwork.sleep(seconds)

    async def aclose(self) -> None:
        """Leave the client open: it is the caller's."""


class BlockingGivenResponse:
    """A `Response` of a blocking client."""

    def __init__(self, response: "httpx.Response", call: Call) -> None:
        self._response = response
        self._body = iter(cast("httpx.SyncByteStream", response.stream))
        self._call = call
        self.status: int = response.status_code
        self.headers: list[tuple[bytes, bytes]] = response.headers.raw
        self.sent_at: float = call.sent_at

    async def read(self, timeout: float | None) -> bytes:
        # httpx reads this limit once, before its first read of the body.
        self._call.timeouts["read"] = timeout
        with self._call.reporting():
            return next(self._body, b"")

    async def aclose(self) -> None:
        self._response.close()
