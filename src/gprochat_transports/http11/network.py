"""The seam between HTTP and a network: connect, receive, send, wait."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from ssl import SSLContext
from typing import Final, Protocol, TypeAlias

from gprochat_core import Cause

from ..pool import Event
from ..watchdog import Watchdog

__all__ = ["READ_SIZE", "WRITE_SIZE", "Causes", "Network", "Stream"]

READ_SIZE: Final = 120 * 1024
"""Bytes to read at once: the most for which the allocator does not call mmap (glibc's threshold is
128 KiB), which would cost more than the read."""

WRITE_SIZE: Final = 64 * 1024
"""Bytes that are sent within one time limit; a long request may take longer, part by part."""

Causes: TypeAlias = Mapping[type[Exception], Cause]
"""Exceptions, and what each of them says of a connection."""


class Stream(Protocol):
    """A connected stream of bytes."""

    async def receive(self) -> bytes:
        """Wait for bytes, `READ_SIZE` at most; b"" when the peer has closed."""
        ...

    async def send(self, data: bytes | memoryview, /) -> None:
        """Send all the bytes."""
        ...

    async def start_tls(self, context: SSLContext, host: str) -> "Stream":
        """Do the TLS handshake and return the encrypted stream."""
        ...

    def is_readable(self) -> bool:
        """Tell whether bytes, or the end, have arrived and not been received."""
        ...

    async def aclose(self) -> None:
        """Close the connection without waiting for the peer; a `receive` under way ends."""
        ...


class Network(Protocol):
    """What a transport needs of an event loop, or of threads where there is none.

    Attributes:
        causes: the exceptions that its methods and its streams raise.
    """

    @property
    def causes(self) -> Causes: ...

    @property
    def watchdog(self) -> Watchdog:
        """What limits the waits of its streams."""
        ...

    async def connect(self, host: str, port: int, socks_proxy: str | None) -> Stream:
        """Connect over TCP, through a SOCKS5 proxy if there is one."""
        ...

    def time_limit(self, seconds: float | None) -> AbstractContextManager[object]:
        """Return a context whose block may take so many seconds; None for no limit."""
        ...

    def make_event(self) -> Event:
        """Make an event of this loop."""
        ...

    def current_loop(self) -> object:
        """Return what stands for the running event loop."""
        ...

    async def sleep(self, seconds: float, /) -> None:
        """Pause."""
        ...
