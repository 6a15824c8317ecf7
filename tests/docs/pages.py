"""The project's Markdown pages and the fenced blocks in them.

What a test must know of a block stands in comments directly before it, which a reader of the
rendered page does not see:

* `<!-- file: NAME -->`: the block is a file that other blocks of the page use;
* `<!-- expect: TEXT -->`: what it prints contains this;
* `<!-- until: TEXT -->`: it runs until it prints this, and is then interrupted;
* `<!-- output -->`: it is what the block before it prints, but for lines left out and `...`;
* `<!-- needs: NAME -->`: it runs only where this module is installed; `nox -s clients` has them;
  `tests/ray/` runs the files of the guide to Ray;
* `<!-- in: repository -->`: it runs in the root of the repository;
* `<!-- drawing -->`: it is a drawing, which `test_design.py` checks;
* `<!-- tree -->`: it lists folders and all Python files in them.

A block whose language is in braces, such as `{toctree}`, is for the site and not for readers.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Final

__all__ = ["ROOT", "Block", "blocks", "file_of", "module_of", "pages"]

ROOT: Final = Path(__file__).parents[2]

ELSEWHERE: Final = (ROOT / "docs" / "benchmarks", ROOT / "docs" / "project")

FENCE: Final = re.compile(r"(?P<indent> *)(?P<fence>```+|~~~+)(?P<language>.*)")
COMMENT: Final = re.compile(r" *<!-- (?P<name>[a-z]+)(?:: (?P<value>.+))? -->")
DIRECTIVES: Final = frozenset(
    {"file", "expect", "until", "output", "needs", "in", "tree", "drawing"}
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: the page's path from the repository's root.
        line: the line of its first fence, counted from 1.
        language: what stands after that fence.
        code: what is in it.
        directives: what the comments before it say.
    """

    page: str
    line: int
    language: str
    code: str
    directives: Mapping[str, str]

    def __str__(self) -> str:
        place = f"{self.page}:{self.line}"
        needs = self.directives.get("needs")
        return f"{place}-needs-{needs}" if needs else place


def pages() -> list[Path]:
    """Every page that is written for people, a generated one too.

    Pages in place of which the site shows a file outside of `docs/` are none.
    """
    names = ("README.md", "CONTRIBUTING.md", "RELEASING.md", "SECURITY.md")
    written = [page for page in ROOT.glob("docs/**/*.md") if page.parent not in ELSEWHERE]
    return [*(ROOT / name for name in names), *sorted(written)]


def blocks(page: Path) -> Iterator[Block]:
    """Give a page's blocks in order.

    Raises:
        ValueError: a fence is never closed, or a comment says something unknown.
    """
    lines = enumerate(page.read_text(encoding="utf-8").splitlines(), start=1)
    directives: dict[str, str] = {}
    for number, line in lines:
        if comment := COMMENT.fullmatch(line):
            if comment["name"] not in DIRECTIVES:
                raise ValueError(f"{page}:{number}: what is {comment['name']!r}?")
            directives[comment["name"]] = comment["value"] or ""
        elif opening := FENCE.fullmatch(line):
            code: list[str] = []
            for _, inside in lines:
                if inside.strip() == opening["fence"]:
                    break
                code.append(inside)
            else:
                raise ValueError(f"{page}:{number}: this block never ends")
            if opening["language"].startswith("{"):
                continue
            yield Block(
                page.relative_to(ROOT).as_posix(),
                number,
                opening["language"].strip(),
                dedent("\n".join(code)) + "\n",
                directives,
            )
            directives = {}
        elif directives:
            raise ValueError(f"{page}:{number}: a comment and its block belong together")


def file_of(recipe: str, name: str) -> str:
    """Return the file of this name that a page of `docs/recipes/` shows."""
    page = ROOT / "docs" / "recipes" / f"{recipe}.md"
    (code,) = [each.code for each in blocks(page) if each.directives.get("file") == name]
    return code


def module_of(recipe: str, name: str) -> ModuleType:
    """Return a new module, made from such a file."""
    module = ModuleType(Path(name).stem)
    exec(compile(file_of(recipe, name), name, "exec"), vars(module))
    return module
