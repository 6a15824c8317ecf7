"""Mutation testing of the core: change it in some small way, and see whether a test fails.

`python -m tests.mutants` runs mutmut, as pyproject.toml configures it, and counts. The mutants that
no test noticed stand in `build/mutants.txt`, each with what it changed.
"""

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

MUTANTS: Final = Path("mutants")

SURVIVORS: Final = Path("build/mutants.txt")

REQUIRED: Final = 0.9

OUTCOMES: Final = {
    1: "killed",
    0: "survived",
    # The time that they had ran out, in any of the ways in which mutmut notices.
    **dict.fromkeys((36, 24, -24, 152), "timed out"),
}
"""What pytest's exit status says of a mutant. With any other it was not tested at all."""


def outcomes() -> dict[str, str]:
    """What became of each mutant, by name."""
    found: dict[str, str] = {}
    for path in sorted(MUTANTS.rglob("*.meta")):
        for name, status in json.loads(path.read_text("utf-8"))["exit_code_by_key"].items():
            found[name] = OUTCOMES.get(status, f"not tested ({status})")
    return found


def describe(names: list[str]) -> str:
    """What each of these mutants changed, as a diff."""
    show = [sys.executable, "-m", "mutmut", "show"]
    return "\n".join(
        subprocess.run([*show, name], capture_output=True, text=True, check=True).stdout
        for name in names
    )


def main() -> int:
    """Make the mutants, test them, and tell whether enough of them were noticed."""
    shutil.rmtree(MUTANTS, ignore_errors=True)
    began = time.monotonic()
    run = [sys.executable, "-m", "mutmut", "run", "--max-children", "2"]
    log = MUTANTS.with_name("build") / "mutants.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as output:
        status = subprocess.call(run, stdout=output, stderr=subprocess.STDOUT)
    minutes = (time.monotonic() - began) / 60
    found = outcomes()
    survivors = sorted(name for name, outcome in found.items() if outcome == "survived")
    SURVIVORS.write_text(describe(survivors), "utf-8")
    count = Counter(found.values())
    noticed = count["killed"] + count["timed out"]
    told = ", ".join(f"{number} {outcome}" for outcome, number in count.most_common())
    print(f"{len(found)} mutants in {minutes:.0f} minutes: {told or f'see {log}'}")
    if status or not found or noticed + count["survived"] < len(found):
        print(f"mutmut did not test all of them: see {log}")
        return 1
    print(f"{noticed / len(found):.1%} noticed; the others are in {SURVIVORS}")
    return 0 if noticed >= REQUIRED * len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
