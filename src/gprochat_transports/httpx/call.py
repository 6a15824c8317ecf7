"""One call over httpx, as its trace events tell of it: how far it is, and what it left behind."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from gprochat_core import Request, SendLimits

if TYPE_CHECKING:
    import httpcore
    import httpx

__all__ = [
    "Progress",
    "Trace",
    "build_request",
    "is_new_stream",
    "note_reads",
    "take_lost_connections",
]

Trace: TypeAlias = Callable[[str, Mapping[str, object]], object]


class Progress:
    """How far one request has come, told by the library's trace events.

    Args:
        limits: how long it may take.
        limit: sets in how many seconds to give up, None for never; called at each new stage.

    Attributes:
        timeouts: the time limits, as the library takes them.
        connecting: whether a connection is being made, with all that a proxy and TLS ask for.
        stream: what is connected as long as that lasts; the library does not always close it.
        sending: whether the request itself is under way, or has been.
        reused: whether the request goes over a connection that has served before.
        asked_at: when its first byte was about to be sent, by `time.monotonic`.
        sent_at: when its last byte was sent, by `time.monotonic`.
    """

    def __init__(self, limits: SendLimits, limit: Callable[[float | None], None]) -> None:
        connect = limits.connect
        reply = limits.reply(monotonic())
        self.timeouts = {"connect": connect, "pool": connect, "write": reply, "read": reply}
        self.connecting = False
        self.stream: object = None
        self.sending = False
        self.reused = False
        self.asked_at = self.sent_at = monotonic()
        self._limit = limit
        self._limits = limits
        self._connect_by = None if connect is None else self.sent_at + connect

    def note(self, event: str, info: Mapping[str, object]) -> None:
        """Take a trace event."""
        _, _, step = event.partition(".")
        if step == "connect_tcp.started":
            self.connecting = True
            if self._connect_by is not None:
                self._limit(self._connect_by - monotonic())
        elif step == "connect_tcp.complete":
            self.stream = info["return_value"]
        elif step == "send_request_headers.started" and not is_for_a_proxy(info["request"]):
            self.reused = not self.connecting
            self.connecting = False
            self.stream = None
            self.sending = True
            self.asked_at = monotonic()
            self._limit(None)
        elif step == "send_request_body.complete" and not self.connecting:
            self.sent_at = monotonic()
            self._limit(self._limits.reply(self.sent_at))

    def is_in_step(self, response: "httpx.Response") -> bool:
        """Whether a response has come since its request.

        If not, it came behind an earlier one: the library keeps it in its parser, where it cannot
        be seen, and takes it for the answer to the next request.
        """
        read_at: float = getattr(response.extensions.get("network_stream"), "read_at", inf)
        return not self.reused or read_at >= self.asked_at


def note_reads(stream: Any) -> None:
    """Have a stream of the library's know when it was last read from, as `read_at`."""
    read = stream.read

    # Not a coroutine itself, which would be one more to go through for each piece of text.
    def note_and_read(max_bytes: int, timeout: float | None = None) -> Awaitable[bytes]:
        stream.read_at = monotonic()
        reading: Awaitable[bytes] = read(max_bytes, timeout)
        return reading

    stream.read = note_and_read


def is_new_stream(event: str) -> bool:
    """Whether an event gives a stream that HTTP will be spoken over, or TLS first."""
    return event.endswith(("connect_tcp.complete", "start_tls.complete"))


def is_for_a_proxy(request: object) -> bool:
    return cast("httpcore.Request", request).method == b"CONNECT"


def build_request(
    client: "httpx.Client | httpx.AsyncClient",
    request: Request,
    progress: Progress,
    trace: Trace,
) -> "httpx.Request":
    """A request as the library has it, with the client's own headers where ours say nothing."""
    return client.build_request(
        request.method,
        request.url,
        headers=request.headers,
        content=request.body,
        extensions={"timeout": progress.timeouts, "trace": trace},
    )


def take_lost_connections(
    client: "httpx.Client | httpx.AsyncClient", request: "httpx.Request"
) -> list[Any]:
    """Take out of a request's pool what no request will ever get; what is returned is to be closed.

    httpcore keeps a place for a connection whose request ended before it was sent, and for a
    tunnel through a proxy in which TLS failed. It has no public way to give such a place back;
    should what is used here change, the places stay lost.
    """
    with suppress(AttributeError):
        pool = cast("Any", client)._transport_for_url(request.url)._pool
        with pool._optional_thread_lock:
            used = {one.connection for one in pool._requests}
            lost = {one for one in pool._connections if one not in used and not one.is_idle()}
            pool._connections = [one for one in pool._connections if one not in lost]
            return [*lost, *pool._assign_requests_to_connections()]
    return []
