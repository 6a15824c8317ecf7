"""Start: how much processor time does importing take, and which modules does it bring?"""

import os
import subprocess
from collections.abc import Callable

from .environments import python
from .measure import Report, Settings, Turns, alone
from .processes import ENVIRONMENT

NOTHING = "pass"
CORE = "import gprochat_core"
STANDARD = "what it uses of the standard library"
TRIO = "import gprochat_transports.trio"
BARE_TRIO = "import trio, h11, ssl"

SERIES = "processor time of a start, ms"
IMPORTS = "processor time of an import, ms"

NEW_MODULES = f"""
import sys
before = set(sys.modules)
{CORE}
print(*(name for name in sys.modules if name not in before))
"""


def seconds(code: str) -> float:
    """Processor time of an interpreter that runs the code and ends."""
    process = subprocess.Popen([python("gprochat"), "-s", "-c", code], env=ENVIRONMENT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"failed: {code}")
    return usage.ru_utime + usage.ru_stime


def standard_library() -> str:
    """Return the code that imports each module of the standard library that the core imports."""
    modules = [name for name in output(NEW_MODULES).split() if not name.startswith("gprochat")]
    return f"import {', '.join(modules)}"


def import_seconds(code: str) -> float:
    """Processor time of an import in a new interpreter, without the interpreter's own start."""
    clock = "import time; begin = time.process_time()"
    return float(output(f"{clock}; {code}; print(time.process_time() - begin)"))


def output(code: str) -> str:
    """Return what an interpreter prints that runs the code."""
    command = [python("gprochat"), "-s", "-c", code]
    return subprocess.run(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def import_times(code: str) -> list[str]:
    """Return the lines of `-X importtime` for the code, without those of a bare interpreter."""

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

    # The first run compiles what is not compiled yet.
    for code in (CORE, TRIO):
        seconds(code)
    rounds = int(settings.either(5, 15))
    turns.take(rounds, {code: of(code) for code in (NOTHING, CORE, BARE_TRIO, TRIO)})
    imports = Turns[str]()
    library = standard_library()
    imports.take(
        rounds, {STANDARD: lambda: import_seconds(library), CORE: lambda: import_seconds(CORE)}
    )
    report.at_most(f"`{CORE}` / {STANDARD}", 1.2, imports.ratios(CORE, STANDARD))
    report.at_most(f"`{TRIO}` / `{BARE_TRIO}`", 1.1, turns.ratios(TRIO, BARE_TRIO))
    for what, values in imports.values.items():
        report.figure(IMPORTS, what, [value * 1e3 for value in values])
    for code, values in turns.values.items():
        report.figure(SERIES, f"`{code}`", [value * 1e3 for value in values])
    report.notes.append(
        f"`python -X importtime -c '{CORE}'`, without what the interpreter itself imports:\n\n"
        "```\n" + "\n".join(import_times(CORE)) + "\n```"
    )
    return report


if __name__ == "__main__":
    alone(run)
