"""Starts a peer and a worker for each adapter, and prints a table of the results.

Environment variables change the run: `SOAK_CALLS` (calls on each adapter, 20000), `SOAK_STREAMS`
(calls at once, 200), `SOAK_TRANSPORTS` (names of adapters with commas between; all of them).
"""

import json
import os
import subprocess
import sys
from typing import Final

from tests.contract.adapters import ADAPTERS
from tests.soak.peer import in_a_process
from tests.soak.worker import Result

__all__ = ["main", "problems"]

MOST_MEMORY: Final = 5 * 1024 * 1024
"""Bytes that may be gained after the warm-up."""

SHOWN: Final = 10
"""How many wrong outcomes are shown for a transport."""


def problems(result: Result) -> list[str]:
    """Return a line for everything that a result must not have."""
    found = result.wrong[:SHOWN]
    if len(result.wrong) > SHOWN:
        found.append(f"... and {len(result.wrong) - SHOWN} more")
    if result.files > 0:
        found.append(f"{result.files} file descriptors are left open")
    if result.memory > MOST_MEMORY:
        found.append(f"memory has grown by {result.memory} bytes")
    return found


def soak(transport: str, calls: str, streams: str) -> Result:
    """Run one transport's calls in a process of their own, against a peer in another process."""
    with in_a_process() as url:
        command = [sys.executable, "-m", "tests.soak.worker", transport, url, calls, streams]
        worker = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Result(**json.loads(worker.stdout))


def main() -> int:
    """Run the soak; return 1 if anything was not as it must be."""
    calls = os.environ.get("SOAK_CALLS", "20000")
    streams = os.environ.get("SOAK_STREAMS", "200")
    names = [adapter.name for adapter in ADAPTERS]
    chosen = [name for name in os.environ.get("SOAK_TRANSPORTS", "").split(",") if name] or names
    print(f"{calls} calls on each transport over {streams} streams, a fault in every third")
    print("| transport | faults | wrong | seconds | calls/s | files left | memory growth |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    failed = False
    for name in chosen:
        result = soak(name, calls, streams)
        print(
            f"| {name} | {result.faults} | {len(result.wrong)} | {result.seconds:.0f} "
            f"| {result.calls / result.seconds:.0f} | {result.files} "
            f"| {result.memory / 1024 / 1024:.1f} MiB |",
            flush=True,
        )
        for problem in problems(result):
            failed = True
            print(f"  {name}: {problem}", file=sys.stderr, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
