"""Services for the command to talk to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gprochat.server import in_thread, serve
from gprochat_core import Service

from .running import stalling_answer


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which a command keeps what it remembers."""
    folder = tmp_path_factory.mktemp("home")
    for name in ("DATA", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(folder / name.lower()))
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    return folder


@pytest.fixture
def service() -> Iterator[Service]:
    """A service that echoes."""
    with in_thread(serve(grace=0.0)) as server:
        yield server.service


@pytest.fixture
def stalling() -> Iterator[Service]:
    """A service whose replies begin, and then stall if the question has the word "wait"."""
    with in_thread(serve(stalling_answer, grace=0.0)) as server:
        yield server.service


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """The path of a history that does not exist yet."""
    return tmp_path / "history.json"
