"""The core: what do parsing, signing and request building cost beside the bare functions?

By pyperf, in processes of its own, for some rounds; the cases are in `core_cases.py`.
"""

import json
import subprocess
import tempfile
from pathlib import Path
from statistics import median

from .environments import HERE, python
from .measure import Report, Settings, alone
from .processes import ENVIRONMENT

SCRIPTS = ("ASCII", "Russian", "Chinese", "emoji")
SMALL_READS = 1000

SERIES = "core, µs"


def round_of_pyperf(settings: Settings) -> dict[str, float]:
    """Seconds of each case."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "cases.json"
        subprocess.run(
            [
                *(python("gprochat"), "-m", "benchmarks.core_cases", "--quiet", "-o", str(output)),
                *("--processes=1", "--warmups=1", "--copy-env"),
                f"--values={settings.either(2, 5):g}",
                f"--min-time={settings.either(0.005, 0.02)}",
            ],
            cwd=HERE.parent,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        suite = json.loads(output.read_text())
    shared = suite.get("metadata", {})
    return {
        (shared | one.get("metadata", {}))["name"]: median(
            value for run in one["runs"] for value in run.get("values", ())
        )
        for one in suite["benchmarks"]
    }


def run(settings: Settings) -> Report:
    report = Report("core")
    rounds = [round_of_pyperf(settings) for _ in range(2 if settings.quick else 5)]

    def ratios(name: str) -> list[float]:
        return [one[name] / one[f"bare {name}"] for one in rounds]

    for script in SCRIPTS:
        name = f"parse, 64 KiB, {script}"
        throughputs = [1 / ratio for ratio in ratios(name)]
        report.at_least(f"{name}: throughput / bare incremental decoder's", 0.9, throughputs)
    for script in SCRIPTS:
        name = f"parse, 11 bytes, {script}"
        above = [(one[name] - one[f"bare {name}"]) / SMALL_READS * 1e6 for one in rounds]
        report.at_most(f"{name}: a read above the bare decoder", 0.5, above, " µs")
    for size in ("1 KiB", "1 MiB"):
        report.at_most(f"sign, {size} / bare hashlib", 1.1, ratios(f"sign, {size}"))
    for script in ("ASCII", "Russian"):
        report.at_most(
            f"build a request for 1 KiB, {script} / json.dumps + hashlib",
            2,
            ratios(f"build, {script}"),
        )
    for name in rounds[0]:
        report.figure(SERIES, name, [one[name] * 1e6 for one in rounds])
    return report


if __name__ == "__main__":
    alone(run)
