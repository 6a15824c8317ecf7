"""Wrong passwords slow down the address that they come from.

Each wrong password costs its address a second, and a few seconds may be owed. An address that owes
more waits before its next password is checked, so the wait does not show whether it is right.
"""

import asyncio
from ipaddress import ip_address
from typing import Final

from aiohttp import web

from gprochat_core import Refusal

__all__ = ["Guesses"]

COST: Final = 1.0
"""Seconds that a wrong password costs."""

CREDIT: Final = 5.0
"""Seconds that an address may owe without having to wait."""

PATIENCE: Final = 5.0
"""Seconds that a request waits at most; then it is refused."""

TOO_MANY: Final = "Too many wrong passwords."

MAX_ADDRESSES: Final = 10_000
"""How many addresses are remembered; beyond it, the one that was wrong first is forgotten."""


class Guesses:
    """Remembers which addresses have sent wrong passwords."""

    def __init__(self) -> None:
        self._paid_at: dict[bytes, float] = {}

    async def wait(self, request: web.Request) -> None:
        """Wait until the next password from a request's address may be looked at.

        Raises:
            Refusal: the address owes too much.
        """
        now = asyncio.get_running_loop().time
        address = address_of(request)
        deadline = now() + PATIENCE
        # Of several requests that wait, the first may be wrong again.
        while (pause := self._pause(address)) > 0:
            if now() + pause > deadline:
                raise Refusal(429, TOO_MANY)
            await asyncio.sleep(pause)

    def check(self, request: web.Request) -> None:
        """Refuse a request if its address has to wait.

        Raises:
            Refusal: the address owes too much.
        """
        if self._pause(address_of(request)) > 0:
            raise Refusal(429, TOO_MANY)

    def wrong(self, request: web.Request) -> None:
        """Take note of a wrong password."""
        now = asyncio.get_running_loop().time()
        address = address_of(request)
        self._paid_at[address] = max(now, self._paid_at.pop(address, 0.0)) + COST
        if len(self._paid_at) > MAX_ADDRESSES:
            self._paid_at = {each: at for each, at in self._paid_at.items() if at > now}
        if len(self._paid_at) > MAX_ADDRESSES:
            del self._paid_at[next(iter(self._paid_at))]

    def _pause(self, address: bytes) -> float:
        return self._paid_at.get(address, 0.0) - CREDIT - asyncio.get_running_loop().time()


def address_of(request: web.Request) -> bytes:
    packed = ip_address(request.remote or "0.0.0.0").packed
    # Somebody with one IPv6 address usually has 2**64 of them.
    return packed[:8] if len(packed) == 16 else packed
