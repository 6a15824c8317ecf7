"""Memory: what does a reply hold that has begun and stands still, and what a very long one?

Resident memory of a fresh process with 2,000 such replies, by each; and by how much its peak rises
with a reply of 100 MiB that is streamed through, its text not kept (`keep_text=False`).
"""

from collections.abc import Callable

from .measure import Report, Settings, Turns, alone
from .processes import Peer, Subject, Worker
from .subjects import BARE

LONG = 100 << 20

SERIES = "resident memory of an idle reply, KiB"


def run(settings: Settings) -> Report:
    report = Report("memory")
    turns = Turns[Subject]()
    streams = int(settings.either(500, 2000))
    with Peer() as peer:

        def of(subject: Subject) -> Callable[[], float]:
            def measure() -> float:
                with Worker(subject) as worker:
                    return worker.ask("idle", url=f"{peer.url}/idle", streams=streams)["bytes"]

            return measure

        subjects = [subject for pair in BARE.items() for subject in reversed(pair)]
        turns.take(1 if settings.quick else 3, {subject: of(subject) for subject in subjects})
        for adapter, bare in BARE.items():
            pairs = zip(turns.values[adapter], turns.values[bare], strict=True)
            report.at_most(
                f"{adapter.name} above {bare.name}, each of {streams} idle replies",
                4,
                [(one - other) / 1024 for one, other in pairs],
                " KiB",
            )
        if not settings.quick:
            for subject in subjects:
                with Worker(subject) as worker:
                    result = worker.ask("long", url=f"{peer.url}/whole/{LONG}")
                rise = result["rise"] / (1 << 20)
                if subject in BARE:
                    report.at_most(f"{subject.name}, peak of a 100 MiB reply", 8, [rise], " MiB")
                report.figure("peak of a 100 MiB reply, MiB", subject.name, [rise])
    for subject, values in turns.values.items():
        report.figure(SERIES, subject.name, [value / 1024 for value in values])
    return report


if __name__ == "__main__":
    alone(run)
