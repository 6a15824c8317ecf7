"""The peer of the soak: a raw server on loopback that plays the fault that a prompt names.

The server's process prints its port on standard output, and ends when its standard input does.
"""

import asyncio
import json
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.peers.wire import LAST_CHUNK, answer, chunk, head
from tests.soak.faults import reply_to

__all__ = ["in_a_process", "serve"]

CHUNKED = head(200, "content-type: text/plain; charset=utf-8", "transfer-encoding: chunked")

PROJECT = Path(__file__).parents[2]

SILENCE = 60.0
"""Seconds; far longer than any caller waits."""


class Closed(Exception):
    """The connection is to be closed now."""


class Connection:
    """One connection: requests one after the other, until a fault ends it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def serve(self, failed: "Counter[str]") -> None:
        with suppress(Closed, ConnectionError, asyncio.IncompleteReadError):
            while True:
                await self._answer(await self._receive(), failed)
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()

    async def _receive(self) -> str:
        request = await self._reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2])
            for line in request.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        body = json.loads(await self._reader.readexactly(length))
        prompt: str = body["messages"][-1]["parts"][0]["text"]
        return prompt

    async def _answer(self, prompt: str, failed: "Counter[str]") -> None:
        _, _, fault = prompt.partition(" ")
        reply = reply_to(prompt)
        begin = CHUNKED + chunk(reply[:5])
        match fault:
            case "closed without an answer":
                raise Closed
            case "reset without an answer":
                self._reset()
            case "cut in the head":
                self._writer.write(CHUNKED[:30])
                raise Closed
            case "not HTTP":
                self._writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
                raise Closed
            case "redirect":
                self._writer.write(answer(302, "", "location: https://other.example/"))
            case "web page":
                self._writer.write(answer(200, "<html>", "content-type: text/html"))
            case "bad request":
                self._writer.write(answer(400, error("Invalid message history")))
            case "wrong signature":
                self._writer.write(answer(401, error("Invalid signature.")))
            case "too many requests":
                self._writer.write(answer(429, error("slow down"), "retry-after: 60"))
            case "service failed":
                self._writer.write(answer(500, error("boom")))
            case "error cut short":
                self._writer.write(answer(503, error("boom"))[:-5])
                raise Closed
            case "reply cut short":
                self._writer.write(begin)
                raise Closed
            case "reply reset":
                self._writer.write(begin)
                await self._writer.drain()
                self._reset()
            case "chunk without a size":
                self._writer.write(begin + b"what?\r\n")
                raise Closed
            case "reply interrupted":
                self._writer.write(begin + chunk("Internal server error") + LAST_CHUNK)
            case "silence in the reply" | "left early" | "cancelled":
                self._writer.write(begin)
                await self._until_closed()
            case "one failure, then a reply" if not failed[prompt]:
                failed[prompt] += 1
                self._writer.write(answer(503, ""))
            case _:
                await self._reply(reply)

    async def _reply(self, text: str) -> None:
        body = text.encode()
        self._writer.write(CHUNKED)
        # Cut inside characters.
        for start in range(0, len(body), 37):
            self._writer.write(chunk(body[start : start + 37]))
            if start % 5 == 0:
                await asyncio.sleep(0)
        self._writer.write(LAST_CHUNK)
        await self._writer.drain()

    async def _until_closed(self) -> None:
        async with asyncio.timeout(SILENCE):
            await self._reader.read()
        raise Closed

    def _reset(self) -> None:
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        raise Closed


def error(message: str) -> str:
    return json.dumps({"error": {"message": message}})


@contextmanager
def in_a_process() -> Generator[str, None, None]:
    """Run the server in a process of its own, and give its URL."""
    command = [sys.executable, "-m", "tests.soak.peer"]
    pipe = subprocess.PIPE
    # Leaving the block closes the process's standard input.
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=PROJECT) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"


async def serve() -> None:
    """Print the port, and serve until standard input ends."""
    failed: Counter[str] = Counter()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Connection(reader, writer).serve(failed)

    server = await asyncio.start_server(play, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())
