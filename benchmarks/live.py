"""Live streams: how much processor time does a client spend on a piece of text?

Many connections, each receiving 11 bytes of text 50 times a second: what one piece costs decides
how many live replies a core can hold. Processor time is the client's process's, user and system.
"""

from collections.abc import Callable
from contextlib import ExitStack

from .measure import Report, Settings, Turns, alone
from .processes import Peer, Subject, Worker
from .subjects import (
    AIOHTTP,
    BARE,
    BARE_AIOHTTP,
    BARE_ASYNCIO,
    BARE_TRIO,
    G4F,
    LITELLM,
    OPENAI,
    TRIO,
)

PACE = 50
"""Pieces a second of each stream."""

MOST_A_SECOND = 5000
"""At 2,000 streams, of all together: what is asked there is what the number of streams costs, and
2,000 times 50 pieces a second are more than one core can take of any client."""

SERIES = "processor time, µs a piece"


class Runs:
    """Takes live measurements, and notices when they are not to be trusted."""

    def __init__(self, peer: Peer, workers: dict[Subject, Worker], seconds: float) -> None:
        self._peer = peer
        self._workers = workers
        self._seconds = seconds
        self.saturated: set[str] = set()
        self.peer_was_slow: set[str] = set()

    def of(self, subject: Subject, streams: int, pace: float) -> Callable[[], float]:
        def measure() -> float:
            self._peer.account()
            result = self._workers[subject].ask(
                "live",
                url=f"{self._peer.url}/live/{pace:g}",
                streams=streams,
                pause=0.3,
                seconds=self._seconds,
            )
            account = self._peer.account()
            label = f"{subject.name}, {streams} streams"
            if result["load"] > 0.95 or result["rate"] < 0.97 * streams * pace:
                self.saturated.add(label)
            if account["load"] > 0.85:
                self.peer_was_slow.add(label)
            return result["us"]

        return measure


def run(settings: Settings) -> Report:
    report = Report("live streams")
    everyone = [*BARE.values(), *BARE, BARE_ASYNCIO, G4F, OPENAI]
    turns = Turns[tuple[Subject, int]]()
    with ExitStack() as stack:
        peer = stack.enter_context(Peer())
        workers = {
            subject: stack.enter_context(Worker(subject)) for subject in [*everyone, LITELLM]
        }
        runs = Runs(peer, workers, settings.either(0.5, 1.2))
        a_hundred = {(subject, 100): runs.of(subject, 100, PACE) for subject in everyone}
        # litellm cannot take 100 such streams on one core.
        fifty = {(subject, 50): runs.of(subject, 50, PACE) for subject in (AIOHTTP, TRIO, LITELLM)}
        turns.take(settings.rounds, a_hundred | fifty)
        if not settings.quick:
            five_hundred = {
                (subject, 500): runs.of(subject, 500, PACE)
                for subject in (BARE_ASYNCIO, BARE_AIOHTTP, AIOHTTP, BARE_TRIO, TRIO, G4F)
            }
            turns.take(settings.rounds, five_hundred)
            two_thousand = {
                (subject, 2000): runs.of(subject, 2000, MOST_A_SECOND / 2000) for subject in BARE
            }
            turns.take(settings.rounds, two_thousand)

    for adapter, bare in BARE.items():
        ratios = turns.ratios((adapter, 100), (bare, 100))
        report.at_most(f"{adapter.name} / {bare.name}, 100 streams", 1.05, ratios)
    for adapter in (AIOHTTP, TRIO):
        for other, streams, limit in ((OPENAI, 100, 0.25), (LITELLM, 50, 0.1), (G4F, 100, 1.0)):
            ratios = turns.ratios((adapter, streams), (other, streams))
            report.at_most(f"{adapter.name} / {other.name}, {streams} streams", limit, ratios)
    if not settings.quick:
        for adapter, bare in ((AIOHTTP, BARE_AIOHTTP), (TRIO, BARE_TRIO)):
            ratios = turns.ratios((adapter, 500), (bare, 500))
            report.at_most(f"{adapter.name} / {bare.name}, 500 streams", 1.05, ratios)
        for adapter in BARE:
            ratios = turns.ratios((adapter, 2000), (adapter, 100))
            report.at_most(f"{adapter.name}, 2000 streams / 100", 1.15, ratios)
    for (subject, streams), values in turns.values.items():
        report.figure(SERIES, f"{subject.name}, {streams} streams", values)
    if runs.saturated:
        report.notes.append(
            "Saturated at times, so that pieces came several at once and seem cheaper: "
            + "; ".join(sorted(runs.saturated))
        )
    report.notes.append(
        "The peer was the bottleneck at times: " + "; ".join(sorted(runs.peer_was_slow))
        if runs.peer_was_slow
        else "The peer was never the bottleneck."
    )
    return report


if __name__ == "__main__":
    alone(run)
