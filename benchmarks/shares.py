"""Where the time goes: of a live piece, and of a call up to its first text, by whose code it is.

It judges nothing; it explains. The profiler makes short functions seem longer than they are, so
the shares are to be compared with each other, not with the other figures.
"""

from .measure import Report, Settings, alone
from .processes import Peer, Worker
from .subjects import BARE, G4F

LEAST = 1.0
"""Percent below which a share is not told."""


def run(settings: Settings) -> Report:
    report = Report("shares")
    everyone = [subject for pair in BARE.items() for subject in reversed(pair)]
    if settings.quick:
        return report
    with Peer() as peer:
        tasks = {
            "a live piece": {
                "task": "live",
                "url": f"{peer.url}/live/50",
                "streams": 100,
                "pause": 0.1,
                "seconds": 1.5,
            },
            "a call to its first text": {
                "task": "first",
                "url": f"{peer.url}/first",
                "streams": 1,
                "count": 1000,
            },
        }
        for name, task in tasks.items():
            for subject in [*everyone, G4F] if task["task"] == "live" else everyone:
                with Worker(subject) as worker:
                    shares = worker.ask("shares", of=task)
                ranked = sorted(shares.items(), key=lambda share: -share[1])
                told = [f"{whose} {share:.0f} %" for whose, share in ranked if share >= LEAST]
                report.notes.append(f"{subject.name}, {name}: {', '.join(told)}.")
                print(f"  {report.notes[-1]}", flush=True)
    return report


if __name__ == "__main__":
    alone(run)
