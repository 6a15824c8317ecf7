"""All questions, or some: `python -m benchmarks [question ...] [--quick]`.

Prints each target beside its result. A full run of all questions writes RESULTS.md and the charts.
"""

import argparse
import os
import platform
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from . import (
    batch,
    blocking,
    charts,
    core,
    first_text,
    gateway,
    growth,
    live,
    memory,
    ray,
    shares,
    start,
    whole,
)
from .environments import ENVIRONMENTS, HERE, python, versions
from .measure import Report, Settings

QUESTIONS = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        *(live, whole, first_text, blocking, gateway, batch, ray),
        *(core, growth, memory, start, shares),
    )
}

MEASURED = (
    *("aiohttp", "anyio", "h11", "httpcore", "httpcore2", "httpx", "httpx2", "trio", "uvloop"),
    *("g4f", "litellm", "openai", "pyperf", "ray"),
)


def processor() -> str:
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()


def table(reports: list[Report]) -> list[str]:
    rows = [row for report in reports for row in report.rows]
    return [
        "| question | what | target | result: median (lowest to highest) | |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {row.question} | {row.what} | {row.target} | {row.result} | {row.verdict} |"
            for row in rows
        ),
    ]


def results(reports: list[Report], minutes: float) -> str:
    rows = [row for report in reports for row in report.rows]
    summary = (
        f"{datetime.now(UTC):%Y-%m-%d}: {sum(row.met is True for row in rows)} of {len(rows)} "
        f"targets met, in {minutes:.0f} minutes. {processor()}, {os.cpu_count()} cores, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}. "
        "What is measured and how, and what explains the misses: README.md."
    )
    lines = [
        "# Results",
        "",
        summary,
        "",
        *table(reports),
        "",
        "![Live streams that one core holds](charts/streams.svg)",
        "",
        "![Processor time of a piece and the number of streams](charts/pieces.svg)",
        "",
        "![Building a request and the length of the conversation](charts/growth.svg)",
        "",
        "## Notes",
        "",
        *(f"- {note}" for report in reports for note in report.notes),
        "",
        "## Figures",
        "",
        "Medians as they were measured, for orientation: they drift from run to run.",
    ]
    for report in reports:
        for series, figures in report.figures.items():
            lines += ["", f"### {series[0].upper()}{series[1:]}", "", "| | |", "| --- | ---: |"]
            lines += [f"| {label} | {figure:.4g} |" for label, figure in figures.items()]
    lines += ["", "## Versions", "", "| environment | |", "| --- | --- |"]
    for environment in ENVIRONMENTS:
        found = versions(environment)
        lines.append(
            f"| {environment} | "
            + ", ".join(f"{name} {found[name]}" for name in MEASURED if name in found)
            + " |"
        )
    return "\n".join(lines) + "\n"


def by_number(figures: Mapping[str, float]) -> dict[str, list[tuple[float, float]]]:
    """Labels "name, 100 streams" as lines by name."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for label, figure in figures.items():
        name, _, number = label.rpartition(", ")
        lines.setdefault(name, []).append((float(number.split()[0]), figure))
    return {name: sorted(points) for name, points in lines.items()}


def draw(reports: list[Report]) -> None:
    figures = {series: each for report in reports for series, each in report.figures.items()}
    pieces = by_number(figures[live.SERIES])
    most = {
        name: dict(points).get(100, points[0][1])
        for name, points in pieces.items()
        if not name.endswith(live.NEW)
    }
    folder = HERE / "charts"
    folder.mkdir(exist_ok=True)
    (folder / "streams.svg").write_text(
        charts.bars(
            f"Live streams, {live.PACE} pieces a second each, that one core holds",
            {name: 1e6 / live.PACE / cost for name, cost in most.items()},
        )
    )
    (folder / "pieces.svg").write_text(
        charts.lines(
            "Processor time of a piece", "streams", "µs", {n: p for n, p in pieces.items() if p[1:]}
        )
    )
    (folder / "growth.svg").write_text(
        charts.lines(
            "Building the request of a turn", "turns", "ms", by_number(figures[growth.SERIES])
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "questions", nargs="*", metavar="question", help=f"{', '.join(QUESTIONS)}; default: all"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short round; nothing is written to files"
    )
    arguments = parser.parse_args()
    chosen: list[str] = arguments.questions or list(QUESTIONS)
    if unknown := sorted(set(chosen) - set(QUESTIONS)):
        parser.error(f"no such question: {', '.join(unknown)}; there are {', '.join(QUESTIONS)}")
    settings = Settings(arguments.quick)
    if len(chosen) == len(QUESTIONS):
        # Not within the time that is measured.
        for environment in ENVIRONMENTS:
            python(environment)
    begin = time.monotonic()
    reports: list[Report] = []
    for question in map(QUESTIONS.__getitem__, chosen):
        print((question.__doc__ or "").partition("\n")[0], flush=True)
        reports.append(question.run(settings))
    minutes = (time.monotonic() - begin) / 60
    print("\n" + "\n".join(table(reports)))
    for report in reports:
        if report.title in ("live streams", "first text", "gateway"):
            print("\n" + "\n".join(report.notes))
    if not settings.quick and len(chosen) == len(QUESTIONS):
        draw(reports)
        (HERE / "RESULTS.md").write_text(results(reports, minutes))
    print(f"\n{minutes:.1f} minutes")


if __name__ == "__main__":
    main()
