"""httpx used bare, on asyncio or trio: `client.stream` and `aiter_text`, which decodes."""

from collections.abc import Callable
from typing import Self

import httpx

from .by_hand import body, endpoint, headers


class Client:
    def __init__(self, url: str, streams: int) -> None:
        self._endpoint = endpoint(url)
        self._headers = headers(url)
        # As many seconds as the adapter is given, for the idle replies are idle for some.
        self._client = httpx.AsyncClient(
            timeout=60, limits=httpx.Limits(max_connections=streams), trust_env=False
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.aclose()

    async def stream(self, arrived: Callable[[str], object]) -> None:
        async with self._client.stream(
            "POST", self._endpoint, content=body(), headers=self._headers
        ) as response:
            response.raise_for_status()
            async for text in response.aiter_text():
                if text:
                    arrived(text)

    async def whole(self) -> str:
        response = await self._client.post(self._endpoint, content=body(), headers=self._headers)
        response.raise_for_status()
        return response.text
