"""The streaming peer: an HTTP server that paces replies by the clock and does as little as it can.

It runs in a process of its own, on uvloop, and keeps account of itself, so that a run in which it
and not the client was the bottleneck can be told. The first part of a request's path says what is
wanted:

    /live/{pieces a second}/...     a piece of text that often, until the client goes away
    /whole/{bytes}/...              a reply of that size as fast as it is taken
    /first/...                      one piece of text at once, and the end
    /idle/...                       one piece of text at once, and then nothing
    /limited/{requests a second}/...  the same as /first, and status 429 to what is beyond
    /account                        what the peer has done since it was last asked, as JSON
    /hold, /release                 from now on live streams stand still, or go on

A path that ends as openai's does is answered with the same text as server-sent events.
"""

import asyncio
import json
import re
import resource
import sys
import time
from collections import deque
from collections.abc import Iterable
from typing import Final, cast

import uvloop

PIECES: Final = (" слово", " книга")
"""Of 11 bytes and 6 characters each; two by turns, for some clients take repetition for a fault."""

SLOT: Final = 0.001
"""Seconds between two ticks of the clock; streams are spread over the slots of their period."""

BLOCK_PIECES: Final = 5957
"""As many pieces as fit in 64 KiB."""

CONTENT_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    completion = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "peer",
        "choices": [choice],
    }
    return b"data: %b\n\n" % json.dumps(completion, ensure_ascii=False).encode()


def head(content_type: str) -> bytes:
    return (
        "HTTP/1.1 200 OK\r\n"
        f"content-type: {content_type}\r\n"
        "cache-control: no-cache\r\n"
        "transfer-encoding: chunked\r\n\r\n"
    ).encode()


class Shape:
    """How replies look: as plain text, or as events."""

    def __init__(
        self, content_type: str, pieces: Iterable[bytes], block: bytes, end: bytes
    ) -> None:
        self.head = head(content_type)
        self.pieces = tuple(map(chunk, pieces))
        self.block = chunk(block)
        self.end = (chunk(end) if end else b"") + b"0\r\n\r\n"


BLOCK: Final = PIECES[0] * BLOCK_PIECES

TEXT: Final = Shape(
    "text/plain; charset=utf-8", [piece.encode() for piece in PIECES], BLOCK.encode(), b""
)
EVENTS: Final = Shape("text/event-stream", map(event, PIECES), event(BLOCK), b"data: [DONE]\n\n")


class Pace:
    """Writes a piece to each of its streams once a period, and knows when it was late."""

    def __init__(self, pieces_a_second: float) -> None:
        count = max(1, round(1 / pieces_a_second / SLOT))
        self._slots: list[dict[Conversation, None]] = [{} for _ in range(count)]
        self._next = 0
        self._begin = time.monotonic()
        self._done = 0
        self.latest = 0.0
        self.pieces = 0
        self.held = False
        asyncio.get_running_loop().call_later(SLOT, self._tick)

    def add(self, conversation: "Conversation") -> None:
        self._next = (self._next + 1) % len(self._slots)
        conversation.slot = self._slots[self._next]
        conversation.slot[conversation] = None

    def _tick(self) -> None:
        due = int((time.monotonic() - self._begin) / SLOT)
        self.latest = max(self.latest, (due - self._done - 1) * SLOT)
        # A peer that falls behind by a period skips it: that shows in the count of pieces.
        for number in () if self.held else range(max(self._done, due - len(self._slots)), due):
            period, place = divmod(number, len(self._slots))
            slot = self._slots[place]
            for conversation in slot:
                conversation.transport.write(conversation.shape.pieces[period % 2])
            self.pieces += len(slot)
        self._done = due
        asyncio.get_running_loop().call_later(SLOT, self._tick)


class Limit:
    """Takes no more than some requests in any second."""

    def __init__(self, requests_a_second: int) -> None:
        self._taken: deque[float] = deque(maxlen=requests_a_second)

    def take(self) -> bool:
        now = time.monotonic()
        if len(self._taken) == self._taken.maxlen and self._taken[0] > now - 1:
            return False
        self._taken.append(now)
        return True


