"""The walls of the house: what may import what, and what the core must never touch."""

import ast
import json
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Final, cast

import pytest

from tests.installations import output_with

ROOT: Final = Path(__file__).parents[1]
SRC: Final = ROOT / "src"
CORE: Final = sorted((SRC / "gprochat_core").glob("*.py"))
TRANSPORTS: Final = [
    ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")
    for package in ("gprochat", "gprochat_transports")
    for path in sorted((SRC / package).rglob("*.py"))
]

LAYERS: Final = [
    "errors",
    "redaction",
    "signing",
    "messages",
    "service",
    "request",
    "content_coding",
    "diagnosis",
    "reply",
    "policy",
    "exchange",
    "acceptance",
]
"""The core's files; each imports only those before it."""

PURE: Final = {
    "codecs",
    "collections.abc",
    "contextlib",
    "dataclasses",
    "datetime",
    "enum",
    "functools",
    "hashlib",
    "hmac",
    "ipaddress",
    "itertools",
    "json",
    "math",
    "re",
    "types",
    "typing",
    "zlib",
}
"""What the core may import: no I/O, no clock, no randomness, no environment."""

IMPURE_NAMES: Final = {"open", "print", "input", "breakpoint", "exec", "eval", "__import__"}
IMPURE_ATTRIBUTES: Final = {
    # Pure modules have doors too: these read the clock or the local time zone, or open files.
    *("now", "today", "utcnow", "fromtimestamp", "astimezone"),
    *("file_digest", "open", "load", "dump"),
}

FORBIDDEN_IN_THE_CORE: Final = {
    *("asyncio", "concurrent", "multiprocessing", "threading", "signal", "subprocess"),
    *("socket", "_socket", "ssl", "_ssl", "select", "selectors", "http", "urllib.request"),
    *("random", "_random", "secrets", "uuid", "tempfile"),
    *("logging", "sched", "calendar", "locale", "getpass", "shutil"),
}

ADAPTERS: Final = ["aiohttp", "httpx", "trio"]

NEEDS: Final[dict[str, list[list[str]]]] = {
    # Of each module that needs any library: the installations, each of them enough.
    "gprochat_transports.aiohttp.socks": [["gprochat[aiohttp]", "gprochat[socks]"]],
    "gprochat_transports.aiohttp*": [["gprochat[aiohttp]"]],
    "gprochat_transports.httpx*": [["gprochat[httpx]"], ["gprochat[httpx2]"]],
    "gprochat_transports.trio*": [["gprochat[trio]"]],
    "gprochat_transports.http11.[ct]*": [["h11"]],
    "gprochat.batch*": [["gprochat[batch]"]],
    # The command itself says what to install where nothing is.
    "gprochat.cli.*": [["gprochat[cli]"]],
    "gprochat.demo": [["gprochat[server]"]],
    "gprochat.gateway*": [["gprochat[gateway]"]],
    # llm is not installed here; tests/clients/ has it in an environment of its own.
    "gprochat.llm_plugin": [],
    "gprochat.provider": [["gprochat[aiohttp]"]],
    # pytest loads it wherever the project is installed, with whichever extra.
    "gprochat.pytest_plugin": [["pytest"]],
    "gprochat.server*": [["gprochat[server]"]],
}

IMPORT: Final = """
import json, sys
before = set(sys.modules)
loaded = dict()
for module in {modules!r}:
    for name in [name for name in sys.modules if name.startswith("gprochat")]:
        del sys.modules[name]
    __import__(module)
    loaded[module] = sorted(sys.modules.keys() - before)
print(json.dumps(loaded))
"""
"""Imports each module into a process that has no module of this project yet. The libraries that an
earlier one loaded stay loaded, which is quicker and hides nothing: others cannot be imported."""


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, by absolute name, wherever in it the import stands."""
    package = path.parent.relative_to(SRC).parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                file = SRC.joinpath(*module.split("."), f"{alias.name}.py")
                yield f"{module}.{alias.name}" if file.exists() else module


def name_of(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_the_core_imports_itself_and_what_is_pure(path: Path) -> None:
    foreign = {name for name in imports(path) if name.partition(".")[0] != "gprochat_core"}
    assert foreign <= PURE


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_the_core_uses_nothing_impure_that_needs_no_import(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert not names & IMPURE_NAMES
    assert not attributes & IMPURE_ATTRIBUTES


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_the_core_has_no_async(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not isinstance(
            node, (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
        ), f"line {node.lineno}"
        assert not (isinstance(node, ast.comprehension) and node.is_async)


def test_every_file_of_the_core_has_its_layer() -> None:
    assert {path.stem for path in CORE} == {*LAYERS, "__init__"}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_file_of_the_core_imports_only_layers_below_it(layer: str) -> None:
    own = {name for name in imports(SRC / "gprochat_core" / f"{layer}.py") if "gprochat" in name}
    below = LAYERS[: LAYERS.index(layer)]
    assert own <= {f"gprochat_core.{name}" for name in below}


def test_importing_the_core_touches_no_io_and_no_randomness() -> None:
    loaded = modules_loaded_by(["gprochat_core"], [])["gprochat_core"]
    assert "gprochat_core.exchange" in loaded
    assert not set(loaded) & FORBIDDEN_IN_THE_CORE
    assert not any(name.startswith("gprochat_transports") for name in loaded)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_no_adapter_imports_another(adapter: str) -> None:
    others = tuple(f"gprochat_transports.{name}" for name in ADAPTERS if name != adapter)
    for path in (SRC / "gprochat_transports" / adapter).glob("*.py"):
        assert not [name for name in imports(path) if name.startswith(others)]


def installations(module: str) -> list[list[str]]:
    """What may be installed for a module to be imported; nothing for most."""
    return next((needed for names, needed in NEEDS.items() if fnmatch(module, names)), [[]])


INSTALLATIONS: Final = [
    list(each)
    for each in sorted({tuple(one) for module in TRANSPORTS for one in installations(module)})
]


@pytest.mark.parametrize("installed", INSTALLATIONS, ids=lambda each: "-".join(each) or "nothing")
def test_a_module_needs_no_library_but_its_own(installed: list[str]) -> None:
    modules = [module for module in TRANSPORTS if installed in installations(module)]
    adapters = {f"gprochat_transports.{adapter}" for adapter in ADAPTERS}
    for module, loaded in modules_loaded_by(modules, installed).items():
        assert module in loaded
        room = ".".join(module.split(".")[:2])
        if room in adapters:
            assert adapters & set(loaded) == {room}


def test_what_a_module_needs_is_told_of_modules_that_exist() -> None:
    for names in NEEDS:
        assert any(fnmatch(module, names) for module in TRANSPORTS)


def modules_loaded_by(modules: Iterable[str], installed: Iterable[str]) -> dict[str, list[str]]:
    """Import modules where only some libraries are installed; say what each import loads."""
    output = output_with(installed, IMPORT.format(modules=list(modules)))
    return cast("dict[str, list[str]]", json.loads(output))
