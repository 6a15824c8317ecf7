"""How far a batch is: a bar on a terminal, a line now and then elsewhere.

A terminal that cannot move its cursor gets the lines too.
"""

import sys
from collections import deque
from dataclasses import dataclass
from math import ceil
from typing import Final

import click

from gprochat_core import GPROChatError

from .output import can_move_cursor, is_terminal
from .waiting import cause

__all__ = ["Meter", "Progress", "State", "choose_progress", "duration"]

WINDOW: Final = 30.0
"""Seconds over which the rate is measured."""

LINES_EVERY: Final = 10.0
"""Seconds between two lines."""


@dataclass(frozen=True, slots=True)
class State:
    """Where a batch is.

    Attributes:
        answered: how many prompts have been answered, in earlier runs too.
        failed: how many have failed.
        total: how many prompts there are; None if that is not known.
        concurrency: how many calls may be under way.
        pause: for how many more seconds all calls pause; 0 if they do not.
        refusal: why they pause.
    """

    answered: int
    failed: int
    total: int | None
    concurrency: int
    pause: float = 0.0
    refusal: GPROChatError | None = None

    @property
    def done(self) -> int:
        """How many prompts have been answered or have failed."""
        return self.answered + self.failed


class Meter:
    """Measures how many prompts are done in a second, over the last half minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def take(self, now: float, done: int) -> float | None:
        """Return the rate; None while it is not known yet.

        Args:
            now: the time, in seconds.
            done: how many prompts are done.
        """
        seen = self._seen
        seen.append((now, done))
        while seen[0][0] < now - WINDOW:
            seen.popleft()
        begin, before = seen[0]
        return (done - before) / (now - begin) if now - begin >= 1 else None


def describe(state: State, rate: float | None) -> tuple[str, str, str]:
    """Return in words how many are done, how fast it goes, and what is waited for."""
    of = "" if state.total is None else f" of {state.total}"
    done = f"{state.done}{of} done, {state.failed} failed"
    speed = f"{state.concurrency} at once"
    if rate is not None:
        speed = f"{rate:.3g}/s, {speed}"
        if rate and state.total is not None:
            speed += f", {duration((state.total - state.done) / rate)} left"
    waiting = ""
    if state.pause > 0 and state.refusal is not None:
        waiting = f"waiting {duration(ceil(state.pause))}: {cause(state.refusal)}"
    return done, speed, waiting


def duration(seconds: float) -> str:
    """Return a time in words: `5 s`, `3 min 5 s`, `2 h 3 min`."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {left} min"
    return f"{minutes} min {rest} s" if minutes else f"{whole} s"


class Progress:
    """Shows how far a batch is. This class shows nothing."""

    def show(self, state: State, now: float) -> None:
        """Show a state; called often.

        Args:
            state: where the batch is.
            now: the time, in seconds.
        """

    def say(self, line: str) -> None:
        """Print a line."""

    def close(self) -> None:
        """End the display."""


class PlainProgress(Progress):
    """Prints a line now and then."""

    def __init__(self) -> None:
        self._meter = Meter()
        self._next: float | None = None

    def show(self, state: State, now: float) -> None:
        """Print a line if it is time to."""
        rate = self._meter.take(now, state.done)
        if self._next is None:
            self._next = now + LINES_EVERY
        elif now >= self._next:
            self._next = now + LINES_EVERY
            words = ", ".join(part for part in describe(state, rate) if part)
            self.say(words)

    def say(self, line: str) -> None:
        """Print a line."""
        click.echo(line, err=True)


class BarProgress(Progress):
    """Draws a bar on the last line of the terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        self._meter = Meter()
        self._bar = Bar(
            BarColumn(bar_width=20),
            TextColumn("{task.fields[words]}", markup=False),
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, words="")
        self._bar.start()

    def show(self, state: State, now: float) -> None:
        """Draw the bar."""
        done, speed, waiting = describe(state, self._meter.take(now, state.done))
        self._bar.update(
            self._task,
            completed=state.done,
            total=state.total,
            # The reason for waiting comes before the speed, in case the line is too short for all.
            words=", ".join(part for part in (done, waiting, speed) if part),
        )
        self._bar.refresh()

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(line, markup=False, highlight=False)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.stop()


def choose_progress(*, quiet: bool) -> Progress:
    """Return the display that fits standard error."""
    if quiet:
        return Progress()
    return BarProgress() if is_terminal(sys.stderr) and can_move_cursor() else PlainProgress()
