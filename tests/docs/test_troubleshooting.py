"""The page on troubleshooting has every error and every message of the source."""

import ast
import importlib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import pytest

import gprochat_core.errors
from gprochat_core import GPROChatError
from tests.docs.pages import ROOT

SRC = ROOT / "src"


def plain(text: str) -> str:
    return " ".join(text.replace("`", "").split())


PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
TEXT = plain(PAGE)

ERRORS = {
    name
    for name in gprochat_core.errors.__all__
    if issubclass(getattr(gprochat_core, name), GPROChatError)
}
SHOWN = {
    *ERRORS,
    *("Failed", "Invalid", "Refusal", "UpstreamError", "WrongUsage"),
    *("BadParameter", "error_object", "warn"),
}
"""What is called with a message for users: the errors, the refusals of service and gateway, the
command's errors, and warnings."""


class Text(NamedTuple):
    """A message in the source: its constant parts, between which it has others."""

    place: str
    parts: list[str]

    def __str__(self) -> str:
        return f"{self.place}: {'…'.join(self.parts)}"


def constant_parts(node: ast.expr, module: str) -> list[str]:
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=values):
            return [str(each.value) for each in values if isinstance(each, ast.Constant)]
        case ast.Name(id=name) if name.isupper():
            return [getattr(importlib.import_module(module), name)]
        case _:
            return []


@cache
def messages() -> Sequence[Text]:
    """Return the messages of all files; reading these takes half a second."""
    return list(search())


def search() -> Iterator[Text]:
    for path in sorted(SRC.rglob("*.py")):
        place = path.relative_to(SRC)
        module = ".".join(place.with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            if getattr(node.func, "id", getattr(node.func, "attr", "")) not in SHOWN:
                continue
            # A refusal has its status before its message.
            for argument in node.args[:2]:
                parts = [plain(each) for each in constant_parts(argument, module)]
                if " " in "".join(parts):
                    yield Text(f"{place.as_posix()}:{node.lineno}", parts)
                    break


@pytest.mark.parametrize("name", sorted(ERRORS - {"GPROChatError"}))
def test_every_error_has_a_heading(name: str) -> None:
    assert re.search(rf"^##+ .*\b{name}\b", PAGE, re.MULTILINE)


def test_every_message_has_an_entry() -> None:
    missing = [
        str(message)
        for message in messages()
        if not re.search(".{0,40}?".join(map(re.escape, message.parts)), TEXT)
    ]
    assert missing == []


def test_the_search_finds_messages_of_each_kind() -> None:
    found = {"…".join(message.parts) for message in messages()}
    assert "this client has been closed; make a new one" in found
    assert "the service failed after…characters of the reply; ask again for the rest" in found
    assert "Invalid password." in found
    assert "--service has a URL of its own; leave --url out" in found
    assert "--reply openai needs --openai-model" in found
    assert len(found) > 100
