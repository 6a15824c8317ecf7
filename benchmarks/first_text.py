"""Time to first text: what does the adapter add between asking and the first piece of text?

The peer answers at once, so nothing hides what the client does: building and signing the request,
sending it on a connection that is open already, reading the head. In a real service the wait for
the model comes on top of both.

A single caller and its peer wait for each other by turns, and a core that waits goes to sleep; how
long it takes to wake up depends on how long it slept. So that is measured once more, for
orientation, with the cores kept awake.
"""

from collections.abc import Callable
from contextlib import ExitStack
from statistics import median

from .measure import Report, Settings, Turns, alone
from .processes import Peer, Subject, Worker, cores_kept_awake
from .subjects import BARE

SERIES = "time to first text, ms"


def run(settings: Settings) -> Report:
    report = Report("first text")
    turns = Turns[tuple[Subject, int]]()
    awake = Turns[Subject]()
    with ExitStack() as stack:
        peer = stack.enter_context(Peer())
        workers = {
            subject: stack.enter_context(Worker(subject))
            for pair in BARE.items()
            for subject in reversed(pair)
        }

        def of(subject: Subject, callers: int, count: float) -> Callable[[], float]:
            def measure() -> float:
                return workers[subject].ask(
                    "first", url=f"{peer.url}/first", streams=callers, count=int(count)
                )["seconds"]

            return measure

        for callers, count in ((1, settings.either(100, 1000)), (100, settings.either(2, 4))):
            turns.take(
                settings.rounds,
                {(subject, callers): of(subject, callers, count) for subject in workers},
            )
        if not settings.quick:
            with cores_kept_awake():
                awake.take(settings.rounds, {subject: of(subject, 1, 1000) for subject in workers})
    for callers in (1, 100):
        for adapter, bare in BARE.items():
            ratios = turns.ratios((adapter, callers), (bare, callers))
            asking = "caller" if callers == 1 else "callers at once"
            report.at_most(f"{adapter.name} / {bare.name}, {callers} {asking}", 1.05, ratios)
    if awake.values:
        told = [
            f"{adapter.name} {median(awake.ratios(adapter, bare)):.2f} of {bare.name}"
            for adapter, bare in BARE.items()
        ]
        report.notes.append(f"First text of one caller, cores kept awake: {', '.join(told)}.")
    for subject, values in awake.values.items():
        report.figure(SERIES, f"{subject.name}, 1, awake", [value * 1e3 for value in values])
    for (subject, callers), values in turns.values.items():
        report.figure(SERIES, f"{subject.name}, {callers}", [value * 1e3 for value in values])
    return report


if __name__ == "__main__":
    alone(run)
