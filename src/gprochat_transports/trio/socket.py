"""A TCP connection on trio for text that arrives a little at a time: first it waits, then it reads.

trio's own stream tries to read first, which for text that has yet to come is a system call and an
exception for nothing; and after sending it lets all other tasks run, although to wait for the
answer is next here.
"""

import socket

import trio

from .._sizes import READ_SIZE

__all__ = ["TcpStream"]


class TcpStream(trio.abc.Stream):
    """A stream over a connected socket.

    Args:
        connected: the socket, which is taken over from there.
    """

    def __init__(self, connected: trio.socket.SocketType) -> None:
        self._socket = socket.socket(fileno=connected.detach())
        self._slow = trio.SocketStream(trio.socket.from_stdlib_socket(self._socket))

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes and return them, b"" where the other end has closed."""
        while True:
            if self._socket.fileno() < 0:
                raise trio.ClosedResourceError("this connection was closed here")
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(max_bytes or READ_SIZE)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError(f"the connection broke: {error}") from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send the bytes, waiting where the system takes no more of them."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise trio.BrokenResourceError(f"the connection broke: {error}") from error
        if sent < len(data):
            await self._slow.send_all(memoryview(data)[sent:])

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the system takes bytes."""
        await self._slow.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the connection."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close the connection now; whoever waits for it gets a ClosedResourceError."""
        self._slow.socket.close()

    def is_readable(self) -> bool:
        """Whether there is something to read, its end included."""
        return self._slow.socket.is_readable()
