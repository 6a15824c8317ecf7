"""Ray Data: how many prompts a second do two nodes get answered, beside one?

The peer answers at once, so the processor is the limit. Nodes are processes on this machine, whose
two cores they share with the peer and with Ray itself.
"""

from .measure import Report, Settings, Turns, alone
from .processes import Peer, Process

CONCURRENCY = 8


def run(settings: Settings) -> Report:
    report = Report("Ray Data")
    turns = Turns[int]()
    count = int(settings.either(5000, 20000))
    with Peer() as peer, Process("ray", "benchmarks.nodes", f"{peer.url}/first") as cluster:

        def measure(nodes: int) -> float:
            result = cluster.ask("ask", nodes=nodes, count=count, concurrency=CONCURRENCY)
            assert result["workers"] == nodes
            return result["rate"]

        turns.take(settings.rounds, {1: lambda: measure(1), 2: lambda: measure(2)})
    report.at_least("two nodes / one node, prompts a second", 1.5, turns.ratios(2, 1))
    for nodes, values in turns.values.items():
        report.figure("prompts a second of nodes of Ray", f"{nodes} of them", values)
    return report


if __name__ == "__main__":
    alone(run)
