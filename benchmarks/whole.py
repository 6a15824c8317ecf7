"""Whole replies: how fast do bodies of 1 MiB come in, one after the other?"""

from collections.abc import Callable
from contextlib import ExitStack

from .measure import Report, Settings, Turns, alone
from .processes import Peer, Subject, Worker
from .subjects import BARE

SIZE = 1 << 20

SERIES = "whole replies, million characters a second"


def run(settings: Settings) -> Report:
    report = Report("whole replies")
    turns = Turns[Subject]()
    with ExitStack() as stack:
        peer = stack.enter_context(Peer())

        def of(subject: Subject) -> Callable[[], float]:
            worker = stack.enter_context(Worker(subject))
            count = int(settings.either(10, 240))
            url = f"{peer.url}/whole/{SIZE}"
            return lambda: worker.ask("whole", url=url, count=count)["rate"]

        turns.take(
            settings.rounds,
            {subject: of(subject) for pair in BARE.items() for subject in reversed(pair)},
        )
    for adapter, bare in BARE.items():
        report.at_least(f"{adapter.name} / {bare.name}", 0.95, turns.ratios(adapter, bare))
    for subject, values in turns.values.items():
        report.figure(SERIES, subject.name, [value / 1e6 for value in values])
    return report


if __name__ == "__main__":
    alone(run)
