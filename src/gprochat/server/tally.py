"""One line a minute in the log, however many strangers the service turns away."""

import logging
from collections import Counter
from time import monotonic
from typing import Final

__all__ = ["Tally"]

INTERVAL: Final = 60.0
"""Seconds between two lines at least."""

logger: logging.Logger = logging.getLogger("gprochat.server")


class Tally:
    """Counts what was turned away, and why, and logs the counts from time to time."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._next_line: float | None = None

    def count(self, what: str) -> None:
        """Count one more of these, such as "connections beyond the limit"."""
        self._counts[what] += 1
        now = monotonic()
        if self._next_line is None or now >= self._next_line:
            self._next_line = now + INTERVAL
            self.flush()

    def flush(self) -> None:
        """Log what has been counted since the last line, if anything."""
        if self._counts:
            counts = ", ".join(f"{count} {what}" for what, count in self._counts.items())
            logger.warning("turned away: %s", counts)
            self._counts.clear()
