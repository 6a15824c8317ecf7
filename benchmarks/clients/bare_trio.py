"""trio's sockets with h11, used bare: the loop of h11's documentation and a decoder."""

import codecs
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self
from urllib.parse import urlsplit

import h11
import trio

from .by_hand import body, endpoint, headers


class Connection:
    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.http = h11.Connection(h11.CLIENT)

    async def send(self, *events: h11.Event) -> None:
        for event in events:
            if data := self.http.send(event):
                await self.stream.send_all(data)

    async def next_event(self) -> h11.Event:
        while True:
            event = self.http.next_event()
            if isinstance(event, h11.Event):
                return event
            self.http.receive_data(await self.stream.receive_some(64 * 1024))


class Client:
    def __init__(self, url: str, streams: int) -> None:
        self._endpoint = urlsplit(endpoint(url))
        self._headers = headers(url)
        self._idle: list[Connection] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for connection in self._idle:
            await connection.stream.aclose()

    async def stream(self, arrived: Callable[[str], object]) -> None:
        async with self._connection() as connection:
            data = body()
            await connection.send(
                h11.Request(
                    method="POST",
                    target=self._endpoint.path,
                    headers=[
                        ("host", self._endpoint.netloc),
                        ("content-length", str(len(data))),
                        *self._headers.items(),
                    ],
                ),
                h11.Data(data=data),
                h11.EndOfMessage(),
            )
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            while True:
                event = await connection.next_event()
                if isinstance(event, h11.Response):
                    if event.status_code != 200:
                        raise RuntimeError(f"status {event.status_code}")
                elif isinstance(event, h11.Data):
                    if text := decoder.decode(event.data):
                        arrived(text)
                elif isinstance(event, h11.EndOfMessage):
                    break
            if text := decoder.decode(b"", True):
                arrived(text)

    async def whole(self) -> str:
        texts: list[str] = []
        await self.stream(texts.append)
        return "".join(texts)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        if self._idle:
            connection = self._idle.pop()
        else:
            assert self._endpoint.hostname
            assert self._endpoint.port
            connection = Connection(
                await trio.open_tcp_stream(self._endpoint.hostname, self._endpoint.port)
            )
        try:
            yield connection
            connection.http.start_next_cycle()
        except BaseException:
            await trio.aclose_forcefully(connection.stream)
            raise
        self._idle.append(connection)
