"""Live streams: how much processor time does a client spend on a piece of text?

Many connections, each receiving 11 bytes of text 50 times a second: what one piece costs decides
how many live replies a core can hold. Processor time is the client's process's, user and system.
"""

from functools import partial
from statistics import median
from typing import Final, NamedTuple

from .measure import Report, Settings, Turns, alone
from .processes import Peer, Subject, Worker
from .subjects import (
    AIOHTTP,
    AIOHTTP_UVLOOP,
    BARE,
    BARE_AIOHTTP,
    BARE_AIOHTTP_UVLOOP,
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
"""Pieces a second of all streams together where there are 2,000: that row asks what the number of
streams costs, and 2,000 times 50 pieces a second are more than one core can take."""

SERIES = "processor time, µs a piece"


NEW: Final = "new process"
SETTLED: Final = "settled"
"""The process has freed a large block first, see the README; a new one has not."""


class Live(NamedTuple):
    """One thing to measure."""

    subject: Subject
    streams: int
    state: str = SETTLED

    @property
    def pace(self) -> float:
        """Pieces a second of each stream."""
        return MOST_A_SECOND / 2000 if self.streams == 2000 else PACE

    @property
    def label(self) -> str:
        name = self.subject.name if self.state == SETTLED else f"{self.subject.name}, {self.state}"
        return f"{name}, {self.streams} streams"


class Runs:
    """Takes live measurements, and notes which ones cannot be trusted.

    Each measurement has a process of its own: two processes of one program differ by some percent.
    """

    def __init__(self, peer: Peer, seconds: float) -> None:
        self._peer = peer
        self._seconds = seconds
        self.saturated: set[str] = set()
        self.peer_was_slow: set[str] = set()

    def measure(self, live: Live) -> float:
        """Microseconds of processor time a piece."""
        with Worker(live.subject, settled=live.state == SETTLED) as worker:
            self._peer.account()
            result = worker.ask(
                "live",
                url=f"{self._peer.url}/live/{live.pace:g}",
                streams=live.streams,
                pause=0.3,
                seconds=self._seconds,
            )
            account = self._peer.account()
        if result["load"] > 0.95 or result["rate"] < 0.97 * live.streams * live.pace:
            self.saturated.add(live.label)
        if account["load"] > 0.85:
            self.peer_was_slow.add(live.label)
        return result["us"]


def groups(states: list[str], settings: Settings) -> list[list[Live]]:
    """Return what is measured by turns: clients that are compared stand side by side."""
    result: list[list[Live]] = []
    for state in states:
        group: list[Live] = []
        for adapter, bare in BARE.items():
            group += [Live(bare, 100, state), Live(adapter, 100, state)]
            if state == SETTLED and not settings.quick:
                group += [Live(adapter, 2000), Live(bare, 2000)]
        group += [Live(subject, 100, state) for subject in (BARE_AIOHTTP_UVLOOP, AIOHTTP_UVLOOP)]
        group += [Live(subject, 100, state) for subject in (BARE_ASYNCIO, G4F, OPENAI)]
        # litellm cannot take 100 such streams on one core.
        group += [Live(subject, 50, state) for subject in (AIOHTTP, LITELLM, TRIO)]
        result.append(group)
    if not settings.quick:
        few = (BARE_ASYNCIO, G4F, AIOHTTP, BARE_AIOHTTP, BARE_TRIO, TRIO)
        result.append([Live(subject, 500) for subject in few])
    return result


def run(settings: Settings) -> Report:
    report = Report("live streams")
    states = [SETTLED] if settings.quick else [NEW, SETTLED]
    turns = Turns[Live]()
    with Peer() as peer:
        runs = Runs(peer, settings.either(0.5, 1.2))
        for group in groups(states, settings):
            turns.take(settings.rounds, {live: partial(runs.measure, live) for live in group})

    for state in states:
        for adapter, bare in {**BARE, AIOHTTP_UVLOOP: BARE_AIOHTTP_UVLOOP}.items():
            ratios = turns.ratios(Live(adapter, 100, state), Live(bare, 100, state))
            report.at_most(f"{adapter.name} / {bare.name}, 100 streams, {state}", 1.05, ratios)
        for adapter in (AIOHTTP, TRIO):
            for other, streams, limit in ((OPENAI, 100, 0.25), (LITELLM, 50, 0.1), (G4F, 100, 1.0)):
                ratios = turns.ratios(Live(adapter, streams, state), Live(other, streams, state))
                what = f"{adapter.name} / {other.name}, {streams} streams, {state}"
                report.at_most(what, limit, ratios)
    if not settings.quick:
        for adapter in (AIOHTTP, TRIO):
            ratios = turns.ratios(Live(adapter, 500), Live(BARE[adapter], 500))
            report.at_most(f"{adapter.name} / {BARE[adapter].name}, 500 streams", 1.05, ratios)
        for adapter, bare in BARE.items():
            ratios = turns.ratios(Live(adapter, 2000), Live(adapter, 100))
            report.at_most(f"{adapter.name}, 2000 streams / 100", 1.15, ratios)
            grown = median(turns.ratios(Live(bare, 2000), Live(bare, 100)))
            beside = median(turns.ratios(Live(adapter, 2000), Live(bare, 2000)))
            report.notes.append(
                f"At 2,000 streams a piece costs {bare.name} {grown:.2f} times what it does at "
                f"100, and {adapter.name} {beside:.2f} times what it costs {bare.name}."
            )
    for live, values in turns.values.items():
        report.figure(SERIES, live.label, values)
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
