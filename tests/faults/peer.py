"""The peer of a row: it plays the row's fault until the test tells it to work again."""

import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import Enum
from typing import Any, Final, Self, cast
from unittest import mock

from tests.faults.certificates import CERTIFICATES
from tests.faults.fault import Case, Door, Fault
from tests.peers.scripted import (
    Connection,
    Script,
    ScriptedPeer,
    close_write,
    send,
    set_event,
    until_client_closes,
)
from tests.peers.wire import chunked

__all__ = ["SERVICE_NAME", "WELL", "FaultyPeer", "hang_up", "until_the_call_is_over"]

SERVICE_NAME: Final = "service.invalid"
"""The host name of a service that only a proxy, or a resolver that works, can find."""

WELL: Final = "fine"
"""The reply of a peer that works."""

# It ends the connection, so that each case begins with a new one.
WELL_ANSWER: Final = chunked(WELL, fields=("connection: close",))

CONNECTED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"

SOCKS5_NO_PASSWORD: Final = b"\x05\x00"
SOCKS5_CONNECTED: Final = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"


class Mood(Enum):
    """What a peer plays."""

    WARM_UP = "a case's warm-up"
    FAULT = "a case's scripts"
    WELL = "a reply as it should be"


class FaultyPeer(ScriptedPeer):
    """A peer for a row of the table.

    Attributes:
        service_url: the service's URL.
        proxy_url: the URL of the proxy that this peer is; None where it is none.
        warm: set when the last step of a warm-up begins.
        over: set as soon as the call that met the fault is over.
    """

    def __init__(self, fault: Fault) -> None:
        super().__init__([self._serve])
        self._fault = fault
        self._mood = Mood.WELL
        self._case: Case
        self._met = 0
        self._waiting: list[socket.socket] = []
        self.warm = threading.Event()
        self.over = threading.Event()

    def __enter__(self) -> Self:
        fault = self._fault
        if fault.door in (Door.OPEN, Door.UNKNOWN):
            super().__enter__()
        else:
            self._listener = socket.socket()
            self._listener.bind(("127.0.0.1", 0))
            self.port = self._listener.getsockname()[1]
        host = SERVICE_NAME if fault.proxy or fault.door is Door.UNKNOWN else "127.0.0.1"
        self.service_url = f"{fault.scheme}://{host}:{self.port}"
        self.proxy_url = f"{fault.proxy}://127.0.0.1:{self.port}" if fault.proxy else None
        if fault.door is Door.FULL:
            self._fill_backlog()
        return self

    def warm_up(self, case: Case) -> None:
        """Play the case's warm-up from now on."""
        self._case = case
        self.warm.clear()
        self._mood = Mood.WARM_UP

    def fall_ill(self, case: Case) -> None:
        """Play the case's scripts from now on."""
        self._case = case
        self._met = 0
        self.over.clear()
        certificate = self._fault.certificate
        self._ssl_context = None if certificate is None else CERTIFICATES[certificate]()
        self._mood = Mood.FAULT

    def recover(self) -> None:
        """Work as a service should, from now on."""
        fault = self._fault
        self._mood = Mood.WELL
        if fault.scheme == "https" and fault.proxy is None:
            self._ssl_context = CERTIFICATES["good"]()
        if fault.door in (Door.CLOSED, Door.FULL):
            for sock in self._waiting:
                sock.close()
            self._listener.listen()
            self._start(self._accept)

    @contextmanager
    def resolver(self) -> Generator[None, None, None]:
        """Replace the resolver of this process by the one that the row needs."""
        if self._fault.door is not Door.UNKNOWN:
            yield
            return
        resolve: Callable[..., Any] = socket.getaddrinfo

        def getaddrinfo(host: Any, port: Any, *hints: Any, **more_hints: Any) -> Any:
            if host in (SERVICE_NAME, SERVICE_NAME.encode()):
                if self._mood is not Mood.WELL:
                    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
                host = "127.0.0.1"
            return resolve(host, port, *hints, **more_hints)

        with mock.patch("socket.getaddrinfo", getaddrinfo):
            yield

    def _fill_backlog(self) -> None:
        self._listener.listen(0)
        # Systems let in one or two more than the backlog asked for.
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", self.port))
            self._waiting.append(sock)

    def _serve(self, connection: Connection) -> None:
        """The script of every connection."""
        if self._mood is Mood.FAULT:
            for step in self._fault.first:
                step(connection)
        elif self._fault.proxy is not None:
            self._let_through(connection)
        while connection._socket.fileno() >= 0:
            connection.receive()
            for step in self._next_script():
                step(connection)

    def _next_script(self) -> Script:
        if self._mood is Mood.WELL:
            return [send(WELL_ANSWER), hang_up]
        if self._mood is Mood.WARM_UP:
            *steps, last = self._case.warm_up or []
            return [*steps, set_event(self.warm), last]
        script = self._case.scripts[min(self._met, len(self._case.scripts) - 1)]
        self._met += 1
        return script

    def _let_through(self, connection: Connection) -> None:
        """Be a proxy that works, and the service behind it."""
        if self._fault.proxy == "socks5":
            connection._socket.recv(100)
            connection.send(SOCKS5_NO_PASSWORD)
            connection._socket.recv(300)
            connection.send(SOCKS5_CONNECTED)
        elif connection._socket.recv(7, socket.MSG_PEEK) == b"CONNECT":
            connection.receive()
            connection.send(CONNECTED)
        if self._fault.scheme == "https":
            context = CERTIFICATES["good"]()
            connection._socket = context.wrap_socket(connection._socket, server_side=True)


def hang_up(connection: Connection) -> None:
    """End the connection as a service does, and stay to see the client do the same."""
    close_write(connection)
    until_client_closes(connection)


def until_the_call_is_over(connection: Connection) -> None:
    """Neither read nor write until the call that met the fault is over."""
    connection.wait_for(cast("FaultyPeer", connection._peer).over)
