"""One line on standard error that says what a chat waits for, on a terminal only.

The line moves, and is cleared when text comes. Where the output is to be plain, for a screen
reader for example, nothing moves: a wait for another attempt is one line that stays.
"""

import sys
from math import ceil
from time import monotonic
from typing import Final

import click

from gprochat_core import (
    ConnectError,
    GPROChatError,
    InterruptedReply,
    RateLimited,
    RetryPolicy,
    SignatureRejected,
)

from .output import can_move_cursor, is_terminal, say, width_of
from .session import Retry

__all__ = ["WaitingLine"]

DOTS: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
STROKES: Final = "|/-\\"
"""The frames of the spinner; the second for an encoding without the first."""

CLEAR: Final = "\r\x1b[K"

MAX_ATTEMPTS: Final = RetryPolicy().max_attempts


class WaitingLine:
    """Says what a chat waits for.

    Args:
        plain: whether nothing may move.
    """

    def __init__(self, *, plain: bool) -> None:
        self._terminal = is_terminal(sys.stderr)
        self._moves = self._terminal and can_move_cursor() and not plain
        utf8 = self._terminal and sys.stderr.encoding.lower().startswith("utf")
        self._frames = DOTS if utf8 else STROKES
        self._frame = 0
        self._begun = 0.0
        self._retry: Retry | None = None
        self._retry_at = 0.0
        self._drawn = False

    def begin(self) -> None:
        """Begin to wait for a reply."""
        self._begun = monotonic()
        self._retry = None

    def retry(self, retry: Retry) -> None:
        """Wait for another attempt."""
        self._retry = retry
        self._retry_at = monotonic() + retry.delay
        if self._terminal and not self._moves and retry.delay:
            say(long_words(retry, retry.delay), err=True)

    def tick(self) -> None:
        """Draw the line as it is now."""
        if not self._moves:
            return
        now = monotonic()
        # One column stays free: in the last one, some terminals begin a new line.
        room = max(width_of(sys.stderr) - 3, 0)
        if self._retry is None or now >= self._retry_at:
            words = f"waiting for the first word, {now - self._begun:.0f} s"
        else:
            left = self._retry_at - now
            words = long_words(self._retry, left)
            if len(words) > room:
                words = short_words(self._retry, left)
        self._frame = (self._frame + 1) % len(self._frames)
        self._drawn = True
        write(f"{CLEAR}{self._frames[self._frame]} {words[:room]}")

    def clear(self) -> None:
        """Clear the line."""
        if self._drawn:
            self._drawn = False
            write(CLEAR)

    def interrupt(self) -> None:
        """End the wait because of Ctrl-C, which the terminal shows as ^C."""
        self._drawn = False
        if self._moves:
            write(CLEAR)
        elif self._terminal:
            write("\n")


def write(text: str) -> None:
    click.echo(text, err=True, nl=False, color=True)


def long_words(retry: Retry, seconds: float) -> str:
    words = f"{cause(retry.error)}, trying again in {ceil(seconds)} s, attempt {retry.attempt}"
    # An attempt on a connection that the server had closed is not counted among the three.
    return words if retry.attempt > MAX_ATTEMPTS else f"{words} of {MAX_ATTEMPTS}"


def short_words(retry: Retry, seconds: float) -> str:
    return f"{cause(retry.error)}, again in {ceil(seconds)} s"


def cause(error: GPROChatError) -> str:
    match error:
        case RateLimited():
            return "rate limited"
        case ConnectError():
            return "no connection"
        case SignatureRejected():
            return "the clock was wrong"
        case InterruptedReply():
            return "the model failed"
        case _:
            return "the service failed"
