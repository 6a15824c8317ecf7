"""Connections without an event loop, for `SyncClient`: sockets whose coroutines never suspend.

A socket takes a time limit for each operation: here the seconds until the deadline of the calling
thread. So no watchdog runs; `Deadline` stands in its place.
"""

import socket
from collections.abc import Callable
from contextlib import nullcontext, suppress
from math import inf
from ssl import SSLContext
from threading import Event as ThreadingEvent
from threading import Lock, local
from time import monotonic, sleep
from typing import ParamSpec, TypeVar

from ..forks import forget_in_child
from ..http11.network import READ_SIZE, SOCKET_CAUSES
from ..pool import Pool
from ..watchdog import Wait, Watchdog
from .connection import is_readable

__all__ = ["BlockingNetwork"]

P = ParamSpec("P")
T = TypeVar("T")


class Deadline(Watchdog):
    """The deadline of each thread. It has the methods of a watchdog, and ends no wait itself."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = local()

    def limit(self, wait: Wait | None, seconds: float | None) -> None:
        # No thread waits for idle connections to expire: the next call closes them.
        if not isinstance(wait, Pool):
            self._thread.at = inf if seconds is None else monotonic() + seconds

    def left(self) -> float | None:
        """Return the seconds until the calling thread's deadline, never 0; None for no limit."""
        at: float = getattr(self._thread, "at", inf)
        if (left := at - monotonic()) <= 0:
            raise TimeoutError
        return None if at == inf else left

    def wake_at(self, time: float) -> None:
        """Do nothing: each operation ends by itself."""

    async def sleep_until(self, time: float) -> None:
        """Do nothing: there is no task."""


class BlockingNetwork:
    """The `Network` of threads."""

    causes = SOCKET_CAUSES

    def __init__(self) -> None:
        self.watchdog: Deadline = Deadline()

    async def connect(self, host: str, port: int, socks_proxy: str | None) -> "BlockingStream":
        if socks_proxy is None:
            connected = self._connect_to_any(host, port)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            from python_socks.sync import Proxy

            # python-socks would take 60 seconds for None; a million are eleven days.
            timeout = self.watchdog.left() or 1e6
            connected = Proxy.from_url(socks_proxy).connect(host, port, timeout=timeout)
        return BlockingStream(connected, self.watchdog)

    def time_limit(self, seconds: float | None) -> nullcontext[None]:
        self.watchdog.limit(None, seconds)
        return nullcontext()

    def make_event(self) -> "BlockingEvent":
        return BlockingEvent(self.watchdog)

    def current_loop(self) -> object:
        return self

    async def sleep(self, seconds: float) -> None:
        end = monotonic() + seconds
        # Not an event: in a child process, setting it might wait for a lock of the parent's.
        while not self.watchdog.closed and (left := end - monotonic()) > 0:
            sleep(min(left, 0.1))  # noqa: ASYNC251 - blocking is its purpose

    def _connect_to_any(self, host: str, port: int) -> socket.socket:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        while True:
            # A silent address uses up its share of the time, and leaves the rest to the next ones.
            left = self.watchdog.left()
            share = left and left / len(addresses)
            try:
                return socket.create_connection((str(addresses.pop(0)[4][0]), port), share)
            except OSError:
                if not addresses:
                    raise


class BlockingEvent:
    """An `Event` between threads."""

    def __init__(self, deadline: Deadline) -> None:
        self._event = ThreadingEvent()
        self._deadline = deadline
        self.set: Callable[[], None] = self._event.set

    async def wait(self) -> None:
        if not self._event.wait(self._deadline.left()):
            raise TimeoutError


class BlockingStream:
    """The `Stream` over a socket. Another thread may close it while one reads from it."""

    def __init__(self, connected: socket.socket, deadline: Deadline) -> None:
        self._socket = connected
        self._deadline = deadline
        self._in_use = Lock()
        self._closed = False
        forget_in_child(self)

    def forget(self) -> None:
        """Close this process's copy of the socket; the parent process still uses its own."""
        self._closed = True
        self._socket.close()

    async def receive(self) -> bytes:
        return self._do(self._socket.recv, READ_SIZE)

    async def send(self, data: bytes | memoryview, /) -> None:
        self._do(self._socket.sendall, data)

    async def start_tls(self, context: SSLContext, host: str) -> "BlockingStream":
        tls = self._do(context.wrap_socket, self._socket, server_hostname=host)
        return BlockingStream(tls, self._deadline)

    def is_readable(self) -> bool:
        return is_readable(self._socket)

    async def aclose(self) -> None:
        self._closed = True
        # Not SSLSocket's method, which would break a read in another thread.
        with suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        # A thread that uses the socket closes it itself: once the socket is closed, its file
        # descriptor may belong to another file.
        if self._in_use.acquire(blocking=False):
            self._socket.close()
            self._in_use.release()

    def _do(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._in_use:
            try:
                if not self._closed:
                    self._socket.settimeout(self._deadline.left())
                    result = operation(*args, **kwargs)
                    if not self._closed:
                        return result
            except OSError:
                if not self._closed:
                    raise
            finally:
                if self._closed:
                    self._socket.close()
        raise ConnectionError("the connection was closed here")
