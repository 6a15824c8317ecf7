"""How a command ends when something is wrong: one line on standard error, and an exit code."""

import errno
from collections.abc import Generator
from contextlib import contextmanager
from typing import IO, Any, Final

import click

from .output import in_the_shell, say

__all__ = [
    "CLOSED_PIPE",
    "FAILURE",
    "INTERRUPTED",
    "Failed",
    "WrongUsage",
    "complain",
    "listening",
]

FAILURE: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
CLOSED_PIPE: Final = 141
"""Exit codes; a shell reports the last two for a program that SIGINT or SIGPIPE ended."""


def complain(problem: object) -> None:
    """Print on standard error what is wrong, as one line."""
    say(f"gprochat: {in_the_shell(problem)}", err=True)


class Failed(click.ClickException):
    """The command failed; the message says why and what to do."""

    exit_code = FAILURE

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message."""
        complain(self.message)


class WrongUsage(Failed):
    """The command cannot use its arguments, its input or a setting."""

    exit_code = USAGE


@contextmanager
def listening(host: str, port: int) -> Generator[None, None, None]:
    """Name the host or port that a server of the block cannot listen on.

    Raises:
        Failed: the port is in use, or the host has no address.
    """
    # Imported here, because few commands are servers.
    from socket import gaierror

    try:
        yield
    except gaierror as error:
        raise Failed(f"the host {host} has no address: {error.strerror}") from error
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise Failed(f"port {port} is in use; choose another --port, or leave it out") from error
