"""The floor: an asyncio protocol that cuts the chunks by hand and checks nothing.

Nobody should write this; it shows what is left when the HTTP library is gone.
"""

import asyncio
import codecs
from collections.abc import Callable
from typing import Self
from urllib.parse import urlsplit

from .by_hand import body, endpoint, headers


class Chunks(asyncio.Protocol):
    def __init__(self, arrived: Callable[[str], object]) -> None:
        self._arrived = arrived
        self._data = b""
        self._in_body = False
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self.over = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        data = self._data + data
        if not self._in_body:
            _, blank_line, rest = data.partition(b"\r\n\r\n")
            if not blank_line:
                self._data = data
                return
            self._in_body, data = True, rest
        at = 0
        while (line := data.find(b"\r\n", at)) >= 0:
            end = line + 2 + int(data[at:line], 16)
            if end + 2 > len(data):
                break
            if end == line + 2:
                self.over.set_result(None)
            elif text := self._decode(data[line + 2 : end]):
                self._arrived(text)
            at = end + 2
        self._data = data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(exc or ConnectionError("closed"))


class Client:
    def __init__(self, url: str, streams: int) -> None:
        self._url = url
        self._endpoint = urlsplit(endpoint(url))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        pass

    async def stream(self, arrived: Callable[[str], object]) -> None:
        assert self._endpoint.hostname
        assert self._endpoint.port
        data = body()
        lines = [
            f"POST {self._endpoint.path} HTTP/1.1",
            f"host: {self._endpoint.netloc}",
            f"content-length: {len(data)}",
            *(f"{name}: {value}" for name, value in headers(self._url).items()),
        ]
        transport, protocol = await asyncio.get_running_loop().create_connection(
            lambda: Chunks(arrived), self._endpoint.hostname, self._endpoint.port
        )
        try:
            transport.write("".join(f"{line}\r\n" for line in [*lines, ""]).encode() + data)
            await protocol.over
        finally:
            transport.close()

    async def whole(self) -> str:
        texts: list[str] = []
        await self.stream(texts.append)
        return "".join(texts)