REFUSAL: Final = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"


class Account:
    """What the peer has done since it was last asked."""

    def __init__(self) -> None:
        self.limits: dict[int, Limit] = {}
        self.taken = 0
        self.refused = 0
        self.paces: dict[float, Pace] = {}
        self.held = False
        self.body_bytes = 0
        self._cpu = time.process_time()
        self._wall = time.monotonic()

    def settle(self) -> dict[str, float]:
        cpu, wall = time.process_time(), time.monotonic()
        result = {
            "load": (cpu - self._cpu) / (wall - self._wall),
            "latest": max((pace.latest for pace in self.paces.values()), default=0.0),
            "pieces": sum(pace.pieces for pace in self.paces.values()),
            "body_bytes": self.body_bytes,
            "taken": self.taken,
            "refused": self.refused,
        }
        self.taken = self.refused = 0
        self._cpu, self._wall = cpu, wall
        for pace in self.paces.values():
            pace.latest, pace.pieces = 0.0, 0
        return result

    def pace(self, pieces_a_second: float) -> Pace:
        if pieces_a_second not in self.paces:
            self.paces[pieces_a_second] = Pace(pieces_a_second)
            self.paces[pieces_a_second].held = self.held
        return self.paces[pieces_a_second]

    def limit(self, requests_a_second: int) -> Limit:
        return self.limits.setdefault(requests_a_second, Limit(requests_a_second))

    def hold(self, held: bool) -> None:
        self.held = held
        for pace in self.paces.values():
            pace.held = held


class Conversation(asyncio.Protocol):
    """One connection: a request, its reply, and so on."""

    transport: asyncio.Transport

    def __init__(self, account: Account) -> None:
        self._account = account
        self._data = b""
        self._blocks = 0
        self._writable = True
        self.shape = TEXT
        self.slot: dict[Conversation, None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=512 * 1024)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.slot is not None:
            del self.slot[self]

    def data_received(self, data: bytes) -> None:
        self._data += data
        header, end, rest = self._data.partition(b"\r\n\r\n")
        if not end:
            return
        length = CONTENT_LENGTH.search(header)
        size = int(length[1]) if length else 0
        if len(rest) < size:
            return
        self._data = rest[size:]
        self._account.body_bytes = size or self._account.body_bytes
        self._answer(header.split(b" ", 2)[1].decode())

    def _answer(self, path: str) -> None:
        self.shape = EVENTS if path.endswith("/chat/completions") else TEXT
        _, wanted, argument, *_ = [*path.split("/"), ""]
        if wanted == "account":
            answer = json.dumps(self._account.settle()).encode()
            self.transport.write(head("application/json") + chunk(answer) + b"0\r\n\r\n")
        elif wanted in ("hold", "release"):
            self._account.hold(wanted == "hold")
            self.transport.write(head("text/plain") + self.shape.end)
        elif wanted == "live":
            self.transport.write(self.shape.head + self.shape.pieces[0])
            self._account.pace(float(argument)).add(self)
        elif wanted == "idle":
            self.transport.write(self.shape.head + self.shape.pieces[0])
        elif wanted == "first":
            self.transport.write(self.shape.head + self.shape.pieces[0] + self.shape.end)
        elif wanted == "limited":
            if self._account.limit(int(argument)).take():
                self._account.taken += 1
                self.transport.write(self.shape.head + self.shape.pieces[0] + self.shape.end)
            else:
                self._account.refused += 1
                self.transport.write(REFUSAL)
        elif wanted == "whole":
            self.transport.write(self.shape.head)
            self._blocks = max(1, round(int(argument) / len(TEXT.block)))
            self._write_blocks()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._write_blocks()

    def _write_blocks(self) -> None:
        while self._blocks and self._writable:
            self._blocks -= 1
            self.transport.write(self.shape.block)
            if not self._blocks:
                self.transport.write(self.shape.end)


async def main() -> None:
    account = Account()
    server = await asyncio.get_running_loop().create_server(
        lambda: Conversation(account), "127.0.0.1", 0, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    # The one who started it holds its standard input open for as long as it is wanted.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(main())
