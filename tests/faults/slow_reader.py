"""A reader that stops, and how many bytes its client holds then.

The buffers of the kernel are no part of a client's memory. Linux tells how full they are, so the
bytes that a client has read but not passed on can be told from those that wait in the kernel.
"""

import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

from gprochat_core import Service
from tests.contract.adapters import Adapter
from tests.faults.certificates import CERTIFICATES, client_context
from tests.faults.fault import PATIENT
from tests.faults.play import pause
from tests.peers.scripted import Connection, ScriptedPeer, receive, send
from tests.peers.wire import LAST_CHUNK, chunk, head

__all__ = ["REPLY_SIZE", "Standstill", "stand_still"]

REPLY_SIZE: Final = 12 * 1024 * 1024
PIECE: Final = 16 * 1024

READ_BEFORE: Final = 1024 * 1024
"""Bytes read before the reader stops: enough for the kernel to make its buffers large."""

STANDSTILL: Final = 0.2
"""Seconds without a byte sent that show that the sender stands still."""

WIRE_PER_PIECE: Final = len(chunk(b"a" * PIECE))

TCP_TABLE: Final = Path("/proc/net/tcp")


@dataclass(frozen=True)
class Standstill:
    """What a client did when its reader stopped, in bytes.

    Attributes:
        sent: what the sender's kernel had taken by then.
        kernel: what both kernels' buffers held of it; None where the system does not tell.
        client: what the client had taken and not given to its reader; None likewise.
        read: the whole reply's length, once the reader has gone on.
    """

    sent: int
    kernel: int | None
    client: int | None
    read: int


def stand_still(adapter: Adapter, *, tls: bool = False) -> Standstill:
    """Let a reader stop in the middle of a long reply and go on once the sender stands still."""
    measured: list[Standstill] = []
    context = CERTIFICATES["good"]() if tls else None
    begin = head(200, "content-type: text/plain", "transfer-encoding: chunked")
    script = [
        receive,
        small_send_buffer,
        send(begin, *[chunk(b"a" * PIECE)] * (REPLY_SIZE // PIECE), LAST_CHUNK),
    ]
    with ScriptedPeer(script, ssl_context=context) as peer:

        async def main() -> None:
            service = Service(peer.url, secret_key=secrets.token_hex())
            async with (
                adapter.make(service, timeouts=PATIENT, ssl_context=client_context()) as client,
                client.stream("Hello") as reply,
            ):
                read = 0
                async for text in reply:
                    read += len(text)
                    if read >= READ_BEFORE:
                        break
                connection = peer.connections[0]
                await until_it_stands_still(adapter, connection)
                sent, kernel = connection.sent, in_kernel(connection)
                # The head counts too, and the framing of each piece.
                taken = len(begin) + read + read // PIECE * (WIRE_PER_PIECE - PIECE)
                in_hands = None if kernel is None else sent - kernel - taken
                async for text in reply:
                    read += len(text)
                measured.append(Standstill(sent, kernel, in_hands, read))

        adapter.loop.run(main)
    return measured[0]


def small_send_buffer(connection: Connection) -> None:
    """Make the send buffer of the peer small, so that little waits in it."""
    connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)


async def until_it_stands_still(adapter: Adapter, connection: Connection) -> None:
    """Wait until nothing has been sent for a while."""
    sent, since = connection.sent, monotonic()
    while monotonic() - since < STANDSTILL:
        await pause(adapter, 0.01)
        if connection.sent != sent:
            sent, since = connection.sent, monotonic()


def in_kernel(connection: Connection) -> int | None:
    """How many bytes wait in the kernel between a peer and its client."""
    if not TCP_TABLE.exists():
        return None
    here, there = connection._socket.getsockname()[1], connection._socket.getpeername()[1]
    waiting = 0
    for row in TCP_TABLE.read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = row.split()
        ports = int(local.partition(":")[2], 16), int(remote.partition(":")[2], 16)
        not_sent, not_read = (int(queue, 16) for queue in queues.split(":"))
        if ports == (here, there):
            waiting += not_sent
        elif ports == (there, here):
            waiting += not_read
    return waiting
