"""Ray Data: how many prompts a second do two nodes get answered, beside one?

The peer answers at once, so the processor is the limit. Nodes are processes on this machine, whose
two cores they share with the peer and with Ray itself. Ray's own work for a block is the same for
any number of prompts, so there are figures of large blocks and of small ones.
"""

from functools import partial
from typing import Final

from .measure import Report, Settings, Turns, alone
from .processes import Peer, Process

CONCURRENCY: Final = 8

BLOCK: Final = 2500
"""Prompts of the blocks that are judged. They last half a second here, and with a real service many
minutes, in which Ray's own work for a block does not show."""

SMALL_BLOCK: Final = 100
"""Prompts of a block in the guide."""


def run(settings: Settings) -> Report:
    report = Report("Ray Data")
    blocks = {BLOCK: int(settings.either(4, 16)), SMALL_BLOCK: int(settings.either(10, 40))}
    rates = {block: Turns[int]() for block in blocks}
    with Peer() as peer, Process("ray", "benchmarks.nodes", f"{peer.url}/first") as cluster:

        def measure(nodes: int, block: int) -> float:
            result = cluster.ask(
                "ask",
                nodes=nodes,
                count=block * blocks[block],
                block=block,
                concurrency=CONCURRENCY,
            )
            assert result["workers"] == nodes
            return result["rate"]

        for block, turns in rates.items():
            turns.take(
                settings.rounds,
                {nodes: partial(measure, nodes, block) for nodes in (1, 2)},
            )
    report.at_least("two nodes / one node, prompts a second", 1.5, rates[BLOCK].ratios(2, 1))
    for block, turns in rates.items():
        for nodes, values in turns.values.items():
            report.figure(
                f"prompts a second of nodes of Ray, blocks of {block}", f"{nodes} of them", values
            )
    return report


if __name__ == "__main__":
    alone(run)
