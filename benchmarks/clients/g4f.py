"""g4f's provider class for the same service, pointed at the peer."""

from collections.abc import Callable
from typing import Self

from g4f.Provider import GPROChat

from . import PROMPT


class Client:
    def __init__(self, url: str, streams: int) -> None:
        GPROChat.url = url
        GPROChat.api_endpoint = f"{url}/api/generate"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        pass

    async def stream(self, arrived: Callable[[str], object]) -> None:
        messages = [{"role": "user", "content": PROMPT}]
        async for text in GPROChat.create_async_generator("", messages):
            arrived(text)

    async def say(self, conversation: list[dict[str, str]]) -> None:
        async for _ in GPROChat.create_async_generator("", conversation):
            pass

    async def whole(self) -> str:
        texts: list[str] = []
        await self.stream(texts.append)
        return "".join(texts)
