"""Records the session that the README and the guide to the command line show.

    python docs/recording.py

It runs the real command on a pseudo-terminal, and writes what is then on the screen to
docs/guides/command-line.svg. A test checks that the file is current.
"""

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from contextlib import suppress
from io import StringIO
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pyte
from pyte.screens import Char
from rich.console import Console
from rich.style import Style
from rich.text import Text

FILE: Final = Path(__file__).parent / "guides" / "command-line.svg"

COLUMNS: Final = 72
LINES: Final = 50

QUESTION: Final = """\
## Markdown
1. is **rendered** while it arrives,
2. and code is coloured:

```python
print("Hello")
```
"""

SESSION: Final = (
    'gprochat chat --local "Hello"',
    'cat notes.md | gprochat chat --local "Repeat my notes:"',
    "gprochat chat --local --continue --plain '**Bare** text, please.'",
    "gprochat history show --plain | tail -n 3",
)

COLOURS: Final = {"default": None, "brown": "yellow"}
"""The names of pyte's colours where rich has another one."""


def main() -> None:
    """Write the recording."""
    FILE.write_text(record(), encoding="utf-8")
    print(f"wrote {FILE}")


def record() -> str:
    """Run the session, and return it as SVG."""
    console = Console(
        record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor"
    )
    with TemporaryDirectory() as home:
        (Path(home) / "notes.md").write_text(QUESTION, encoding="utf-8")
        for command in SESSION:
            console.print(Text("$ ", Style(bold=True, color="green")) + Text(command))
            for line in run(command, Path(home)):
                console.print(line)
    svg = console.export_svg(title="gprochat", unique_id="gprochat")
    # rich's SVG loads its font from elsewhere; a reader's own font will do.
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    return "\n".join(line.rstrip() for line in svg.split("\n")).strip() + "\n"


def run(command: str, home: Path) -> list[Text]:
    """Run a command on a terminal, and return the lines of its screen."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    program = home / "gprochat"
    program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-m", "gprochat"])} "$@"\n')
    program.chmod(0o755)
    process = subprocess.Popen(
        ["sh", "-c", command],
        cwd=home,
        env=environment(home),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    with process, suppress(OSError):
        # Linux reports an error when no process has the terminal open any more.
        while data := os.read(ours, 65536):
            stream.feed(data)
    os.close(ours)
    lines = [line_of(screen, row) for row in range(LINES)]
    while lines and not lines[-1].plain.strip():
        del lines[-1]
    return lines


def environment(home: Path) -> Mapping[str, str]:
    """Return the environment of the command: a terminal with 16 colours, and an empty home."""
    return {
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PATH": f"{home}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[1] / "src"),
        "PYTHONUTF8": "1",
        "TERM": "xterm",
        "XDG_DATA_HOME": str(home / "data"),
    }


def line_of(screen: pyte.Screen, row: int) -> Text:
    """Return a line of a screen with its styles."""
    line = Text()
    characters = (screen.buffer[row][column] for column in range(screen.columns))
    for style, alike in groupby(characters, style_of):
        line.append("".join(character.data for character in alike), style)
    line.rstrip()
    return line


def style_of(character: Char) -> Style:
    """Return what rich calls the style of a character."""
    return Style(
        bold=character.bold,
        italic=character.italics,
        underline=character.underscore,
        color=colour(character.fg),
    )


def colour(name: str) -> str | None:
    """Return what rich calls a colour of pyte."""
    bright, name = name.startswith("bright"), name.removeprefix("bright")
    known = COLOURS.get(name, name)
    return f"bright_{known}" if bright and known else known


if __name__ == "__main__":
    main()
