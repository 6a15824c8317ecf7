"""The processes of a run: the peer, and one for each client, which wait for their turn."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from .environments import HERE, python

ENVIRONMENT = {
    **os.environ,
    # Modules are compiled once, as those of an installed package are, and not in each process.
    "PYTHONDONTWRITEBYTECODE": "",
    "PYTHONPYCACHEPREFIX": str(HERE / ".envs" / "compiled"),
    # The code of this checkout is measured, or of the one that BENCH_SOURCE names.
    "PYTHONPATH": os.environ.get("BENCH_SOURCE", str(HERE.parent / "src")),
    # A proxy would be measured too.
    "NO_PROXY": "127.0.0.1",
}


@dataclass(frozen=True)
class Subject:
    """A client as it is measured: its name in the report, its file, its loop, its environment."""

    name: str
    client: str
    loop: str = "asyncio"
    environment: str = "gprochat"


class Process:
    """A program of this folder, until the block is left."""

    def __init__(self, environment: str, *arguments: str) -> None:
        command = [python(environment), "-m", *arguments]
        self._name = " ".join(command)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE.parent,
            env=ENVIRONMENT,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def line(self) -> str:
        assert self._process.stdout
        if line := self._process.stdout.readline():
            return line
        raise RuntimeError(f"{self._name} failed")

    def ask(self, task: str, **arguments: object) -> dict[str, float]:
        """Have the program do a task, and return what it measured."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"task": task, **arguments}) + "\n")
        self._process.stdin.flush()
        result: dict[str, float] = json.loads(self.line())
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Worker(Process):
    """The process of one client.

    Args:
        subject: the client.
        settled: whether its allocator is brought to the state of one that has run for a while;
            if not, it is as its imports leave it.
    """

    def __init__(self, subject: Subject, *, settled: bool = True) -> None:
        state = "settled" if settled else "new"
        super().__init__(
            subject.environment, "benchmarks.worker", subject.client, subject.loop, state
        )


class Peer(Process):
    """The streaming peer's process."""

    def __init__(self) -> None:
        super().__init__("gprochat", "benchmarks.peer")
        self.url = f"http://127.0.0.1:{int(self.line())}"

    def account(self) -> dict[str, float]:
        """Return what the peer has done since the last call of this method."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.url}/account") as answer:
            result: dict[str, float] = json.load(answer)
            return result


SPIN = """
import os, time
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
end = time.monotonic() + 120
while time.monotonic() < end:
    pass
"""


@contextmanager
def cores_kept_awake() -> Iterator[None]:
    """Let no core sleep: on each there is a process that spins whenever nothing else runs."""
    spinning = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()
