"""The process that asks many prompts: by `ask_many`, or by a bare aiohttp `gather`.

It reads tasks as lines of JSON and prints results.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import repeat

from gprochat.batch import ask_many
from gprochat_core import Limits, Service
from gprochat_transports.aiohttp import Client

from . import malloc
from .clients import PROMPT
from .clients.bare_aiohttp import Client as BareClient
from .clients.by_hand import SECRET_KEY


def client(url: str) -> Client:
    service = Service(url, secret_key=SECRET_KEY)
    return Client(service, limits=Limits(max_connections=1000))


async def ours(url: str, count: int, concurrency: int) -> int:
    done = 0
    async with client(url) as asked:
        async for result in ask_many(asked, repeat(PROMPT, count), concurrency=concurrency):
            done += result.error is None
    return done


async def bare(url: str, count: int, concurrency: int) -> int:
    semaphore = asyncio.Semaphore(concurrency)
    async with BareClient(url, concurrency) as asked:

        async def ask() -> str:
            async with semaphore:
                return await asked.whole()

        return sum(map(bool, await asyncio.gather(*(ask() for _ in range(count)))))


async def limited(url: str, seconds: float, concurrency: int) -> int:
    done = 0
    async with client(url) as asked:
        async for result in ask_many(
            asked, repeat(PROMPT), concurrency=concurrency, max_seconds=seconds
        ):
            done += result.error is None
    return done


TASKS: dict[str, Callable[..., Awaitable[int]]] = {"ours": ours, "bare": bare, "limited": limited}


async def measure(task: str, **arguments: object) -> dict[str, float]:
    cpu, begin = time.process_time(), time.perf_counter()
    done = await TASKS[task](**arguments)
    return {
        "done": done,
        "seconds": time.perf_counter() - begin,
        "cpu": time.process_time() - cpu,
    }


def main() -> None:
    malloc.settle()
    for line in sys.stdin:
        print(json.dumps(asyncio.run(measure(**json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
