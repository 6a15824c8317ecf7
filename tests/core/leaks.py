"""Everything that an error shows, so that a test can look for a secret in it."""

from collections.abc import Iterator


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and all that hang on it, suppressed ones too: debuggers and loggers show them."""
    if error is not None:
        yield error
        yield from chain(error.__cause__)
        yield from chain(error.__context__)


def told_by(error: BaseException) -> str:
    """All that an error says, and all that is in the attributes of its chain."""
    told: list[str] = []
    for each in chain(error):
        told += [str(each), repr(each), repr(each.args), repr(vars(each))]
    return "\n".join(told)
