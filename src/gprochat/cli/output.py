"""What a chat shows: the reply as it arrives, as text for a person or as JSON for a program.

A reply is a stranger's text. On a terminal, characters that would drive it are made visible
instead; into a file or a pipe the reply goes as it is.
"""

import io
import json
import os
import re
import sys
from typing import Final, TextIO

import click

from gprochat_core import IncompleteReply

__all__ = ["JSONOutput", "Output", "TextOutput", "abandon", "is_terminal", "one_line", "printable"]

CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")

SEPARATORS: Final = re.compile("[\x7f-\x9f\u2028\u2029]")
"""What JSON allows as it is although a terminal or a reader of lines may act on it."""


def printable(text: str) -> str:
    """Return text that does nothing to a terminal but appear; line breaks and tabs stay."""
    return CONTROLS.sub(picture, text)


def picture(control: re.Match[str]) -> str:
    code = ord(control[0])
    if control[0] == "\r":
        # Half of a line break, or else a way to write over what is there.
        return ""
    if code < 0x20:
        return chr(0x2400 + code)
    return "\N{SYMBOL FOR DELETE}" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"


def one_line(text: object) -> str:
    """Return a message on one line, fit for a terminal."""
    return printable(" ".join(str(text).split()))


class Output:
    """Takes a reply; what takes it remembers it too, however it ends.

    Attributes:
        text: the reply so far.
    """

    def __init__(self) -> None:
        self.text = ""

    def begin(self) -> None:
        """Make ready for a reply."""
        self.text = ""

    def write(self, text: str) -> None:
        """Take a piece of the reply and show it at once."""
        self.text += text
        self.show(text)

    def show(self, text: str) -> None:
        """Show a piece of the reply."""
        raise NotImplementedError

    def end(self) -> None:
        """Take the proper end of the reply."""

    def fail(self, error: BaseException) -> None:
        """Take any other end of the reply, and what an error brought of it."""
        if isinstance(error, IncompleteReply):
            rest = error.text[len(self.text) :]
            if rest:
                self.write(rest)


class TextOutput(Output):
    """Shows the reply as text."""

    def __init__(self) -> None:
        super().__init__()
        self._terminal = is_terminal(sys.stdout)
        set_encoding(None, "replace")

    def show(self, text: str) -> None:
        """Show a piece of the reply."""
        echo(printable(text) if self._terminal else text)

    def end(self) -> None:
        """End the last line on a terminal."""
        if self._terminal and self.text and not self.text.endswith("\n"):
            echo("\n")

    def fail(self, error: BaseException) -> None:
        """Show what an error brought of the reply; the error itself goes to standard error."""
        super().fail(error)
        self.end()


class JSONOutput(Output):
    """Shows the reply as one JSON object a line: text, and then end or error."""

    def __init__(self) -> None:
        super().__init__()
        set_encoding("utf-8", "strict")

    def show(self, text: str) -> None:
        """Show a piece of the reply."""
        self._line({"type": "text", "text": text})

    def end(self) -> None:
        """Say that the reply is complete, and repeat it."""
        self._line({"type": "end", "text": self.text})

    def fail(self, error: BaseException) -> None:
        """Say what ended the reply, and repeat what had arrived."""
        super().fail(error)
        message = one_line(error) or "interrupted"
        self._line(
            {"type": "error", "error": type(error).__name__, "message": message, "text": self.text}
        )

    def _line(self, item: dict[str, str]) -> None:
        line = json.dumps(item, ensure_ascii=False)
        echo(SEPARATORS.sub(lambda match: f"\\u{ord(match[0]):04x}", line) + "\n")


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a person is at the other end; a stream that was closed from outside is None."""
    return stream is not None and stream.isatty()


def echo(text: str) -> None:
    # color=True: click must not look for colours in it and take them out.
    click.echo(text, nl=False, color=True)


def set_encoding(encoding: str | None, errors: str) -> None:
    """Have standard output never fail for a character that it cannot express."""
    stream: object = sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding=encoding, errors=errors)


def abandon() -> None:
    """Drop what standard output has not taken, lest the interpreter try again as it exits."""
    if sys.stdout is sys.__stdout__ and sys.stdout is not None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
