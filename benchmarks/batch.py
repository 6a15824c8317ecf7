"""Many prompts: how many a second does a process get answered, and what does a rate limit leave?

Against a peer that answers at once, `ask_many` is compared with a bare aiohttp `gather` with a
semaphore. Another peer takes 50 requests in any second, and refuses what is beyond with status 429
and "Retry-After: 1".
"""

from functools import partial
from typing import Final

from .measure import Report, Settings, Turns, alone
from .processes import Peer, Process

TASKS: Final = {"ask_many": "ours", "bare aiohttp gather": "bare"}

CONCURRENCY: Final = 8
PROMPTS: Final = 2000
RATE: Final = 50


def asker() -> Process:
    return Process("gprochat", "benchmarks.asker")


def run(settings: Settings) -> Report:
    report = Report("batch")
    speed, cost = Turns[str](), Turns[str]()
    seconds = settings.either(20.0, 60.0)
    used: list[float] = []
    refused: list[float] = []

    def ask(process: Process, name: str) -> float:
        result = process.ask(
            TASKS[name], url=f"{peer.url}/first", count=PROMPTS, concurrency=CONCURRENCY
        )
        assert result["done"] == PROMPTS
        cost.values.setdefault(name, []).append(result["cpu"] / PROMPTS * 1e6)
        return PROMPTS / result["seconds"]

    with Peer() as peer:
        for _ in range(int(settings.either(1, 20))):
            # Two processes of one program differ by some percent, and so do two seconds of one
            # process: so there are several processes, and short turns in each.
            with asker() as process:
                speed.take(10, {name: partial(ask, process, name) for name in TASKS})
        with asker() as process:
            for _ in range(min(settings.rounds, 2)):
                peer.account()
                process.ask(
                    "limited",
                    url=f"{peer.url}/limited/{RATE}",
                    seconds=seconds,
                    concurrency=CONCURRENCY,
                )
                account = peer.account()
                used.append(account["taken"] / (RATE * seconds))
                refused.append(account["refused"] / (account["taken"] + account["refused"]))
    ours, bare = TASKS
    report.at_least(f"{ours} / {bare}, prompts a second", 0.9, speed.ratios(ours, bare))
    report.at_least(f"{RATE} requests a second allowed: used", 0.9, used)
    report.at_most(f"{RATE} requests a second allowed: refused", 0.05, refused)
    for series, turns in (
        ("prompts a second of one process", speed),
        ("processor time of a prompt, µs", cost),
    ):
        for name, values in turns.values.items():
            report.figure(series, name, values)
    return report


if __name__ == "__main__":
    alone(run)
