"""Prints a reply as it arrives, as text for a person or as JSON for a program.

A reply comes from a stranger. On a terminal, control characters are replaced by visible ones, so
that they do nothing; into a file or a pipe the reply is written unchanged.
"""

import json
import os
import re
import sys
import textwrap
from typing import Final, TextIO

import click

from gprochat_core import IncompleteReply

__all__ = [
    "JSONOutput",
    "Output",
    "TextOutput",
    "abandon",
    "can_move_cursor",
    "choose_output",
    "echo",
    "in_the_shell",
    "is_terminal",
    "one_line",
    "printable",
    "say",
    "width_of",
]

CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")

SEPARATORS: Final = re.compile("[\x7f-\x9f\u2028\u2029]")
"""Characters that JSON need not escape, but that may end a line or control a terminal."""

SAID: Final = {
    'encoding="content"': "--encoding content",
    'encoding="native"': "--encoding native",
    "set the deployment's password": "set the deployment's password: GPROCHAT_PASSWORD, --password "
    "or `gprochat login`",
}
"""What messages of the core tell a program to do, and how the command does it."""


def printable(text: str) -> str:
    """Return text with its control characters made visible; line breaks and tabs stay."""
    return CONTROLS.sub(picture, text)


def picture(control: re.Match[str]) -> str:
    code = ord(control[0])
    if control[0] == "\r":
        # Part of a line break; alone, it would let text overwrite the line.
        return ""
    if code < 0x20:
        return chr(0x2400 + code)
    return "\N{SYMBOL FOR DELETE}" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"


def one_line(text: object) -> str:
    """Return a message as one line, with its control characters made visible."""
    return printable(" ".join(str(text).split()))


def in_the_shell(problem: object) -> str:
    """Return a message with the command's options in place of Python's arguments."""
    message = str(problem)
    for program, shell in SAID.items():
        message = message.replace(program, shell)
    return message


def say(text: object, *, head: str = "", err: bool = False) -> None:
    """Print a message as one line; on a terminal, the line is broken between words.

    Args:
        text: the message; its control characters are made visible.
        head: what stands in front of the message; on a terminal, also its further lines begin at
            the column where the head ends.
        err: whether to print on standard error.
    """
    line = head + one_line(text)
    stream = sys.stderr if err else sys.stdout
    if is_terminal(stream):
        line = textwrap.fill(
            one_line(text),
            # One column stays free: in the last one, some terminals begin a new line.
            max(width_of(stream) - 1, 1),
            initial_indent=head,
            subsequent_indent=" " * len(head),
            # What is to be copied, such as a URL, stays in one piece.
            break_long_words=False,
            break_on_hyphens=False,
        )
    click.echo(line, err=err)


class Output:
    """Shows a reply, and remembers its text.

    Attributes:
        text: the reply so far.
    """

    def __init__(self) -> None:
        self.text: str = ""

    def begin(self) -> None:
        """Begin a new reply."""
        self.text = ""

    def write(self, text: str) -> None:
        """Take a piece of the reply and show it at once."""
        self.text += text
        self.show(text)

    def show(self, text: str) -> None:
        """Show a piece of the reply."""
        raise NotImplementedError

    def tick(self) -> None:
        """Show what has been held back, or prepare to show text; called while no text arrives."""

    def end(self) -> None:
        """End a reply that is complete."""

    def fail(self, error: BaseException) -> None:
        """End a reply that failed; show text of it that only the error holds."""
        if isinstance(error, IncompleteReply):
            rest = error.text[len(self.text) :]
            if rest:
                self.write(rest)


class TextOutput(Output):
    """Shows the reply as text.

    Args:
        newline: whether to end the last line in a pipe too, as on a terminal.
    """

    def __init__(self, *, newline: bool = False) -> None:
        super().__init__()
        self._terminal = is_terminal(sys.stdout)
        self._newline = newline or self._terminal

    def show(self, text: str) -> None:
        """Show a piece of the reply."""
        echo(printable(text) if self._terminal else text)

    def end(self) -> None:
        """End the last line, on a terminal or if asked to."""
        if self._newline and self.text and not self.text.endswith("\n"):
            echo("\n")

    def fail(self, error: BaseException) -> None:
        """End a reply that failed; the caller prints the error itself."""
        super().fail(error)
        if self._terminal and self.text and isinstance(error, KeyboardInterrupt):
            # The terminal shows ^C after the text.
            echo("\n")
        else:
            self.end()


class JSONOutput(Output):
    """Shows the reply as JSON objects, one per line: pieces of text, then an end or an error.

    The lines are UTF-8, whatever the encoding of standard output is.
    """

    def show(self, text: str) -> None:
        """Show a piece of the reply."""
        self._line({"type": "text", "text": text})

    def end(self) -> None:
        """Print an end with the whole reply."""
        self._line({"type": "end", "text": self.text})

    def fail(self, error: BaseException) -> None:
        """Print an error with the reply so far."""
        super().fail(error)
        message = one_line(in_the_shell(error)) or "interrupted"
        self._line(
            {"type": "error", "error": type(error).__name__, "message": message, "text": self.text}
        )

    def _line(self, item: dict[str, str]) -> None:
        line = json.dumps(item, ensure_ascii=False)
        click.echo(SEPARATORS.sub(lambda match: f"\\u{ord(match[0]):04x}", line).encode())


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal; Python sets a closed standard stream to None."""
    return stream is not None and stream.isatty()


def width_of(terminal: TextIO) -> int:
    """Return how many columns a terminal has; 80 if it does not say."""
    try:
        return os.get_terminal_size(terminal.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def can_move_cursor() -> bool:
    """Return whether the terminal says that it can move its cursor."""
    return os.environ.get("TERM") not in ("dumb", "unknown")


def choose_output(*, as_json: bool = False, plain: bool, newline: bool = False) -> Output:
    """Return the output that options and standard output ask for.

    Args:
        as_json: whether to print JSON objects.
        plain: whether to print the bare text on a terminal too.
        newline: whether to end the last line in a pipe too.
    """
    if as_json:
        return JSONOutput()
    if plain or not is_terminal(sys.stdout) or not can_move_cursor():
        return TextOutput(newline=newline)
    if not sys.stdout.encoding.lower().startswith("utf"):
        # Other encodings lack characters that are part of rendered Markdown, such as the bullet.
        return TextOutput()
    from .markdown import MarkdownOutput

    return MarkdownOutput()


def echo(text: str) -> None:
    """Print text as it is on standard output, at once."""
    # color=True: otherwise click removes escape sequences for colours from the text.
    click.echo(text, nl=False, color=True)


def abandon() -> None:
    """Discard buffered output, because the interpreter would try to write it when it exits."""
    if sys.stdout is sys.__stdout__ and sys.stdout is not None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
