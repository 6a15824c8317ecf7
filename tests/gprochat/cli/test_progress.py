"""What is said of how far a batch is."""

import sys
from contextlib import closing
from io import StringIO

import pytest

from gprochat.cli.progress import Meter, PlainProgress, Progress, State, choose_progress, duration
from gprochat_core import RateLimited


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7380, "2 h 3 min")],
)
def test_a_duration_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_the_rate_is_that_of_the_last_half_minute() -> None:
    meter = Meter()
    assert meter.take(0.0, 100) is None
    assert meter.take(10.0, 200) == 10.0
    assert meter.take(35.0, 225) == 1.0


def test_lines_now_and_then_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress = choose_progress(quiet=False)
    assert isinstance(progress, PlainProgress)
    for second in range(25):
        failed = second // 2
        progress.show(State(second - failed, failed, total=100, concurrency=8), float(second))
    assert capsys.readouterr().err.splitlines() == [
        "10 of 100 done, 5 failed, 1/s, 8 at once, 1 min 30 s left",
        "20 of 100 done, 10 failed, 1/s, 8 at once, 1 min 20 s left",
    ]


def test_a_line_says_what_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    progress = PlainProgress()
    state = State(5, 0, total=None, concurrency=4, pause=61.5, refusal=RateLimited("slowly"))
    for second in (0.0, 10.0):
        progress.show(state, second)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "5 done, 0 failed, 0/s, 4 at once, waiting 1 min 2 s: rate limited"


class FakeTerminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_standard_error_says_all_that_a_line_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = FakeTerminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    # Without colors, the part that is not done is not drawn.
    for name, value in (("TERM", "xterm"), ("COLUMNS", "120"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    with closing(choose_progress(quiet=False)) as progress:
        progress.show(State(5, 0, total=40, concurrency=8), 0.0)
        state = State(10, 10, 40, concurrency=4, pause=61.5, refusal=RateLimited("slowly"))
        progress.show(state, 10.0)
        progress.say("ending")
    words = "20 of 40 done, 10 failed, waiting 1 min 2 s: rate limited, 1.5/s, 4 at once, 13 s left"
    # Half of the bar's 20 columns, and a space between the bar and the words.
    assert 10 * "━" + 11 * " " + words in terminal.getvalue()
    assert "ending" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress = choose_progress(quiet=True)
    assert type(progress) is Progress
    for second in (0.0, 100.0):
        progress.show(State(5, 0, total=9, concurrency=4), second)
    progress.say("anything")
    progress.close()
    assert capsys.readouterr().err == ""
