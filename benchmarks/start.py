"""Start: how much processor time does importing take, and what comes with it?"""

import os
import subprocess
from collections.abc import Callable

from .environments import python
from .measure import Report, Settings, Turns, alone
from .processes import ENVIRONMENT

NOTHING = "pass"
CORE = "import gprochat_core"
TRIO = "import gprochat_transports.trio"
BARE_TRIO = "import trio, h11, ssl"

SERIES = "processor time of a start, ms"


def seconds(code: str) -> float:
    """Processor time of an interpreter that runs the code and ends."""
    process = subprocess.Popen([python("gprochat"), "-s", "-c", code], env=ENVIRONMENT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"failed: {code}")
    return usage.ru_utime + usage.ru_stime


def import_times(code: str) -> list[str]:
    """The lines of `-X importtime` that importing this brings, the interpreter's own left out."""

    def lines(code: str) -> list[str]:
        run = subprocess.run(
            [python("gprochat"), "-s", "-X", "importtime", "-c", code],
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        )
        return run.stderr.splitlines()

    own = {line.rpartition("|")[2].strip() for line in lines(NOTHING)}
    return [line for line in lines(code) if line.rpartition("|")[2].strip() not in own]


def run(settings: Settings) -> Report:
    report = Report("start")
    turns = Turns[str]()

    def of(code: str) -> Callable[[], float]:
        return lambda: seconds(code)

    # One of its own first: it compiles what is not compiled yet.
    for code in (CORE, TRIO):
        seconds(code)
    turns.take(
        int(settings.either(5, 15)), {code: of(code) for code in (NOTHING, CORE, BARE_TRIO, TRIO)}
    )
    pairs = zip(turns.values[CORE], turns.values[NOTHING], strict=True)
    above = [(one - other) * 1e3 for one, other in pairs]
    report.at_most(f"`{CORE}` above a bare interpreter", 15, above, " ms")
    report.at_most(f"`{TRIO}` / `{BARE_TRIO}`", 1.1, turns.ratios(TRIO, BARE_TRIO))
    for code, values in turns.values.items():
        report.figure(SERIES, f"`{code}`", [value * 1e3 for value in values])
    report.notes.append(
        f"`python -X importtime -c '{CORE}'`, without what the interpreter itself imports:\n\n"
        "```\n" + "\n".join(import_times(CORE)) + "\n```"
    )
    return report


if __name__ == "__main__":
    alone(run)
