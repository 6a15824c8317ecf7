"""aiohttp used bare: a session, `iter_any` and an incremental decoder."""

import codecs
from collections.abc import Callable
from typing import Self

import aiohttp

from .by_hand import body, endpoint, headers


class Client:
    def __init__(self, url: str, streams: int) -> None:
        self._endpoint = endpoint(url)
        self._headers = headers(url)
        self._streams = streams

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=self._streams)
        self._session = aiohttp.ClientSession(connector=connector)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._session.close()

    async def stream(self, arrived: Callable[[str], object]) -> None:
        async with self._session.post(
            self._endpoint, data=body(), headers=self._headers
        ) as response:
            response.raise_for_status()
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            async for chunk in response.content.iter_any():
                if text := decoder.decode(chunk):
                    arrived(text)
            if text := decoder.decode(b"", True):
                arrived(text)

    async def whole(self) -> str:
        async with self._session.post(
            self._endpoint, data=body(), headers=self._headers
        ) as response:
            response.raise_for_status()
            return await response.text()
