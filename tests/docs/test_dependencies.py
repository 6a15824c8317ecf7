"""The table of other libraries' private names is complete, and names files and tests that exist."""

import ast
import inspect
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.docs.pages import ROOT

SRC = ROOT / "src"
PAGE = ROOT / "docs" / "dependencies.md"
# llm is not installed here.
FILES = sorted({*SRC.rglob("*.py")} - {SRC / "gprochat" / "llm_plugin.py"})


class Row(NamedTuple):
    names: list[str]
    file: str
    test: str


def rows() -> Iterator[Row]:
    lines = re.findall(r"^\| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    for line in lines[2:]:
        names, file, _, _, test = line.split(" | ")
        yield Row(re.findall(r"`([^`]+)`", names), file.strip("`"), test.strip("`"))


ROWS = list(rows())


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


@cache
def source(cls: type) -> str:
    """The source of a class; nothing for a class that is written in C."""
    with suppress(TypeError, OSError):
        return inspect.getsource(cls)
    return ""


def foreign_source(cls: type) -> str:
    """The source of those classes that a class inherits from and that other libraries define."""
    foreign = [base for base in cls.__mro__ if not base.__module__.startswith("gprochat")]
    return "\n".join(map(source, foreign))


def private_names(path: Path) -> Iterator[str]:
    """Private names in a file that another library defines: of its objects and its modules, and
    those that a class of this project shares with a base class that is the library's."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    module = import_module(".".join(path.relative_to(SRC).with_suffix("").parts))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            parts = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from filter(is_private, parts)
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if owner not in ("self", "cls"):
                yield node.attr
        if isinstance(node, ast.ClassDef) and hasattr(module, node.name):
            source = foreign_source(getattr(module, node.name))
            for inner in ast.walk(node):
                name = getattr(inner, "attr", getattr(inner, "name", getattr(inner, "id", "")))
                if is_private(name or "") and re.search(rf"\b{name}\b", source):
                    yield name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SRC).as_posix())
def test_every_private_name_of_another_library_stands_in_the_table(path: Path) -> None:
    file = path.relative_to(SRC).as_posix()
    listed = {name for row in ROWS if row.file == file for name in row.names}
    assert set(private_names(path)) <= listed


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.file}-{row.names[0]}")
def test_the_file_of_a_row_uses_its_names(row: Row) -> None:
    text = (SRC / row.file).read_text(encoding="utf-8")
    for name in row.names:
        assert re.search(rf"\b{re.escape(name.rpartition('.')[2])}\b", text), name


@pytest.mark.parametrize("test", sorted({row.test for row in ROWS}))
def test_the_test_of_a_row_exists(test: str) -> None:
    file, _, name = test.partition("::")
    assert re.search(rf"def {name}\(", (ROOT / file).read_text(encoding="utf-8"))


def test_the_search_finds_private_names_in_each_way_that_they_are_used() -> None:
    found = {path.relative_to(SRC).as_posix(): set(private_names(path)) for path in FILES}
    assert "_factory" in found["gprochat_transports/aiohttp/connection.py"]
    assert "_connect_via_proxy" in found["gprochat_transports/aiohttp/socks.py"]
