"""How a command ends when something is wrong: one line on standard error, and an exit code."""

from typing import IO, Any, Final

import click

from .output import say

__all__ = ["CLOSED_PIPE", "FAILURE", "INTERRUPTED", "Failed", "WrongUsage", "complain"]

FAILURE: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
CLOSED_PIPE: Final = 141
"""Exit codes; a shell reports the last two for a program that SIGINT or SIGPIPE ended."""


def complain(problem: object) -> None:
    """Print on standard error what is wrong, as one line."""
    say(f"gprochat: {problem}", err=True)


class Failed(click.ClickException):
    """The command failed; the message says why and what to do."""

    exit_code = FAILURE

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message."""
        complain(self.message)


class WrongUsage(Failed):
    """The command cannot use its arguments, its input or a setting."""

    exit_code = USAGE
