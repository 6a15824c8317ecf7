"""Calls over an httpx client that the caller made; connections, proxy and TLS are the client's.

httpx's `trace` extension tells how far a call is (see "Request extensions" in its documentation).
httpx2 is httpx under another name.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from math import inf
from time import monotonic
from typing import Any, cast

import anyio

from gprochat_core import Cause, Phase, Request, SendLimits, TransportError

from ..http11.network import Causes
from .blocking import BlockingNetwork
from .connection import AnyioNetwork, read_causes, report

__all__ = ["GivenCall", "GivenTransport"]


class GivenTransport:
    """A `Transport` over a client of httpx or httpx2.

    Args:
        client: an `AsyncClient`; for a blocking network, a `Client`.
        network: sleeps, and names the running loop. It does not connect.
    """

    def __init__(self, client: Any, network: AnyioNetwork | BlockingNetwork) -> None:
        self._client = client
        self._network = network
        self.current_loop: Callable[[], object] = network.current_loop
        self._blocking = isinstance(network, BlockingNetwork)
        self._causes = read_causes(client, "Client" if self._blocking else "AsyncClient")

    async def send(self, request: Request, limits: SendLimits) -> "GivenCall":
        call = GivenCall(self._causes, limits, blocking=self._blocking)
        await call.send(self._client, request)
        return call

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)

    async def aclose(self) -> None:
        """Leave the client open: it is the caller's."""


class GivenCall:
    """One call: how far it is, and once its head has arrived, a `Response`.

    Attributes:
        sent_at: when the last byte was sent, by `time.monotonic`; until then, when the call began.
    """

    def __init__(self, causes: Causes, limits: SendLimits, *, blocking: bool) -> None:
        self.sent_at: float = monotonic()
        self._causes = causes
        self._limits = limits
        self._blocking = blocking
        self._phase = Phase.WAITING
        self._reused = True
        self._is_reading = False
        # A new connection that is not ready for the request yet.
        self._connected: Any = None
        connect, reply = limits.connect, limits.reply(self.sent_at)
        self._timeouts = {"pool": connect, "connect": connect, "write": reply, "read": reply}

    async def send(self, client: Any, request: Request) -> None:
        """Send a request with the client, and wait for the head of its response."""
        with self._reporting():
            trace = self._note if self._blocking else self._note_and_limit
            built = client.build_request(
                request.method,
                request.url,
                headers=request.headers,
                content=request.body,
                extensions={"timeout": self._timeouts, "trace": trace},
            )
            try:
                if self._blocking:
                    response = client.send(built, stream=True, follow_redirects=False)
                else:
                    with anyio.fail_after(None) as self._scope:
                        response = await client.send(built, stream=True, follow_redirects=False)
            except Exception as error:
                if type(error).__name__ != "HTTPStatusError":
                    raise
                # A hook of the caller's called `raise_for_status`; the error has the response.
                response = cast("Any", error).response
            finally:
                # httpx leaves the connection open if a SOCKS proxy refuses, or answers too late.
                if self._connected is not None:
                    await self._close(self._connected)
        self._phase = Phase.READING
        self.status: int = response.status_code
        self.headers: list[tuple[bytes, bytes]] = response.headers.raw
        self._response = response
        # Not `iter_raw`, which refuses a response that was made from a text, as mocks make them.
        body = response.stream
        if response.is_stream_consumed:
            # A hook of the caller's has read the body, which httpx keeps decompressed.
            body = response.iter_bytes() if self._blocking else response.aiter_bytes()
            self.headers = [each for each in self.headers if each[0].lower() != b"content-encoding"]
        self._body = iter(body) if self._blocking else aiter(body)

    async def read(self, timeout: float | None) -> bytes:
        if self._is_reading:
            # httpx would report a proper end.
            raise TransportError(Cause.LOST, Phase.READING, detail="a read was cancelled")
        self._is_reading = True
        # httpx reads this limit once, before its first read of the body.
        self._timeouts["read"] = timeout if self._blocking else None
        with self._reporting():
            if self._blocking:
                data: bytes = next(self._body, b"")
            else:
                with anyio.fail_after(timeout):
                    data = await anext(self._body, b"")
        self._is_reading = False
        return data

    async def aclose(self) -> None:
        await self._close(self._response)

    async def _close(self, opened: Any) -> None:
        if self._blocking:
            opened.close()
        else:
            with anyio.CancelScope(shield=True):
                await opened.aclose()

    def _note(self, event: str, info: Mapping[str, Any]) -> None:
        """Take an event of the `trace` extension."""
        step = event.partition(".")[2]
        if step in ("connect_tcp.started", "connect_unix_socket.started"):
            self._phase = Phase.CONNECTING
            self._reused = False
        elif step in ("connect_tcp.complete", "connect_unix_socket.complete"):
            self._connected = info["return_value"]
        elif step == "send_request_headers.started" and info["request"].method != b"CONNECT":
            self._phase = Phase.SENDING
            self._connected = None
        elif step == "send_request_body.complete" and self._phase is Phase.SENDING:
            self._phase = Phase.AWAITING_HEAD
            self.sent_at = monotonic()

    async def _note_and_limit(self, event: str, info: Mapping[str, Any]) -> None:
        self._note(event, info)
        # httpx limits each of its steps and reads; the limits here are for a whole phase.
        limits = {
            Phase.CONNECTING: self._limits.connect,
            Phase.AWAITING_HEAD: self._limits.reply(self.sent_at),
        }
        seconds = limits.get(self._phase)
        left = inf if seconds is None else self.sent_at + seconds - monotonic()
        self._scope.deadline = anyio.current_time() + left

    @contextmanager
    def _reporting(self) -> Generator[None, None, None]:
        """Report what the block raises, with the facts of the call."""
        try:
            yield
        except tuple(self._causes) as error:
            raise report(error, self._causes, self._phase, self._reused) from error
