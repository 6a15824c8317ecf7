"""The phase of a call over a caller's client, and what httpx's exceptions mean.

httpx's `trace` extension tells the phase (see "Request extensions" in its documentation). httpx2 is
httpx under another name.
"""

import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import h11

from gprochat_core import Cause, ConfigurationError, Phase, Request, SendLimits, TransportError

from ..http11.network import Causes
from . import connection

if TYPE_CHECKING:
    import httpx

__all__ = ["Call", "read_causes"]

BY_NAME: Final = {
    "TimeoutException": Cause.TIMED_OUT,
    "NetworkError": Cause.LOST,
    "ProxyError": Cause.LOST,
    # httpx calls it a protocol error when a server closes without an answer; h11 does not.
    "RemoteProtocolError": Cause.LOST,
    "TransportError": Cause.LOST,
    "StreamError": Cause.LOST,
    # httpx parses a Location even if it is not to follow it; httpx2 may raise a ValueError then.
    "InvalidURL": Cause.MALFORMED,
}
"""Exceptions by the name that they have in httpx and httpx2."""


def read_causes(client: object, kind: str) -> Causes:
    """Return the exceptions of the library whose class `kind` a client is an instance of."""
    for name in ("httpx", "httpx2"):
        library = sys.modules.get(name)
        if library is not None and isinstance(client, getattr(library, kind)):
            causes = {getattr(library, each): cause for each, cause in BY_NAME.items()}
            with suppress(ImportError):
                from socksio import SOCKSError

                causes[SOCKSError] = Cause.LOST
            # A client that was closed raises a RuntimeError.
            causes[RuntimeError] = Cause.LOST
            causes[ValueError] = causes[UnicodeError] = Cause.MALFORMED
            return {**connection.CAUSES, h11.RemoteProtocolError: Cause.MALFORMED, **causes}
    raise ConfigurationError(f"client= takes an httpx.{kind}, not a {type(client).__qualname__}")


class Call:
    """One call.

    Attributes:
        timeouts: the time limits in httpx's form, in seconds.
        sent_at: when the last byte of the request was sent, by `time.monotonic`.
        connected: the stream of a connection that is not ready for the request yet. The transport
            closes it, because httpx leaves it open if a SOCKS proxy does not answer in time.
    """

    def __init__(self, causes: Causes, limits: SendLimits) -> None:
        reply = limits.reply(monotonic())
        connect = limits.connect
        self.timeouts: dict[str, float | None] = {
            "pool": connect,
            "connect": connect,
            "write": reply,
            "read": reply,
        }
        self.sent_at: float = monotonic()
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

    def build(self, client: Any, request: Request, trace: object) -> "httpx.Request":
        """Return a request in httpx's form; the client adds headers of its own."""
        built: httpx.Request = client.build_request(
            request.method,
            request.url,
            headers=request.headers,
            content=request.body,
            extensions={"timeout": self.timeouts, "trace": trace},
        )
        return built

    @contextmanager
    def reporting(self) -> Generator[None, None, None]:
        """Report what the block raises, with the facts of the call."""
        try:
            yield
        except tuple(self._causes) as error:
            chain: list[Exception] = [error]
            while isinstance(cause := chain[-1].__cause__ or chain[-1].__context__, Exception):
                chain.append(cause)
            # httpx raises the same exception for an answer that cannot be read and for a server
            # that closes without an answer; only the former is raised from another exception.
            found = next(
                (each for each in chain if self._causes.get(type(each)) is Cause.MALFORMED), error
            )
            raise TransportError.wrap(
                found, self._causes, self._phase, reused=self._reused
            ) from error
