"""Two protocols between HTTP and an event loop: `Network` connects, `Stream` carries bytes."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from ssl import SSLContext, SSLError, SSLObject, SSLWantReadError
from types import TracebackType
from typing import Final, Protocol, TypeAlias

from gprochat_core import Cause

from ..pool import Event
from ..watchdog import Watchdog

__all__ = [
    "READ_SIZE",
    "SOCKET_CAUSES",
    "WRITE_SIZE",
    "Causes",
    "Network",
    "Stream",
    "TimeLimit",
    "has_unread",
]

READ_SIZE: Final = 120 * 1024
"""Bytes to read at once: the most for which the allocator does not call mmap (glibc's threshold is
128 KiB), which would cost more than the read."""

WRITE_SIZE: Final = 64 * 1024
"""The size in bytes of one part of a request. The time limit for sending applies to each part."""

Causes: TypeAlias = Mapping[type[Exception], Cause]
"""Classes of exceptions, and what each reports of a connection."""

SOCKET_CAUSES: Final[Causes] = {
    TimeoutError: Cause.TIMED_OUT,
    OSError: Cause.LOST,
    # A host name that IDNA cannot express.
    UnicodeError: Cause.LOST,
}
"""What the exceptions of Python's own sockets and TLS report."""


class Stream(Protocol):
    """A connected stream of bytes.

    Its methods raise the exceptions that `Network.causes` lists. They set no time limit: the
    watchdog closes a stream that takes too long.
    """

    async def receive(self) -> bytes:
        """Return the next bytes as soon as there are any, `READ_SIZE` at most; b"" when the peer
        has closed."""
        ...

    async def send(self, data: bytes | memoryview, /) -> None:
        """Send all the bytes, waiting for a peer that reads slowly."""
        ...

    async def start_tls(self, context: SSLContext, host: str) -> "Stream":
        """Do the TLS handshake and return the encrypted stream, which closes this one too.

        Args:
            context: verifies the certificate as it is set up to.
            host: the server's name or address.
        """
        ...

    def is_readable(self) -> bool:
        """Tell whether bytes have arrived that were not received, or the peer has closed."""
        ...

    async def aclose(self) -> None:
        """Close the connection, even if this is cancelled, without waiting for the peer.

        A `receive` under way raises an exception, and so does a later one.
        """
        ...


class Network(Protocol):
    """What a transport needs of an event loop, or of threads if there is none.

    Attributes:
        causes: what each exception of its methods and its streams reports.
    """

    @property
    def causes(self) -> Causes: ...

    @property
    def watchdog(self) -> Watchdog:
        """Ends waits for its streams that take too long; the same object each time."""
        ...

    async def connect(self, host: str, port: int, socks_proxy: str | None) -> Stream:
        """Connect over TCP, within the time limit that the caller sets around this call.

        When this raises any exception, also because of a cancellation, it has closed the socket.

        Args:
            host, port: the service or its HTTP proxy.
            socks_proxy: the URL of a SOCKS5 proxy to connect through, which resolves the host's
                name: `socks5://user:password@host:port`; None for no proxy.
        """
        ...

    def time_limit(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Return a context whose block may take so many seconds; None for no limit.

        A block that takes longer is cancelled, and leaving it raises an exception of `causes`.
        """
        ...

    def make_event(self) -> Event:
        """Return a new event for tasks of this loop, or for threads."""
        ...

    def current_loop(self) -> object:
        """Return a token of the running event loop: two tokens of one loop are equal."""
        ...

    async def sleep(self, seconds: float, /) -> None:
        """Pause for so many seconds."""
        ...


class TimeLimit:
    """A context of `Network.time_limit`, over a cancel scope that has a deadline.

    It takes a sixth of the memory of `asynccontextmanager` over trio's or anyio's `fail_after`.
    """

    __slots__ = ("_scope",)

    def __init__(self, scope: AbstractContextManager[object]) -> None:
        self._scope = scope

    async def __aenter__(self) -> None:
        self._scope.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A scope catches the cancellation that its own deadline caused, and no other exception.
        caught = self._scope.__exit__(exc_type, exc, traceback)
        if caught and exc is not None:
            raise TimeoutError from None


def has_unread(tls: SSLObject) -> bool:
    """Tell whether TLS records that left the socket hold something unread: bytes, or the end.

    `SSLObject.pending` does not count a record that has not been decrypted.
    """
    try:
        tls.read(1)
    except SSLWantReadError:
        return False
    except SSLError:
        pass
    return True
