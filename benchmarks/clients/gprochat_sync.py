"""This project's blocking client.

Its methods are coroutine functions that never suspend, as the worker's tasks want them.
"""

from collections.abc import Callable
from typing import Self

from gprochat_transports.httpx import SyncClient

from . import PROMPT
from ._gprochat import settings


class Client:
    def __init__(self, url: str, streams: int) -> None:
        service, limits = settings(url, streams)
        self._client = SyncClient(service, limits=limits, proxy=None)

    async def __aenter__(self) -> Self:
        self._client.__enter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._client.close()

    async def stream(self, arrived: Callable[[str], object]) -> None:
        with self._client.stream(PROMPT) as reply:
            for text in reply:
                arrived(text)

    async def whole(self) -> str:
        return self._client.complete(PROMPT)
