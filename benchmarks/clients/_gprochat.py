"""This project's client, the same for each adapter."""

from collections.abc import Callable
from typing import Self

from gprochat_core import Limits, Service
from gprochat_transports import Client as AnyClient

from . import PROMPT
from .by_hand import SECRET_KEY

MOST_BYTES = 1 << 30


def settings(url: str, streams: int) -> tuple[Service, Limits]:
    limits = Limits(max_connections=streams, max_reply_bytes=MOST_BYTES)
    return Service(url, secret_key=SECRET_KEY), limits


class Adapter:
    def __init__(self, client: AnyClient) -> None:
        self._client = client

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.aclose()

    async def stream(self, arrived: Callable[[str], object]) -> None:
        async with self._client.stream(PROMPT) as reply:
            async for text in reply:
                arrived(text)

    async def stream_long(self, arrived: Callable[[str], object]) -> None:
        """As a program does that needs no more of a long reply than its pieces."""
        async with self._client.stream(PROMPT, keep_text=False) as reply:
            async for text in reply:
                arrived(text)

    async def whole(self) -> str:
        return await self._client.complete(PROMPT)

    async def say(self, conversation: list[dict[str, object]]) -> None:
        await self._client.complete(conversation)
