"""A server that does exactly what its script says, byte by byte, and writes down what it met.

A script is a list of steps, and a step is a function of the connection. The first connection
plays the first script, the second the second, and the last script plays for all that follow:

    with ScriptedPeer(
        [receive, send(chunked("Hel", "lo")[:-5]), reset],
        [receive, send(chunked("Hello"))],
    ) as peer:
        ...  # a client talks to peer.url
    assert len(peer.connections) == 2

After its last step a connection is closed. A client that closes ends the script early, and that
is no failure: it is recorded. Everything else that keeps a script from being played to its end,
such as a client that says nothing for `limit` seconds, raises when the peer's block is left.
"""

import socket
import struct
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from ssl import SSLContext, SSLError, SSLSocket
from time import monotonic, sleep
from types import TracebackType
from typing import Final, Self, TypeAlias

__all__ = [
    "Connection",
    "ReceivedRequest",
    "Script",
    "ScriptedPeer",
    "Step",
    "close",
    "close_write",
    "closed_port",
    "deaf_port",
    "pause",
    "receive",
    "receive_some",
    "repeat",
    "reset",
    "send",
    "set_event",
    "until_client_closes",
    "wait_for",
]

LIMIT: Final = 10.0
"""Seconds that a step may take unless a peer is told otherwise."""


@dataclass(frozen=True)
class ReceivedRequest:
    """One request as it arrived.

    Attributes:
        head: everything before the body, the empty line included.
        body: as many bytes as its content-length announced.
    """

    head: bytes
    body: bytes

    @property
    def line(self) -> str:
        """The request line."""
        return self.head.decode("latin-1").partition("\r\n")[0]

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Header names and values in the order and the letters of the wire."""
        lines = self.head.decode("latin-1").split("\r\n")[1:-2]
        return [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]

    def field(self, name: str) -> str | None:
        """The value of the first header of this name, in any case; None where there is none."""
        return next((value for key, value in self.fields if key.lower() == name), None)


class ClientClosed(Exception):
    """The client closed its end, which ends the script."""


class Stopped(Exception):
    """The peer's block has been left, which ends the script."""


