"""The process that one client is measured in: it reads tasks as lines of JSON and prints results.

Run as `python -m benchmarks.worker {client} {loop} {new or settled}`. A process may do many tasks;
it is idle while other clients have their turn.
"""

import cProfile
import gc
import json
import os
import pstats
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

from . import malloc
from .clients import Client
from .loops import LOOPS, Loop

Result: TypeAlias = dict[str, float]

CHARACTERS_A_PIECE = 6
PAGE = resource.getpagesize()


class Arrivals:
    """Counts what arrives of one stream."""

    __slots__ = ("characters",)

    def __init__(self) -> None:
        self.characters = 0

    def __call__(self, text: str) -> None:
        self.characters += len(text)


def pieces(streams: list[Arrivals]) -> float:
    return sum(stream.characters for stream in streams) / CHARACTERS_A_PIECE


async def all_begun(loop: Loop, streams: list[Arrivals]) -> None:
    limit = time.monotonic() + 60
    while not all(stream.characters for stream in streams):
        if time.monotonic() > limit:
            raise TimeoutError("not all streams began within a minute")
        await loop.sleep(0.05)


async def live(
    loop: Loop, make: type[Client], url: str, streams: int, pause: float, seconds: float
) -> Result:
    """Hold that many live streams; over some seconds of them, the processor time per piece."""
    arrivals = [Arrivals() for _ in range(streams)]
    async with (
        make(url, streams) as client,
        loop.background([partial(client.stream, each) for each in arrivals]),
    ):
        await all_begun(loop, arrivals)
        await loop.sleep(pause)
        cpu, wall, before = time.process_time(), time.monotonic(), pieces(arrivals)
        await loop.sleep(seconds)
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        arrived = pieces(arrivals) - before
    return {"us": cpu / arrived * 1e6, "load": cpu / wall, "rate": arrived / wall}


async def whole(loop: Loop, make: type[Client], url: str, count: int, callers: int = 1) -> Result:
    """Take that many whole replies with some callers at once; characters a second."""
    lengths: list[int] = []

    async def take(client: Client) -> None:
        lengths.extend([len(await client.whole()) for _ in range(count // callers)])

    async with make(url, callers) as client:
        await client.whole()
        begin = time.perf_counter()
        await loop.all([partial(take, client)] * callers)
        return {"rate": sum(lengths) / (time.perf_counter() - begin)}


async def first(loop: Loop, make: type[Client], url: str, streams: int, count: int) -> Result:
    """Ask that often, by so many callers at once; the median of the seconds to the first text."""
    waits: list[float] = []

    async def ask(client: Client) -> None:
        begin = time.perf_counter()
        await client.stream(lambda text: waits.append(time.perf_counter() - begin))

    async with make(url, streams) as client:
        # The first round opens the connections.
        await loop.all([partial(ask, client)] * streams)
        waits.clear()
        for _ in range(count):
            await loop.all([partial(ask, client)] * streams)
    return {"seconds": statistics.median(waits)}


async def idle(loop: Loop, make: type[Client], url: str, streams: int) -> Result:
    """Hold that many replies that have begun and stand still; resident bytes of each."""
    arrivals = [Arrivals() for _ in range(streams)]
    async with (
        make(url, streams + 1) as client,
        loop.background([partial(client.stream, Arrivals())]),
    ):
        await loop.sleep(0.2)
        gc.collect()
        before = resident()
        async with loop.background([partial(client.stream, each) for each in arrivals]):
            await all_begun(loop, arrivals)
            gc.collect()
            used = resident() - before
    return {"bytes": used / streams}


async def long(loop: Loop, make: type[Client], url: str) -> Result:
    """Stream one very long reply through; by how much the peak of resident bytes rose."""
    arrivals = Arrivals()
    async with make(url, 1) as client:
        before = peak()
        await getattr(client, "stream_long", client.stream)(arrivals)
    return {"rise": peak() - before, "characters": arrivals.characters}


async def say(loop: Loop, make: type[Any], url: str, conversation: object) -> Result:
    """Send a whole conversation, for the peer to take account of."""
    async with make(url, 1) as client:
        await client.say(conversation)
    return {}


async def shares(loop: Loop, make: type[Client], of: dict[str, object]) -> Result:
    """Do another task under the profiler; percent of its processor time by package."""
    profiler = cProfile.Profile(time.process_time)
    task = TASKS[str(of.pop("task"))]
    with profiler:
        await task(loop, make, **of)
    seconds: dict[str, float] = {}
    # Of each function its own time, and by caller what it was called for.
    functions = cast("Stats", pstats.Stats(profiler)).stats
    for (file, _, name), (_, _, own, _, callers) in functions.items():
        if file != "~" or any(call in name for call in SYSTEM_CALLS):
            parts = {owner(file): own}
        else:
            # The interpreter's own functions count as their callers'.
            parts = {}
            for (caller, _, _), (_, _, part, _) in callers.items():
                parts[owner(caller)] = parts.get(owner(caller), 0.0) + part
        for whose, part in parts.items():
            seconds[whose] = seconds.get(whose, 0.0) + part
    return {whose: part / sum(seconds.values()) * 100 for whose, part in seconds.items()}


class Stats(Protocol):
    """The attribute of `pstats.Stats` that its stubs leave out."""

    stats: dict[
        tuple[str, int, str],
        tuple[int, int, float, float, dict[tuple[str, int, str], tuple[int, int, float, float]]],
    ]


SYSTEM_CALLS = ("select.epoll", "_socket.socket", "select.select")


def owner(file: str) -> str:
    """Return the name of the package that a file belongs to."""
    parts = Path(file).parts
    for folder in ("site-packages", "src"):
        if folder in parts:
            return parts[parts.index(folder) + 1].removesuffix(".py")
    if "benchmarks" in parts:
        return "the benchmark"
    if file == "~":
        return "system calls"
    return "asyncio" if {"asyncio", "selectors.py"} & set(parts) else "standard library"


TASKS: dict[str, Callable[..., Awaitable[Result]]] = {
    task.__name__: task for task in (live, whole, first, idle, long, say, shares)
}


def resident() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    _, name, loop_name, state = sys.argv
    # What a client prints must not get in between the results.
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if state == "settled":
        malloc.settle()
    loop = LOOPS[loop_name]
    make: type[Client] = import_module(f"benchmarks.clients.{name}").Client
    for line in sys.stdin:
        arguments = json.loads(line)
        answer: Result = {}

        async def run(arguments: dict[str, object] = arguments, answer: Result = answer) -> None:
            task = TASKS[str(arguments.pop("task"))]
            answer.update(await task(loop, make, **arguments))

        loop.run(run)
        print(json.dumps(answer), file=results, flush=True)


if __name__ == "__main__":
    main()
