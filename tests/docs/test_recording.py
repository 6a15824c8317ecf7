"""The recorded session is what the command shows now."""

from docs import recording


def test_the_recording_is_current() -> None:
    current = recording.FILE.read_text(encoding="utf-8")
    assert current == recording.record(), "run: python docs/recording.py"
