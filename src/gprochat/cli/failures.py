"""How the command line ends when something is wrong: one line on standard error, and a status."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import IO, Any, Final

import click

from .output import one_line

__all__ = ["CLOSED_PIPE", "FAILURE", "INTERRUPTED", "Failed", "WrongUsage", "complain", "needing"]

FAILURE: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
CLOSED_PIPE: Final = 141
"""Exit codes; the last two are what a shell reports of a program that SIGINT or SIGPIPE ended."""


def complain(problem: object) -> None:
    """Say on one line of standard error what is wrong."""
    click.echo(f"gprochat: {one_line(problem)}", err=True)


class Failed(click.ClickException):
    """The command cannot go on; the message says why and what to do."""

    exit_code = FAILURE

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message."""
        complain(self.message)


class WrongUsage(Failed):
    """The command cannot do anything with what it was given."""

    exit_code = USAGE


@contextmanager
def needing(extra: str) -> Generator[None, None, None]:
    """Import within the block what comes with an extra.

    Raises:
        Failed: it is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise Failed(f"{error}; this needs its extra: pip install 'gprochat[{extra}]'") from None
