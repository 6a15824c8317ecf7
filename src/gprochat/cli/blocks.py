"""Cuts Markdown, as it arrives, into blocks that can be rendered one by one.

A block is a heading, a paragraph, a fenced block of code, a table, a rule, or one item of a list
with all that is indented below it. A line is looked at once, when it is complete.
"""

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["Block", "Blocks"]

HEADING: Final = re.compile(r" {0,3}#{1,6}(\s|$)")
RULE: Final = re.compile(r" {0,3}([-*_])[ \t]*(\1[ \t]*){2,}$")
UNDERLINE: Final = re.compile(r" {0,3}(=+|-+)[ \t]*$")
FENCE: Final = re.compile(r"(?P<indent>[ \t]*)(?P<fence>`{3,}(?=[^`]*$)|~{3,})")
ITEM: Final = re.compile(r"([-*+]|(?P<number>\d{1,9})[.)])(\s|$)")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of Markdown.

    Attributes:
        text: its text.
        is_item: whether it is an item of a list; no blank line stands between two items.
    """

    text: str
    is_item: bool


class Blocks:
    """Cuts Markdown into blocks."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._partial: list[str] = []
        self._fence: str | None = None
        self._is_item = False
        self._blanks = 0
        self._number: int | None = None

    def feed(self, text: str) -> list[Block]:
        """Take the next piece of text, and return the blocks that it completes."""
        finished: list[Block] = []
        *lines, rest = text.split("\n")
        for line in lines:
            self._take("".join([*self._partial, line]), finished)
            self._partial = []
        if rest:
            self._partial.append(rest)
        return finished

    def end(self) -> list[Block]:
        """Return the blocks that are left; the text has ended."""
        finished = self.feed("\n") if self._partial else []
        self._finish(finished)
        return finished

    def unfinished(self, max_lines: int, max_length: int) -> Block | None:
        """Return the end of the block that is not complete yet; None if there is none.

        Args:
            max_lines: how many lines to return at most.
            max_length: how many characters to return at most.
        """
        partial = "".join(self._partial)[-max_length:]
        lines: list[str] = []
        length = len(partial)
        for line in reversed(self._lines):
            length += len(line) + 1
            if length > max_length or len(lines) == max_lines:
                # With its first fence, the end of a long code block is still coloured as code.
                lines += self._lines[:1] if self._fence else []
                break
            lines.append(line)
        text = "\n".join([*reversed(lines), partial])
        return Block(text, self._is_item or bool(ITEM.match(text))) if text.strip() else None

    def _take(self, line: str, finished: list[Block]) -> None:
        if self._fence is not None:
            self._lines.append(line)
            closing = FENCE.match(line)
            if (
                closing
                and closing["fence"].startswith(self._fence)
                and not line[closing.end() :].strip()
            ):
                self._fence = None
                if not self._is_item:
                    self._finish(finished)
            return
        if not line.strip():
            if self._is_item:
                self._blanks += 1
            else:
                self._finish(finished)
            return
        belongs = self._is_item and line[0] in " \t"
        if self._blanks and not belongs:
            self._finish(finished)
        if not belongs:
            line = self._begin(line, finished)
        self._lines += [""] * self._blanks
        self._blanks = 0
        self._lines.append(line)
        fence = FENCE.match(line)
        if fence and (belongs or len(fence["indent"]) < 4):
            self._fence = fence["fence"]
        elif len(self._lines) == 1 and (HEADING.match(line) or RULE.match(line)):
            self._finish(finished)

    def _begin(self, line: str, finished: list[Block]) -> str:
        """Finish the block before a line that begins another one, and return that line."""
        item = None if RULE.match(line) else ITEM.match(line)
        if item and (self._is_item or not self._lines or item["number"] in (None, "1")):
            self._finish(finished)
            self._is_item = True
            # An item is rendered alone, so it must have the number that the list gives to it.
            if item["number"] is None:
                self._number = None
            elif self._number is None:
                self._number = int(item["number"])
            else:
                self._number += 1
                line = f"{self._number}{line[item.end('number') :]}"
        elif UNDERLINE.match(line) and self._lines and not self._is_item:
            pass
        elif HEADING.match(line) or RULE.match(line) or FENCE.match(line):
            self._finish(finished)
        if not self._is_item:
            self._number = None
        return line

    def _finish(self, finished: list[Block]) -> None:
        if self._lines:
            finished.append(Block("\n".join(self._lines), self._is_item))
        self._lines = []
        self._fence = None
        self._is_item = False
        self._blanks = 0
