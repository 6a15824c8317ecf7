"""Measuring in turn: A B B A, the ratio of each pair, and whether their median meets a target.

Figures drift from minute to minute, so only ratios of neighbouring measurements are judged.
"""

import argparse
import sys
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from statistics import median
from typing import Generic, TypeVar

Who = TypeVar("Who", bound=Hashable)


@dataclass(frozen=True)
class Settings:
    """How thorough a run is."""

    quick: bool

    @property
    def rounds(self) -> int:
        return 1 if self.quick else 5

    def either(self, quick: float, full: float) -> float:
        return quick if self.quick else full


@dataclass
class Row:
    """One line of the table: a target and what was measured."""

    question: str
    what: str
    target: str
    result: str
    met: bool | None

    @property
    def verdict(self) -> str:
        return {True: "met", False: "missed", None: ""}[self.met]


@dataclass
class Report:
    """What a question found."""

    title: str
    rows: list[Row] = field(default_factory=list)
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    """Medians as they were measured, for orientation and the charts: series, then label."""
    notes: list[str] = field(default_factory=list)

    def at_most(self, what: str, limit: float, values: list[float], unit: str = "") -> None:
        """Judge a ratio, or a figure with its unit, that should be small."""
        self._judge(what, f"≤ {limit:g}{unit}", values, median(values) <= limit, unit)

    def at_least(self, what: str, limit: float, values: list[float]) -> None:
        """Judge a ratio that should be large."""
        self._judge(what, f"≥ {limit:g}", values, median(values) >= limit, "")

    def _judge(self, what: str, target: str, values: list[float], met: bool, unit: str) -> None:
        digits = 2 if unit else 3
        result = (
            f"{median(values):.{digits}f}{unit} "
            f"({min(values):.{digits}f} to {max(values):.{digits}f})"
        )
        row = Row(self.title, what, target, result, met)
        self.rows.append(row)
        print(f"  {row.verdict:7} {row.what}: {row.target}, is {row.result}", flush=True)

    def figure(self, series: str, label: str, values: list[float]) -> None:
        self.figures.setdefault(series, {})[label] = median(values)


class Turns(Generic[Who]):
    """What was measured of each, round by round."""

    def __init__(self) -> None:
        self.values: dict[Who, list[float]] = {}

    def take(self, rounds: int, measures: dict[Who, Callable[[], float]]) -> None:
        """Measure each in turn, for some rounds."""
        for number in range(rounds):
            # Forth and back, so that no client always follows the same one.
            turn = list(measures.items())
            for who, measure in turn if number % 2 == 0 else reversed(turn):
                self.values.setdefault(who, []).append(measure())

    def ratios(self, one: Who, other: Who) -> list[float]:
        """One by the other, round by round."""
        return [a / b for a, b in zip(self.values[one], self.values[other], strict=True)]


def alone(run: Callable[[Settings], Report]) -> None:
    """Run one question by itself."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    report = run(Settings(parser.parse_args().quick))
    for series, figures in report.figures.items():
        print(f"  {series}")
        for label, figure in figures.items():
            print(f"    {label}: {figure:.4g}")
    for note in report.notes:
        print(f"  {note}")
