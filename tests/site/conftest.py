"""The built site: what is in it, and how it looks and works in a browser.

`nox -s docs` builds the site into `build/docs` and runs these tests in the same environment.
Elsewhere none of them is collected.
"""

import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT

collect_ignore_glob = [] if find_spec("playwright") else ["test_*.py"]

SITE = ROOT / "build" / "docs"

FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--no-sandbox",
]
"""As root, Chromium does not start with its sandbox. The others keep it off the network."""


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the built site."""
    assert (SITE / "index.html").is_file(), "run: make docs"
    return SITE


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(site: Path, browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page of the site from its file; at the end no page may have reported an error."""
    errors: list[str] = []
    contexts: list[Any] = []

    def visit(path: str, **options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(f"{path}: {error}"))
        page.on("requestfailed", lambda request: errors.append(f"{path}: {request.url}"))
        page.on(
            "console",
            lambda message: (
                errors.append(f"{path}: {message.text}") if message.type == "error" else None
            ),
        )
        page.goto(f"{site.as_uri()}/{path}")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert errors == []
