"""openai's SDK, asked for the same text from an endpoint of its own shape."""

from collections.abc import Callable
from typing import Self

from openai import AsyncOpenAI

from . import PROMPT


class Client:
    def __init__(self, url: str, streams: int) -> None:
        self._client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.close()

    async def stream(self, arrived: Callable[[str], object]) -> None:
        events = await self._client.chat.completions.create(
            model="peer", messages=[{"role": "user", "content": PROMPT}], stream=True
        )
        async for event in events:
            if event.choices and (text := event.choices[0].delta.content):
                arrived(text)

    async def whole(self) -> str:
        texts: list[str] = []
        await self.stream(texts.append)
        return "".join(texts)
