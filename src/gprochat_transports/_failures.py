"""A library's exceptions as the few failures that the core knows: one table a library."""

from collections.abc import Iterable
from typing import Final

from gprochat_core import Failure, TransportError

__all__ = ["OUT_OF_STEP", "FailureTable"]

OUT_OF_STEP: Final = "an answer has come that nobody asked for"
"""What a transport says of a kept connection on which something had come before the request."""


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

    def translate(self, error: Exception, *, reused: bool = False) -> TransportError:
        """Return one of the exceptions as a TransportError, to be raised from it.

        Args:
            error: an exception of the table.
            reused: whether it came instead of a response's head, on a connection that has served
                before: what makes no sense there may be left over from then.
        """
        failure = next(failure for kind, failure in self._rows if isinstance(error, kind))
        if reused and failure in (Failure.LOST, Failure.MALFORMED):
            failure = Failure.STALE
        return TransportError(failure, words(error))


def words(error: BaseException) -> str:
    """What an exception says, or what caused it where it says nothing itself."""
    cause: BaseException | None = error
    while cause is not None:
        if str(cause):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
