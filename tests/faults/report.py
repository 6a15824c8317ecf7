"""Plays the whole fault table over every transport and writes the outcome to `docs/faults.md`:

    python -m tests.faults.report

What stands on that page outside the part that is written here is left as it is.
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from time import monotonic
from typing import Final

from tests.contract.adapters import ADAPTERS, Adapter
from tests.faults.fault import Case, Expected, Fault
from tests.faults.play import play
from tests.faults.slow_reader import stand_still
from tests.faults.table import TABLE

PAGE: Final = Path(__file__).parents[2] / "docs" / "faults.md"

BEGIN: Final = "<!-- written by the command above, from here -->\n"
END: Final = "<!-- to here -->\n"

HOLDS: Final = "✓"
FAILS: Final = "✗"

TEXT_SHOWN: Final = 20
"""Characters of a text that the table shows."""

STANDSTILLS: Final = 5
"""How often a slow reader is measured; the page shows the highest figure."""


class Report:
    """Makes the lines of the page, and notes the cells that fail.

    Attributes:
        failures: a line for each cell that does not hold.
    """

    def __init__(self) -> None:
        self.failures: list[str] = []
        self._notes: dict[str, int] = {}

    def table(self) -> Iterator[str]:
        """The fault table, a part for each group of rows."""
        names = [adapter.name for adapter in ADAPTERS]
        for group, faults in TABLE.items():
            yield f"### {group}\n"
            yield row("the peer", "when", "error", "text", "attempts", *names)
            yield row(*["---"] * (5 + len(names)))
            for fault in faults:
                marks = [self._mark(fault, adapter) for adapter in ADAPTERS]
                for number, (when, cases) in enumerate(moments(fault)):
                    yield row("" if number else fault.what, when, *expectation(cases), *marks)
            yield ""
        for note, number in self._notes.items():
            yield f"[{number}] {note}.\n"

    def slow_readers(self) -> Iterator[str]:
        """What each client holds when its reader stops."""
        yield row("transport", "plain", "TLS")
        yield row("---", "--:", "--:")
        for adapter in ADAPTERS:
            yield row(adapter.name, most_held(adapter, tls=False), most_held(adapter, tls=True))
        yield ""

    def _mark(self, fault: Fault, adapter: Adapter) -> str:
        try:
            play(fault, adapter)
        except Exception as error:
            self.failures.append(f"{fault.what}, {adapter.name}: {error!r}")
            return FAILS
        exceptions = dict.fromkeys(
            (
                "Here it is not played: "
                if expected is None
                else "Here error {}, text {}, attempts {}: ".format(*told(expected))
            )
            + reason
            for case in fault.cases
            for name, (expected, reason) in case.exceptions.items()
            if name == adapter.name
        )
        numbers = [self._notes.setdefault(note, len(self._notes) + 1) for note in exceptions]
        return " ".join([HOLDS, *(f"[{number}]" for number in numbers)])


def most_held(adapter: Adapter, *, tls: bool) -> str:
    """Return the most that a client held of a reply whose reader stopped, in KiB."""
    held = [stand_still(adapter, tls=tls).client for _ in range(STANDSTILLS)]
    # Encrypted bytes in the kernel are a little more than their text, so the sum can be below 0.
    known = [max(0, one) for one in held if one is not None]
    return f"{max(known) / 1024:.0f} KiB" if known else "not known here"


def moments(fault: Fault) -> Iterator[tuple[str, Sequence[Case]]]:
    """Group the cases of a row: those that differ only in the place of a cut are one moment."""
    for when, group in groupby(fault.cases, key=lambda case: case.when):
        cases = list(group)
        places = f"{len(cases)} places" if len(cases) > 1 else ""
        yield ", ".join(filter(None, (when, places))), cases


def expectation(cases: Sequence[Case]) -> tuple[str, str, str]:
    """Error, text and attempts that these cases have in common."""
    columns = {told(case.expected) for case in cases}
    if len(columns) == 1:
        return columns.pop()
    errors, _, attempts = (
        " or ".join(sorted(set(column))) for column in zip(*columns, strict=True)
    )
    return errors, "all that arrived", attempts


def told(expected: Expected) -> tuple[str, str, str]:
    """Error, text and attempts as the page says them."""
    error = "none" if expected.error is None else f"`{expected.error.__name__}`"
    if "limit" in expected.attributes:
        error += f" ({expected.attributes['limit']})"
    text = expected.text
    if len(text) > TEXT_SHOWN:
        text = f"{text[:TEXT_SHOWN]}…"
    return error, f"“{text}”" if text else "none", str(expected.attempts)


def row(*cells: str) -> str:
    """A row of a table in Markdown."""
    escaped = (cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def write(lines: Sequence[str]) -> None:
    """Replace the lines that an earlier run has written into the page."""
    before, begin, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{PAGE} has lost the lines between which this command writes")
    PAGE.write_text("".join([before, begin, *(f"{line}\n" for line in lines), end, after]), "utf-8")


def main() -> int:
    """Play, write, and return 1 where a cell does not hold."""
    begun = monotonic()
    report = Report()
    table = list(report.table())
    slow_readers = list(report.slow_readers())
    faults = [fault for group in TABLE.values() for fault in group]
    calls = sum(len(fault.cases) for fault in faults)
    cells = len(faults) * len(ADAPTERS)
    summary = (
        f"{len(faults)} rows over {len(ADAPTERS)} transports are {cells} cells, in which "
        f"{calls * len(ADAPTERS)} calls meet a fault. Of the cells "
        f"{cells - len(report.failures)} hold, {len(report.failures)} do not. "
        f"It took {monotonic() - begun:.0f} s."
    )
    print(summary, *report.failures, sep="\n")
    measured = (
        "What a client has taken of a reply of 12 MiB, and not given to its reader, once the "
        f"sender stands still: the most of {STANDSTILLS} times. What waits in the kernel is not "
        "counted."
    )
    write(["", summary, "", *table, "## A reader that stops", "", measured, "", *slow_readers])
    return bool(report.failures)


if __name__ == "__main__":
    sys.exit(main())
