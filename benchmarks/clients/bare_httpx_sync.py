"""httpx used bare in synchronous code: `client.stream` and `iter_text`, which decodes.

Its methods are coroutine functions that never suspend, as the worker's tasks want them.
"""

from collections.abc import Callable
from typing import Self

import httpx

from .by_hand import body, endpoint, headers


class Client:
    def __init__(self, url: str, streams: int) -> None:
        self._endpoint = endpoint(url)
        self._headers = headers(url)
        self._client = httpx.Client(
            timeout=60, limits=httpx.Limits(max_connections=streams), trust_env=False
        )

    async def __aenter__(self) -> Self:
        self._client.__enter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._client.close()

    async def stream(self, arrived: Callable[[str], object]) -> None:
        with self._client.stream(
            "POST", self._endpoint, content=body(), headers=self._headers
        ) as response:
            response.raise_for_status()
            for text in response.iter_text():
                if text:
                    arrived(text)

    async def whole(self) -> str:
        response = self._client.post(self._endpoint, content=body(), headers=self._headers)
        response.raise_for_status()
        return response.text
