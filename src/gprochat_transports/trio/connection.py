"""Connections on trio, for text that arrives a little at a time.

trio's own `SocketStream` tries to read before it waits. For text that has not arrived yet, that
costs a system call and an exception. The stream here waits first, and then reads. After a send,
`SocketStream` lets all other tasks run; the stream here does not, because it waits for the answer
next anyway.
"""

import socket
from math import inf
from ssl import SSLContext
from typing import Final

import trio

from gprochat_core import Cause

from ..http11.network import READ_SIZE, SOCKET_CAUSES, Causes, TimeLimit, has_unread
from ..watchdog import TrioWatchdog

__all__ = ["TrioNetwork"]

CAUSES: Final[Causes] = {
    **SOCKET_CAUSES,
    trio.BrokenResourceError: Cause.LOST,
    trio.ClosedResourceError: Cause.LOST,
}


class TrioNetwork:
    """The `Network` on trio."""

    causes = CAUSES
    make_event: "staticmethod[[], trio.Event]" = staticmethod(trio.Event)
    current_loop: "staticmethod[[], object]" = staticmethod(trio.lowlevel.current_trio_token)

    def __init__(self) -> None:
        self.watchdog: TrioWatchdog = TrioWatchdog()

    async def connect(self, host: str, port: int, socks_proxy: str | None) -> "TrioStream":
        if socks_proxy is None:
            connected = (await trio.open_tcp_stream(host, port)).socket
        else:
            from python_socks.async_.trio import Proxy

            # `time_limit` limits the time; python-socks would take 60 seconds for None.
            connected = await Proxy.from_url(socks_proxy).connect(host, port, timeout=inf)
        return TrioStream(connected)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    def time_limit(self, seconds: float | None) -> TimeLimit:
        return TimeLimit(trio.move_on_after(inf if seconds is None else seconds))


class TrioStream(trio.abc.Stream):
    """The `Stream` on trio: TCP, or TLS over it.

    It is also a stream of trio's, which carries bytes over the socket as they are: `SSLStream` runs
    over it.
    """

    __slots__ = ("_socket", "_tls", "_trio")

    def __init__(self, connected: trio.socket.SocketType) -> None:
        self._socket = socket.socket(fileno=connected.detach())
        self._trio = trio.SocketStream(trio.socket.from_stdlib_socket(self._socket))
        self._tls: trio.SSLStream[TrioStream] | None = None

    async def receive(self) -> bytes:
        if self._tls is None:
            return await self.receive_some(READ_SIZE)
        return bytes(await self._tls.receive_some(READ_SIZE))

    async def send(self, data: bytes | memoryview, /) -> None:
        await (self._tls or self).send_all(data)

    async def start_tls(self, context: SSLContext, host: str) -> "TrioStream":
        self._tls = trio.SSLStream(self, context, server_hostname=host, https_compatible=True)
        await self._tls.do_handshake()
        return self

    def is_readable(self) -> bool:
        if self._trio.socket.is_readable():
            return True
        # trio has no public name for its SSLObject, but passes on its methods, such as `pending`.
        return self._tls is not None and has_unread(self._tls.pending.__self__)

    async def aclose(self) -> None:
        """Close the connection; a task that waits for it gets a ClosedResourceError."""
        self._trio.socket.close()
        self._tls = None  # Its reference to this stream would keep both until a garbage collection.

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while True:
            if self._socket.fileno() < 0:
                raise trio.ClosedResourceError("this connection was closed here")
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(max_bytes or READ_SIZE)
            except BlockingIOError:
                continue

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            await self._trio.send_all(memoryview(data)[sent:])

    async def wait_send_all_might_not_block(self) -> None:
        await self._trio.wait_send_all_might_not_block()
