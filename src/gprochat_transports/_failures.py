"""A library's exceptions as the few failures that the core knows: one table a library."""

from collections.abc import Iterable

from gprochat_core import Failure, TransportError

__all__ = ["FailureTable"]


class FailureTable:
    """Which exception is which failure.

    Args:
        rows: exceptions, each before its bases, and what they mean.

    Attributes:
        kinds: the exceptions, for an `except` clause.
    """

    def __init__(self, rows: Iterable[tuple[type[Exception], Failure]]) -> None:
        self._rows = tuple(rows)
        self.kinds = tuple(kind for kind, _ in self._rows)

    def translate(self, error: Exception) -> TransportError:
        """Return one of the exceptions as a TransportError, to be raised from it."""
        failure = next(failure for kind, failure in self._rows if isinstance(error, kind))
        detail = str(error) or str(error.__cause__ or "") or type(error).__name__
        return TransportError(failure, detail)
