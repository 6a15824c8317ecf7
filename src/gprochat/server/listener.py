"""Connections are accepted up to a limit; at the limit, a stranger makes room.

A stranger is a connection without an accepted request: it is idle, sends its head slowly, or has
a body under way. The stranger that has been silent for the longest is closed in favour of a new
connection. So thousands of slow connections do not keep out a caller who sends a request at once.

aiohttp has no limit on connections, and asyncio's servers log a traceback for each connection
that finds no free descriptor. So this file accepts the connections itself, and hands each one to
aiohttp's `web.Server`, which is a protocol factory.
"""

import asyncio
import errno
import socket
from collections.abc import Sequence
from ssl import SSLContext
from typing import Final

from aiohttp import web

from .tally import Tally

__all__ = ["Listener", "Strangers", "bind", "default_max_connections"]

BACKLOG: Final = 1024
"""Connections that the kernel holds until they are accepted."""

ACCEPT_PAUSE: Final = 0.1
"""Seconds until the next attempt when a connection cannot be accepted."""

MAX_CONNECTIONS: Final = 1000


def default_max_connections() -> int:
    """Return how many connections a service accepts by default.

    At most a third of the descriptors that the process may open: replies may need one each, too,
    and the process needs some for itself.
    """
    try:
        import resource
    except ImportError:  # pragma: no cover (Windows has no such limit)
        return MAX_CONNECTIONS
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, descriptors // 3))


async def bind(host: str, port: int) -> list[socket.socket]:
    """Listen on each address of a host, on the same port.

    Raises:
        OSError: the host has no address, or one of its addresses and ports is taken.
    """
    loop = asyncio.get_running_loop()
    try:
        infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError:
        # Python encodes a host name (RFC 3490) before it asks for the addresses.
        raise socket.gaierror(socket.EAI_NONAME, "this is not a host name") from None
    sockets: list[socket.socket] = []
    unusable: OSError | None = None
    try:
        for family, _, _, _, address in dict.fromkeys(infos):
            if sockets:
                port = sockets[0].getsockname()[1]
            try:
                listening = socket.create_server(
                    (address[0], port, *address[2:]), family=family, backlog=BACKLOG
                )
            except OSError as error:
                # "localhost" has an IPv6 address on machines without IPv6, too.
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
                unusable = error
                continue
            sockets.append(listening)
            listening.setblocking(False)
        if unusable is not None and not sockets:
            raise unusable
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return sockets


class Strangers:
    """The connections without an accepted request, the one silent for the longest first.

    Args:
        limit: the most connections that are open at a time.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._connections: dict[web.RequestHandler, None] = {}

    def heard(self, connection: web.RequestHandler) -> None:
        """Take note that a connection has been opened, has sent a head, or is idle again."""
        self._connections.pop(connection, None)
        if len(self._connections) >= 2 * self._limit:
            self._connections = {each: None for each in self._connections if each.transport}
        self._connections[connection] = None

    def accepted(self, connection: web.RequestHandler) -> None:
        """Take note that a connection has sent a request that is accepted."""
        self._connections.pop(connection, None)

    def close_one(self) -> bool:
        """Close the connection that has been silent for the longest, if there is any."""
        while self._connections:
            connection = next(iter(self._connections))
            del self._connections[connection]
            if connection.transport is not None:
                connection.transport.abort()
                return True
        return False


class Listener:
    """Accepts connections; at the limit, it closes a stranger for each new one.

    Args:
        server: aiohttp's server, which makes a protocol for each connection.
        sockets: what `bind` returned; the listener closes them.
        strangers: the connections that may be closed.
        tally: counts the connections that are closed.
        limit: the most connections that are open at a time.
        ssl_context: the TLS settings; None for plain HTTP.
        handshake_timeout: seconds that a TLS handshake may take.
    """

    def __init__(
        self,
        server: web.Server,
        sockets: Sequence[socket.socket],
        strangers: Strangers,
        tally: Tally,
        *,
        limit: int,
        ssl_context: SSLContext | None,
        handshake_timeout: float,
    ) -> None:
        self._server = server
        self._strangers = strangers
        self._tally = tally
        self._limit = limit
        self._ssl_context = ssl_context
        self._handshake_timeout = None if ssl_context is None else handshake_timeout
        self._opening: dict[asyncio.Task[None], None] = {}
        self._sockets = sockets
        self._accepting = [asyncio.create_task(self._accept(each)) for each in sockets]

    async def close(self) -> None:
        """Accept no more connections; those that are open stay open."""
        # A connection that has just been accepted is opened first: a task that is cancelled before
        # it has begun would not close it.
        for tasks in (self._accepting, self._opening):
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for each in self._sockets:
            each.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError:
                # No descriptor or no memory is left, or the caller has gone already.
                self._tally.count("connections that could not be accepted")
                self._make_room()
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            if len(self._server.connections) + len(self._opening) >= self._limit:
                self._tally.count("connections beyond the limit")
                if not self._make_room():
                    connection.close()
                    continue
            task = asyncio.create_task(self._open(connection))
            self._opening[task] = None
            task.add_done_callback(self._opening.pop)
            # Accepting must not keep other tasks waiting.
            await asyncio.sleep(0)

    def _make_room(self) -> bool:
        if self._ssl_context is not None and self._opening:
            oldest = next(iter(self._opening))
            return oldest.cancel()
        return self._strangers.close_one()

    async def _open(self, connection: socket.socket) -> None:
        try:
            _, protocol = await asyncio.get_running_loop().connect_accepted_socket(
                self._server,
                connection,
                ssl=self._ssl_context,
                ssl_handshake_timeout=self._handshake_timeout,
            )
        except OSError:
            # No TLS handshake, or the caller has gone meanwhile.
            connection.close()
        else:
            self._strangers.heard(protocol)
