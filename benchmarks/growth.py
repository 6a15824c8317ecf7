"""Growth: what does the thousandth turn of a conversation cost, and how large is it on the wire?

Turns of 2 KiB of Russian. The cases are in `growth_cases.py`; the body's bytes are as the peer
counts them.
"""

import json
import subprocess

from .environments import HERE, python
from .measure import Report, Settings, alone
from .processes import ENVIRONMENT, Peer, Worker
from .subjects import AIOHTTP, G4F

SERIES = "building a request, ms"

SENTENCE = "Все счастливые семьи похожи друг на друга. "


def round_of_cases() -> dict[str, dict[str, float]]:
    run = subprocess.run(
        [python("gprochat"), "-m", "benchmarks.growth_cases"],
        cwd=HERE.parent,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result: dict[str, dict[str, float]] = json.loads(run.stdout)
    return result


def run(settings: Settings) -> Report:
    report = Report("growth")
    rounds = [round_of_cases() for _ in range(settings.rounds)]
    hundred, thousand = "101", "1001"
    report.at_most(
        "build turn 1,000 / json.dumps of the whole conversation",
        0.1,
        [one[thousand]["build"] / one[thousand]["json.dumps"] for one in rounds],
    )
    report.at_most(
        "build, turn 1,000 / 100, beside the same of a copy of the bytes",
        1,
        [
            (one[thousand]["build"] / one[hundred]["build"])
            / (one[thousand]["copy"] / one[hundred]["copy"])
            for one in rounds
        ],
    )
    for turns in rounds[0]:
        for case in rounds[0][turns]:
            values = [one[turns][case] * 1e3 for one in rounds]
            report.figure(SERIES, f"{case}, {turns} turns", values)

    conversation = [
        {"role": "assistant" if number % 2 else "user", "content": SENTENCE * 10}
        for number in range(11)
    ]
    sizes: list[float] = []
    with Peer() as peer:
        for subject in (AIOHTTP, G4F):
            with Worker(subject) as worker:
                worker.ask("say", url=f"{peer.url}/first", conversation=conversation)
            sizes.append(peer.account()["body_bytes"])
    ours, theirs = sizes
    report.at_most("body of a Russian conversation / g4f's", 0.4, [ours / theirs])
    return report


if __name__ == "__main__":
    alone(run)
