"""The reference is generated without a warning, and describes every public name."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

MODULES = [
    "gprochat",
    "gprochat.batch",
    "gprochat.client",
    "gprochat.provider",
    "gprochat.pytest_plugin",
    "gprochat.server",
    "gprochat_core",
    "gprochat_transports",
    "gprochat_transports.aiohttp",
    "gprochat_transports.environment",
    "gprochat_transports.extras",
    "gprochat_transports.http11.network",
    "gprochat_transports.http11.transport",
    "gprochat_transports.httpx",
    "gprochat_transports.pool",
    "gprochat_transports.trio",
    "gprochat_transports.watchdog",
]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    command = [sys.executable, str(ROOT / "docs" / "reference.py"), str(folder)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return folder


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_describes_every_public_name(reference: Path, module: str) -> None:
    page = (reference / f"{module.replace('.', '/')}.html").read_text(encoding="utf-8")
    names = importlib.import_module(module).__all__
    assert [name for name in names if f'id="{name}"' not in page] == []


def test_the_reference_needs_nothing_from_the_network(reference: Path) -> None:
    pages = [path.read_text(encoding="utf-8") for path in reference.rglob("*.html")]
    assert pages
    assert [page for page in pages if 'src="http' in page or 'rel="stylesheet"' in page] == []
