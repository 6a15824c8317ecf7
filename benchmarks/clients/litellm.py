"""litellm, asked for the same text through its openai provider."""

import os
from collections.abc import Callable
from typing import Self

# Its price list comes with it; without this it would be fetched from the network.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

from . import PROMPT


class Client:
    def __init__(self, url: str, streams: int) -> None:
        litellm.telemetry = False
        self._url = f"{url}/v1"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        pass

    async def stream(self, arrived: Callable[[str], object]) -> None:
        events = await litellm.acompletion(
            model="openai/peer",
            messages=[{"role": "user", "content": PROMPT}],
            api_base=self._url,
            api_key="none",
            stream=True,
        )
        async for event in events:
            if event.choices and (text := event.choices[0].delta.content):
                arrived(text)

    async def whole(self) -> str:
        texts: list[str] = []
        await self.stream(texts.append)
        return "".join(texts)
