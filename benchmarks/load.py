"""The callers of a gateway: a process that holds streams of OpenAI's API, and does little else.

It reads tasks as lines of JSON and prints results. It parses nothing: pieces are counted as events
in the bytes. While it counts, it reads from the system what the gateway's process has used.
"""

import asyncio
import json
import os
import re
import resource
import statistics
import sys
import time
from typing import cast
from urllib.parse import urlsplit

import uvloop

from .clients import PROMPT
from .worker import PAGE

EVENT = b"data: "

FIRST = re.compile(" слово".encode() + rb"|\\u0441\\u043b")
"""The first piece of the peer, in either of JSON's spellings."""

END = b"\r\n0\r\n\r\n"
TICKS = os.sysconf("SC_CLK_TCK")


class Stream(asyncio.Protocol):
    """One connection, on which one request is answered at a time."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.events = 0
        self.first = 0.0
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def ask(self, request: bytes) -> None:
        self.begun.clear()
        self.ended.clear()
        self._tail = b""
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        seen = self._tail + data
        self.events += seen.count(EVENT) - self._tail.count(EVENT)
        if not self.begun.is_set() and FIRST.search(seen):
            self.first = time.perf_counter()
            self.begun.set()
        if seen.endswith(END):
            self.ended.set()
        # As long as what may be divided between two reads.
        self._tail = seen[-16:]


def request(url: str, path: str, key: str, model: str) -> bytes:
    asked = {"model": model, "messages": [{"role": "user", "content": PROMPT}], "stream": True}
    body = json.dumps(asked).encode()
    head = (
        f"POST {path} HTTP/1.1\r\n"
        f"host: {urlsplit(url).netloc}\r\n"
        f"authorization: Bearer {key}\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def connect(url: str) -> Stream:
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_connection(Stream, parts.hostname, parts.port)
    return stream


def used(pid: int) -> float:
    """Return the seconds of processor time that a process has used, user and system."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident(pid: int) -> float:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * PAGE


async def tell(peer: str, what: str) -> None:
    """Have the peer hold all live streams, or release them."""
    stream = await connect(peer)
    stream.ask(f"GET /{what} HTTP/1.1\r\n\r\n".encode())
    await stream.ended.wait()
    stream.transport.close()


async def begin(url: str, key: str, streams: int) -> list[Stream]:
    """Begin that many streams, and wait until all have their first piece."""
    asked = request(url, "/v1/chat/completions", key, "live")
    begun = [await connect(url) for _ in range(streams)]
    for stream in begun:
        stream.ask(asked)
    for stream in begun:
        await stream.begun.wait()
    return begun


async def live(
    url: str, key: str, peer: str, pid: int, streams: int, seconds: float, idle: int
) -> dict[str, float]:
    """Hold that many live streams; over some seconds of them, what a piece costs the gateway.

    Then all stand still, and as many others are begun as there are to be `idle` ones.
    """
    async with asyncio.timeout(120):
        # A gateway that cannot keep up with those that have begun would begin no others.
        await tell(peer, "hold")
        held = await begin(url, key, streams)
        await asyncio.sleep(0.5)
        await tell(peer, "release")
        await asyncio.sleep(0.5)
        cpu, wall, before = used(pid), time.monotonic(), sum(stream.events for stream in held)
        await asyncio.sleep(seconds)
        cpu, wall = used(pid) - cpu, time.monotonic() - wall
        arrived = sum(stream.events for stream in held) - before
        await tell(peer, "hold")
        held += await begin(url, key, idle - streams)
        memory = resident(pid)
    for stream in held:
        stream.transport.abort()
    return {
        "us": cpu / arrived * 1e6,
        "load": cpu / wall,
        "rate": arrived / wall,
        "resident": memory,
    }


async def first(url: str, path: str, key: str, count: int) -> dict[str, float]:
    """Ask that often, one after the other; the median of the seconds to the first piece."""
    asked = request(url, path, key, "first")
    stream = await connect(url)
    waits: list[float] = []
    async with asyncio.timeout(60):
        for number in range(count + 5):
            begin = time.perf_counter()
            stream.ask(asked)
            await stream.ended.wait()
            if number >= 5:
                waits.append(stream.first - begin)
    stream.transport.close()
    return {"seconds": statistics.median(waits)}


TASKS = {task.__name__: task for task in (live, first)}


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for line in sys.stdin:
        arguments = json.loads(line)
        print(json.dumps(uvloop.run(TASKS[arguments.pop("task")](**arguments))), flush=True)


if __name__ == "__main__":
    main()
