"""The page on design names what exists."""

import re
from importlib import import_module

import pytest

from gprochat_core import Exchange
from gprochat_transports import Response, Transport
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "design.md"
NAMES = re.findall(r"`(gprochat\w*(?:\.\w+)+)`", PAGE.read_text(encoding="utf-8"))
(DRAWING,) = [block for block in blocks(PAGE) if "drawing" in block.directives]


@pytest.mark.parametrize("name", NAMES)
def test_what_the_page_names_exists(name: str) -> None:
    package, module, *attributes = name.split(".")
    found = import_module(f"{package}.{module}")
    for attribute in attributes:
        found = getattr(found, attribute)


def test_the_page_names_a_way() -> None:
    assert len(NAMES) > 10


def test_the_drawing_shows_methods_that_exist() -> None:
    methods = set(re.findall(r"(\w+)\(\)", DRAWING.code))
    assert {"attempt", "send", "receive_head", "read", "receive", "fail", "retry"} <= methods
    owners = (Exchange, Transport, Response)
    assert [name for name in methods if not any(hasattr(each, name) for each in owners)] == []


def test_the_drawing_fits_into_a_narrow_window() -> None:
    assert max(map(len, DRAWING.code.splitlines())) <= 72


@pytest.mark.parametrize(
    "path", re.findall(r"`(\w+/[\w/]+\.py)`", PAGE.read_text(encoding="utf-8"))
)
def test_the_files_to_read_exist(path: str) -> None:
    assert (ROOT / "src" / path).is_file()