class Connection:
    """One connection, as its script sees it while it plays, and a test afterwards.

    Attributes:
        requests: what the client sent, in order.
        sent: how many bytes the kernel took from this side.
        client_closed: set when the client has been seen to close, or reset, the connection.
        client_closed_at: when that was, on the monotonic clock.
        ended: set when the script has ended.
        tls_failure: why the TLS handshake failed, None where it did not.
    """

    def __init__(self, peer: "ScriptedPeer", sock: socket.socket) -> None:
        self._peer = peer
        self._socket = sock
        self._buffer = b""
        self.requests: list[ReceivedRequest] = []
        self.sent = 0
        self.client_closed = threading.Event()
        self.client_closed_at: float | None = None
        self.ended = threading.Event()
        self.tls_failure: Exception | None = None

    def receive(self) -> None:
        """Read one request, which has a content-length."""
        while b"\r\n\r\n" not in self._buffer:
            self._read()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        head += b"\r\n\r\n"
        length = int(ReceivedRequest(head, b"").field("content-length") or 0)
        while len(self._buffer) < length:
            self._read()
        request = ReceivedRequest(head, self._buffer[:length])
        self._buffer = self._buffer[length:]
        self.requests.append(request)
        self._peer.requests.append(request)

    def receive_some(self) -> None:
        """Read something, whatever it is."""
        self._read()

    def send(self, data: bytes) -> None:
        """Send these bytes, at once: they are in no later packet than what follows."""
        view = memoryview(data)
        while view:
            try:
                count = self._socket.send(view)
            except TimeoutError:
                raise
            except OSError as error:
                raise ClientClosed from error
            self.sent += count
            view = view[count:]

    def pause(self, seconds: float) -> None:
        """Do nothing for a while."""
        if self._peer.stopping.wait(seconds):
            raise Stopped

    def wait_for(self, event: threading.Event) -> None:
        """Do nothing until the event is set."""
        deadline = monotonic() + self._peer.limit
        while not event.wait(0.002):
            if self._peer.stopping.is_set():
                raise Stopped
            if monotonic() > deadline:
                raise TimeoutError("nobody set the event that the script waits for")

    def until_client_closes(self) -> None:
        """Read, whatever it is, until the client closes."""
        while True:
            self._read()

    def close_write(self) -> None:
        """End this side's bytes; the client's may still come."""
        shut_down(self._socket, socket.SHUT_WR)

    def close(self) -> None:
        """Close, over TLS with its closing alert first."""
        if isinstance(self._socket, SSLSocket):
            with suppress(OSError, ValueError):
                self._socket.unwrap()
        self._socket.close()

    def reset(self) -> None:
        """Close so that the client sees a reset, and may lose what it has not read yet."""
        no_linger = struct.pack("ii", 1, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
        self._socket.close()

    def play(self, script: "Script", ssl_context: SSLContext | None) -> None:
        """Play the script to its end, or to the client's."""
        try:
            self._socket.settimeout(self._peer.limit)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if ssl_context is not None:
                try:
                    self._socket = ssl_context.wrap_socket(self._socket, server_side=True)
                except (SSLError, ConnectionError) as error:
                    self.tls_failure = error
                    raise ClientClosed from error
            for step in script:
                step(self)
        except ClientClosed:
            self.client_closed_at = monotonic()
            self.client_closed.set()
        except Stopped:
            pass
        except Exception as error:
            # Before the client learns of it, whose test may then be over.
            self._peer.fail(error)
        finally:
            # Set only now, for who waits for it to find the connection closed.
            self.close()
            self.ended.set()

    def stop(self) -> None:
        """Wake the script from whatever it waits for."""
        shut_down(self._socket, socket.SHUT_RDWR)

    def _read(self) -> None:
        try:
            data = self._socket.recv(1 << 20)
        except TimeoutError:
            raise
        except OSError as error:
            data = b""
            cause: OSError | None = error
        else:
            cause = None
        if data:
            self._buffer += data
        elif self._peer.stopping.is_set():
            raise Stopped
        else:
            raise ClientClosed from cause


Step: TypeAlias = Callable[[Connection], object]
Script: TypeAlias = Sequence[Step]

receive: Final = Connection.receive
receive_some: Final = Connection.receive_some
until_client_closes: Final = Connection.until_client_closes
close_write: Final = Connection.close_write
close: Final = Connection.close
reset: Final = Connection.reset


def send(*pieces: bytes, every: float = 0.0) -> Step:
    """Send the pieces, each in a packet of its own, with so many seconds between them."""

    def step(connection: Connection) -> None:
        for index, piece in enumerate(pieces):
            if index and every:
                connection.pause(every)
            connection.send(piece)

    return step


def pause(seconds: float) -> Step:
    """Do nothing for a while."""
    return lambda connection: connection.pause(seconds)


def wait_for(event: threading.Event) -> Step:
    """Do nothing until the test sets the event."""
    return lambda connection: connection.wait_for(event)


def set_event(event: threading.Event) -> Step:
    """Tell the test that the script has come this far."""
    return lambda _: event.set()


def repeat(*steps: Step) -> Step:
    """Play these steps again and again, until the client closes."""

    def step(connection: Connection) -> None:
        while True:
            for each in steps:
                each(connection)

    return step


class ScriptedPeer:
    """A server on loopback that plays scripts, each connection in a thread of its own.

    Args:
        scripts: one for each connection, in the order in which they are accepted; the last also
            for all further ones. Without any, connections are closed as they come.
        ssl_context: a server's, to speak TLS.
        limit: seconds that any step may wait.

    Attributes:
        url: where it is, without a trailing slash.
        port: its port on 127.0.0.1.
        connections: all of them, in the order in which they were accepted.
        requests: those of all connections, in the order in which they arrived.
    """

    def __init__(
        self, *scripts: Script, ssl_context: SSLContext | None = None, limit: float = LIMIT
    ) -> None:
        self._scripts: Sequence[Script] = scripts or [[]]
        self._ssl_context = ssl_context
        self._failures: list[Exception] = []
        self._threads: list[threading.Thread] = []
        self.limit = limit
        self.stopping = threading.Event()
        self.connections: list[Connection] = []
        self.requests: list[ReceivedRequest] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        scheme = "http" if self._ssl_context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._start(self._accept)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stopping.set()
        with suppress(OSError):
            # A connection is the one portable way to wake who accepts.
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        for connection in self.connections:
            connection.stop()
        deadline = monotonic() + self.limit
        for thread in self._threads:
            thread.join(max(0.0, deadline - monotonic()))
            if thread.is_alive():
                self._failures.append(RuntimeError(f"{thread.name} does not end"))
        self._listener.close()
        if not self._failures:
            return
        failure = ExceptionGroup("the peer's script could not be played", self._failures)
        if exc is None:
            raise failure
        exc.add_note(f"{failure}: {self._failures}")

    def connection(self, index: int) -> Connection:
        """One of the connections, waiting until it has been accepted."""
        deadline = monotonic() + self.limit
        while len(self.connections) <= index:
            if monotonic() > deadline:
                raise TimeoutError(f"there is no connection {index}")
            sleep(0.002)
        return self.connections[index]

    def fail(self, error: Exception) -> None:
        """Keep an error to be raised when the block is left."""
        if not self.stopping.is_set():
            self._failures.append(error)

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=f"peer {self.port}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            if self.stopping.is_set():
                sock.close()
                return
            connection = Connection(self, sock)
            script = self._scripts[min(len(self.connections), len(self._scripts) - 1)]
            self.connections.append(connection)
            self._start(partial(connection.play, script, self._ssl_context))


@contextmanager
def closed_port() -> Generator[int, None, None]:
    """A port of 127.0.0.1 that refuses connections, and that nobody else gets meanwhile."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@contextmanager
def deaf_port(host: str = "127.0.0.1", port: int = 0) -> Generator[int, None, None]:
    """A port of an address that lets nobody in and refuses nobody: its backlog is full."""
    with socket.socket() as listener:
        listener.bind((host, port))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting: list[socket.socket] = []
        try:
            # Systems let in one or two more than the backlog asked for.
            for _ in range(4):
                sock = socket.socket()
                sock.setblocking(False)
                sock.connect_ex((host, port))
                waiting.append(sock)
            yield port
        finally:
            for sock in waiting:
                sock.close()


def shut_down(sock: socket.socket, how: int) -> None:
    """Shut a connection down, from any thread, and past TLS: a truncation if it was TLS."""
    with suppress(OSError):
        socket.socket.shutdown(sock, how)
