"""Many prompts: how many a second does a process get answered, and what does a rate limit leave?

Against a peer that answers at once, `ask_many` is compared with a bare aiohttp `gather` with a
semaphore. Another peer takes 50 requests in any second, and refuses what is beyond with status 429
and "Retry-After: 1".
"""

from typing import Final

from .measure import Report, Settings, Turns, alone
from .processes import Peer, Process

OURS: Final = "ask_many"
BARE: Final = "bare aiohttp gather"

CONCURRENCY: Final = 8
RATE: Final = 50


def run(settings: Settings) -> Report:
    report = Report("batch")
    speed, cost = Turns[str](), Turns[str]()
    count = int(settings.either(2000, 10000))
    seconds = settings.either(20.0, 60.0)
    used: list[float] = []
    refused: list[float] = []
    with Peer() as peer, Process("gprochat", "benchmarks.asker") as asker:
        for number in range(settings.rounds):
            for name in (OURS, BARE) if number % 2 == 0 else (BARE, OURS):
                result = asker.ask(
                    "ours" if name == OURS else "bare",
                    url=f"{peer.url}/first",
                    count=count,
                    concurrency=CONCURRENCY,
                )
                assert result["done"] == count
                speed.values.setdefault(name, []).append(count / result["seconds"])
                cost.values.setdefault(name, []).append(result["cpu"] / count * 1e6)
        for _ in range(min(settings.rounds, 2)):
            peer.account()
            asker.ask(
                "limited",
                url=f"{peer.url}/limited/{RATE}",
                seconds=seconds,
                concurrency=CONCURRENCY,
            )
            account = peer.account()
            used.append(account["taken"] / (RATE * seconds))
            refused.append(account["refused"] / (account["taken"] + account["refused"]))
    report.at_least(f"{OURS} / {BARE}, prompts a second", 0.9, speed.ratios(OURS, BARE))
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
