"""Shows a reply on a terminal as rendered Markdown, while it arrives.

A block that is complete is rendered once and stays as it is. Only the block that is still growing
is drawn again, at most so often that drawing takes a fifth of the time, and of this block only what
fits on the screen. So the cost of a reply grows with its length and not with the square of it.
The first words of a reply that comes at once are shown bare, until rich has been imported.
"""

import io
import re
import shutil
import sys
import textwrap
from functools import cache
from itertools import pairwise
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, Final

from .blocks import Block, Blocks
from .output import Output, echo, printable

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token
    from rich.console import Console
    from rich.markdown import Markdown

__all__ = ["MarkdownOutput"]

INTERVAL: Final = 1 / 15
"""Seconds between two drawings."""

CLEAR_LINE: Final = "\r\x1b[K"
WRAP_OFF: Final = "\x1b[?7l"
WRAP_ON: Final = "\x1b[?7h"

DEFINITION: Final = re.compile(r"\[[^\]]+\]:")
"""The beginning of a definition such as "[1]: URL", which has a line of its own."""

STYLE: Final = re.compile("\x1b\\[[0-9;]*m")


class MarkdownOutput(Output):
    """Shows the reply as rendered Markdown on a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._console: Console | None = None
        self._restart()

    def begin(self) -> None:
        """Begin a new reply."""
        super().begin()
        self._restart()

    def _restart(self) -> None:
        self._blocks = Blocks()
        self._finished: list[Block] = []
        self._shown: Block | None = None
        self._drawn: list[str] = []
        self._next = 0.0
        self._changed = False

    def show(self, text: str) -> None:
        """Take a piece of the reply."""
        self._finished += self._blocks.feed(printable(text))
        self._changed = True
        self.tick()

    def tick(self) -> None:
        """Draw what has arrived, if it is time to."""
        if not self._changed:
            # While nothing arrives is the best time for an import that takes long.
            import_markdown()
        begun = monotonic()
        if self._changed and begun >= self._next:
            if "rich.markdown" not in sys.modules:
                # The first words of a quick reply do not wait for the import either.
                self._draw_bare()
                import_markdown()
            self._draw()
            ended = monotonic()
            self._next = ended + max(INTERVAL, 4 * (ended - begun))

    def end(self) -> None:
        """Draw the rest of the reply."""
        self._finished += self._blocks.end()
        self._draw()

    def fail(self, error: BaseException) -> None:
        """Draw what arrived of a reply that failed; the caller prints the error itself."""
        if isinstance(error, KeyboardInterrupt):
            # The terminal shows ^C below the text.
            echo(CLEAR_LINE)
        super().fail(error)
        self.end()

    def _draw_bare(self) -> None:
        size = shutil.get_terminal_size()
        lines: list[str] = []
        for line in printable(self.text).split("\n"):
            # Characters other than ASCII may be two columns wide.
            width = (size.columns - 1) // (1 if line.isascii() else 2)
            lines += textwrap.wrap(line, max(width, 1)) or [""]
        self._drawn = lines[-max(size.lines - 1, 1) :]
        echo(redraw([], [], self._drawn))

    def _draw(self) -> None:
        self._changed = False
        finished, self._finished = self._finished, []
        stays = [line for block in finished for line in self._render(block, last=block)]
        size = shutil.get_terminal_size()
        rows = max(size.lines - 1, 1)
        growing = self._blocks.unfinished(rows, rows * size.columns)
        moves = [] if growing is None else self._render(growing, last=self._shown)[-rows:]
        echo(redraw(self._drawn, stays, moves))
        self._drawn = moves

    def _render(self, block: Block, *, last: Block | None) -> list[str]:
        """Return the lines of a block, after a blank line if one belongs between it and the last.

        Args:
            block: the block.
            last: the block that is shown last from now on.
        """
        before, self._shown = self._shown, last
        blank = before is not None and not (before.is_item and block.is_item)
        return [*[""] * blank, *self._render_text(block.text)]

    def _render_text(self, text: str) -> list[str]:
        console = self._find_console()
        # One column stays free: in the last one, some terminals begin a new line.
        console.width = max(shutil.get_terminal_size().columns - 1, 1)
        with console.capture() as captured:
            console.print(parse(text))
        lines = [line.rstrip(" ") for line in captured.get().split("\n")]
        # rich puts blank lines around some blocks and not around others.
        while lines and is_blank(lines[-1]):
            del lines[-1]
        while lines and is_blank(lines[0]):
            del lines[0]
        return lines

    def _find_console(self) -> "Console":
        if self._console is None:
            from rich.console import Console

            # rich reads from the environment which colours the terminal has, and NO_COLOR.
            self._console = Console(
                file=io.StringIO(), force_terminal=True, legacy_windows=False, highlight=False
            )
        return self._console


def import_markdown() -> "type[Markdown]":
    """Import rich's Markdown; a command whose output is a pipe never needs it."""
    from rich.markdown import Markdown

    return Markdown


