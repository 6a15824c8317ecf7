"""The clients that are measured: each file is one, and is what its library's documentation says.

Each has a class `Client`, made with the peer's URL and the number of streams it is to hold, which
is an asynchronous context manager with two methods: `stream(arrived)` asks and hands each piece of
text over as it comes; `whole()` asks and returns the whole reply.
"""

from collections.abc import Callable
from typing import Protocol, Self

PROMPT = "Расскажи, пожалуйста, что-нибудь хорошее."


class Client(Protocol):
    def __init__(self, url: str, streams: int) -> None: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    async def stream(self, arrived: Callable[[str], object]) -> None: ...

    async def whole(self) -> str: ...
