"""Signatures that have been seen: a request that is recorded and sent again is refused.

Memory is bounded without letting a replay through: when it is full, the oldest signature is
forgotten, and from then on every request as old as that one is refused.
"""

from heapq import heappop, heappush
from typing import Final

__all__ = ["Replays"]

MAX_SIGNATURES: Final = 100_000
"""How many signatures are remembered, of some 200 bytes each."""


class Replays:
    """Remembers the signatures of accepted requests."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._by_time: list[tuple[int, str]] = []
        self._forgotten_ms: int | None = None

    def is_new(self, signature: str, time_ms: int) -> bool:
        """Tell whether a signature is surely seen for the first time, and remember it.

        Args:
            signature: of a request that is accepted otherwise.
            time_ms: when it was signed, Unix time in milliseconds.
        """
        if signature in self._seen:
            return False
        if self._forgotten_ms is not None and time_ms <= self._forgotten_ms:
            return False
        self._seen.add(signature)
        heappush(self._by_time, (time_ms, signature))
        if len(self._by_time) > MAX_SIGNATURES:
            self._forgotten_ms, oldest = heappop(self._by_time)
            self._seen.remove(oldest)
        return True
