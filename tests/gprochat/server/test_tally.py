"""Counts of what is turned away, one line a minute."""

import pytest

from gprochat.server import tally
from gprochat.server.tally import Tally


def test_what_is_turned_away_takes_one_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 5.0
    monkeypatch.setattr(tally, "monotonic", lambda: now)
    counts = Tally()
    for second in range(180):
        now = 5.0 + second
        for _ in range(10):
            counts.count("cats")
        counts.count("dogs")
    assert caplog.messages == [
        "turned away: 1 cats",
        "turned away: 600 cats, 60 dogs",
        "turned away: 600 cats, 60 dogs",
    ]
    assert {each.name for each in caplog.records} == {"gprochat.server"}


def test_the_rest_is_in_the_last_line(caplog: pytest.LogCaptureFixture) -> None:
    counts = Tally()
    for _ in range(5):
        counts.count("cats")
    counts.flush()
    counts.flush()
    assert caplog.messages == ["turned away: 1 cats", "turned away: 4 cats"]
