"""The blocking client: what do its live pieces and whole replies cost, in one and many threads?

Beside it stands `httpx.Client`. With many threads, all share one client.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from .measure import Report, Settings, Turns, alone
from .processes import Peer, Subject, Worker
from .subjects import BARE_HTTPX_SYNC, SYNC

SIZE: Final = 1 << 20

PACES: Final = {1: 500, 16: 50}
"""Threads, and pieces a second of the stream that each of them reads."""

PIECES: Final = "processor time of a blocking client, µs a piece"
REPLIES: Final = "whole replies of a blocking client, million characters a second"


def run(settings: Settings) -> Report:
    report = Report("blocking client")
    live = Turns[tuple[Subject, int]]()
    whole = Turns[tuple[Subject, int]]()
    both = (BARE_HTTPX_SYNC, SYNC)
    with ExitStack() as stack:
        peer = stack.enter_context(Peer())

        def pieces(subject: Subject, threads: int) -> Callable[[], float]:
            def measure() -> float:
                with Worker(subject) as worker:
                    return worker.ask(
                        "live",
                        url=f"{peer.url}/live/{PACES[threads]}",
                        streams=threads,
                        pause=0.3,
                        seconds=settings.either(0.5, 3.0),
                    )["us"]

            return measure

        workers = {subject: stack.enter_context(Worker(subject)) for subject in both}

        def replies(subject: Subject, threads: int) -> Callable[[], float]:
            count = int(settings.either(32, 64))
            url = f"{peer.url}/whole/{SIZE}"
            return lambda: workers[subject].ask("whole", url=url, count=count, callers=threads)[
                "rate"
            ]

        for threads in PACES:
            keys = [(subject, threads) for subject in both]
            live.take(settings.rounds, {key: pieces(*key) for key in keys})
            whole.take(settings.rounds, {key: replies(*key) for key in keys})
    for threads in PACES:
        of = "1 thread" if threads == 1 else f"{threads} threads"
        ours, bare = (SYNC, threads), (BARE_HTTPX_SYNC, threads)
        names = f"{SYNC.name} / {BARE_HTTPX_SYNC.name}, {of}"
        report.at_most(f"{names}: a live piece", 1.05, live.ratios(ours, bare))
        report.at_least(f"{names}: whole replies", 0.95, whole.ratios(ours, bare))
    for (subject, threads), values in live.values.items():
        report.figure(PIECES, f"{subject.name}, {threads} threads", values)
    for (subject, threads), values in whole.values.items():
        label = f"{subject.name}, {threads} threads"
        report.figure(REPLIES, label, [value / 1e6 for value in values])
    return report


if __name__ == "__main__":
    alone(run)
