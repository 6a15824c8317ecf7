"""Run the harnesses under atheris, one after the other: `python -m tests.fuzz SECONDS`.

What atheris finds interesting goes to `build/fuzz/<target>/corpus/`, from where the next run goes
on. An input that fails is written beside it; `python -m tests.fuzz TARGET FILE` repeats it.
"""

import re
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Final

CORPUS: Final = Path(__file__).parent / "corpus"

BUILD: Final = Path("build/fuzz")

LIMITS: Final = ["-max_len=4096", "-timeout=10", "-rss_limit_mb=1024"]
"""Bytes of an input, seconds for it, and memory for all."""


def fuzz(target: str, arguments: list[str]) -> None:
    """Fuzz one target in this process, until libFuzzer ends it."""
    atheris: Any = import_module("atheris")
    # What is imported before is not instrumented, and atheris would search blindly.
    with atheris.instrument_imports(include=["gprochat_core", "tests.fuzz"]):
        targets = import_module("tests.fuzz.targets")
    atheris.Setup([sys.argv[0], *arguments], targets.TARGETS[target])
    atheris.Fuzz()


def run(target: str, seconds: int) -> bool:
    """Fuzz one target in a process of its own, and tell what came of it."""
    build = BUILD / target
    (build / "corpus").mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", f"-artifact_prefix={build}/", "-print_final_stats=1"]
    command = [sys.executable, "-m", "tests.fuzz", target, *options, *LIMITS]
    log = build / "log"
    began = time.monotonic()
    with log.open("wb") as output:
        status = subprocess.call(
            [*command, str(build / "corpus"), str(CORPUS / target)],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    took = time.monotonic() - began
    said = log.read_text("utf-8", "replace")
    executions = re.search(r"number_of_executed_units: (\d+)", said)
    covered = re.findall(r"cov: (\d+)", said)
    if status or not executions or not covered:
        print(f"{target}: failed after {took:.0f} s, see {log}", flush=True)
        return False
    print(
        f"{target}: {int(executions[1]):,} executions in {took:.0f} s, "
        f"from {covered[0]} to {covered[-1]} branches, nothing found",
        flush=True,
    )
    return True


def main() -> int:
    """Fuzz the target that is named, or all of them for as many seconds as are given."""
    targets = sorted(folder.name for folder in CORPUS.iterdir() if folder.is_dir())
    if sys.argv[1] in targets:
        fuzz(sys.argv[1], sys.argv[2:])
    results = [run(target, max(1, int(sys.argv[1]) // len(targets))) for target in targets]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
