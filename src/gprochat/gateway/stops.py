"""Stop sequences: a reply is cut before the first one, however it is split over pieces.

The first stop sequence is the one that is complete first, as for a model that stops writing at
once. Of two that end at the same character, the longer one counts. Only text that may be the
beginning of a stop sequence is held back.
"""

from collections.abc import Sequence

__all__ = ["StopCutter"]


class StopCutter:
    """Cuts the pieces of one reply.

    Args:
        stops: the stop sequences, none of them empty.

    Attributes:
        stopped: whether a stop sequence has been found; the text after it is of no interest.
    """

    __slots__ = ("_held", "_stops", "stopped")

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.stopped: bool = False

    def feed(self, piece: str) -> str:
        """Take the next piece; return the text that certainly comes before a stop sequence."""
        text = self._held + piece
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)[1]]
        held = max(possible_prefix(text, stop) for stop in self._stops)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """Take the end of the reply; return the text that was held back."""
        held, self._held = self._held, ""
        return held


def possible_prefix(text: str, stop: str) -> int:
    """Return how many characters at the end of a text may be the beginning of a stop sequence."""
    start = max(0, len(text) - len(stop) + 1)
    while (start := text.find(stop[0], start)) >= 0:
        if stop.startswith(text[start:]):
            return len(text) - start
        start += 1
    return 0