@cache
def make_parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    parser = MarkdownIt().enable(["strikethrough", "table"])
    # What looks like HTML is mostly meant as text, such as List<int>, and rich would not show it.
    # Nor would it show definitions, such as "[1]: URL", and of an image only the text; without the
    # rule for images, an image is a "!" and a link.
    return parser.disable(["html_inline", "html_block", "reference", "image"])


@cache
def make_renderer() -> "type[Markdown]":
    from rich.console import JustifyMethod
    from rich.markdown import Markdown, TableDataElement

    class Cell(TableDataElement):
        def __init__(self, justify: JustifyMethod) -> None:
            super().__init__(justify)
            # A long word is broken; rich would cut it off.
            self.content.overflow = "fold"

    class Renderer(Markdown):
        elements: ClassVar = {**Markdown.elements, "th_open": Cell, "td_open": Cell}

    return Renderer


def parse(text: str) -> "Markdown":
    """Parse Markdown as rich does, but so that nothing of it is lost."""
    parsed = make_renderer()("", code_theme="ansi_dark", hyperlinks=False)
    parsed.parsed = make_parser().parse(text)
    prepare(parsed.parsed)
    return parsed


def prepare(tokens: list["Token"]) -> None:
    """Change what the parser found so that rich shows all of it, and nothing but text."""
    for token in tokens:
        # The parser decodes control characters, such as %1B in <URL>.
        token.content = printable(token.content)
        token.attrs = {name: printable(str(value)) for name, value in token.attrs.items()}
        if "title" in token.attrs:
            token.attrs["href"] = f'{token.attrs["href"]} "{token.attrs["title"]}"'
        prepare(token.children or [])
    for token, following in pairwise(tokens):
        if token.type == "softbreak" and DEFINITION.match(following.content):
            token.type = "hardbreak"


def is_blank(line: str) -> bool:
    return not STYLE.sub("", line).strip()


def redraw(old: list[str], stays: list[str], moves: list[str]) -> str:
    """Return what makes a terminal show new lines in place of the old ones above its cursor.

    Args:
        old: the lines that moved until now.
        stays: lines that are never drawn again. If a terminal counts more columns for one of them
            than there are, the terminal wraps it.
        moves: lines that are drawn again. The terminal must not wrap them, or the cursor would not
            find their first row again.
    """
    same = 0
    while not stays and same < min(len(old), len(moves)) and old[same] == moves[same]:
        same += 1
    if not stays and same == len(old) == len(moves):
        return ""
    up = len(old) - same
    move = f"\x1b[{up}A" if up else ""
    # Each line is cleared alone: if the screen is cleared from its first line on, some terminals
    # copy it into what has scrolled away.
    clear = move + f"{CLEAR_LINE}\n" * up + CLEAR_LINE + move
    return f"{clear}{join(stays)}{WRAP_OFF}{join(moves[same:])}{WRAP_ON}"


def join(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
