"""The recorded session is what the command shows now."""

import pytest

from tests.docs.pages import ROOT


def test_the_recording_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    import recording

    current = recording.FILE.read_text(encoding="utf-8")
    assert current == recording.record(), "run: python docs/recording.py"
