"""The gateway: what does a piece of text cost it, beside LiteLLM's proxy and a relay by hand?

Callers hold streams through each gateway to the same peer, which sends 11 bytes of text at a time.
Processor time and memory are those of the gateway's process, as the system accounts them. LiteLLM's
proxy cannot take 100 such streams on one core: it falls behind, which makes its pieces cheaper,
because then it reads several at once. Memory is that with 500 streams, which stand still.
"""

from typing import Final

from .live import PACE
from .measure import Report, Settings, Turns, alone
from .processes import Peer, Process

GPROCHAT: Final = "gprochat gateway"
RELAY: Final = "bare aiohttp relay"
LITELLM: Final = "LiteLLM's proxy"
DIRECT: Final = "direct"

GATEWAYS: Final = {
    GPROCHAT: ("gprochat", "gprochat"),
    RELAY: ("gprochat", "bare_aiohttp"),
    LITELLM: ("litellm-proxy", "litellm"),
}
"""The environment and the module of each."""

MIB: Final = 1 << 20


class Measured:
    """What was measured of all gateways, by turns."""

    def __init__(self, peer: Peer, load: Process, settings: Settings) -> None:
        self._peer = peer
        self._load = load
        self._settings = settings
        self.cost = Turns[str]()
        self.memory = Turns[str]()
        self.first = Turns[str]()
        self.behind: set[str] = set()
        self.peer_was_slow: set[str] = set()

    def take(self) -> None:
        """Measure each gateway in a new process."""
        for number in range(self._settings.rounds):
            turn = [DIRECT, *GATEWAYS]
            for name in turn if number % 2 == 0 else reversed(turn):
                if name == DIRECT:
                    self._first(DIRECT, self._peer.url, "/first/api/generate", "none")
                else:
                    self._gateway(name)

    def _gateway(self, name: str) -> None:
        environment, module = GATEWAYS[name]
        program = f"benchmarks.gateways.{module}"
        with Process(environment, program, self._peer.url) as process:
            url, key = process.line().split()
            self._first(name, url, "/v1/chat/completions", key)
            self._peer.account()
            live = self._load.ask(
                "live",
                url=url,
                key=key,
                peer=self._peer.url,
                pid=process.pid,
                streams=100,
                seconds=self._settings.either(2.0, 4.0),
                idle=500,
            )
            if self._peer.account()["load"] > 0.85:
                self.peer_was_slow.add(name)
            if live["rate"] < 0.97 * 100 * PACE:
                self.behind.add(name)
        self.cost.values.setdefault(name, []).append(live["us"])
        self.memory.values.setdefault(name, []).append(live["resident"] / MIB)

    def _first(self, name: str, url: str, path: str, key: str) -> None:
        count = int(self._settings.either(50, 200))
        result = self._load.ask("first", url=url, path=path, key=key, count=count)
        self.first.values.setdefault(name, []).append(result["seconds"] * 1e3)


def run(settings: Settings) -> Report:
    report = Report("gateway")
    with Peer() as peer, Process("gprochat", "benchmarks.load") as load:
        measured = Measured(peer, load, settings)
        measured.take()
    for other, limit in ((LITELLM, 0.1), (RELAY, 1.5)):
        ratios = measured.cost.ratios(GPROCHAT, other)
        report.at_most(f"{GPROCHAT} / {other}, 100 streams", limit, ratios)
    ratios = measured.memory.ratios(GPROCHAT, LITELLM)
    report.at_most(f"{GPROCHAT} / {LITELLM}, resident memory, 500 streams", 0.25, ratios)
    pairs = zip(measured.first.values[GPROCHAT], measured.first.values[DIRECT], strict=True)
    later = [one - other for one, other in pairs]
    report.at_most(f"{GPROCHAT}, first piece later than direct", 5, later, " ms")
    for series, turns in (
        ("processor time of a gateway, µs a piece, 100 streams", measured.cost),
        ("resident memory of a gateway, MiB, 500 streams", measured.memory),
        ("time to first text through a gateway, ms", measured.first),
    ):
        for name, values in turns.values.items():
            report.figure(series, name, values)
    if measured.behind:
        report.notes.append(f"Fell behind 100 streams: {', '.join(sorted(measured.behind))}.")
    if measured.peer_was_slow:
        slow = ", ".join(sorted(measured.peer_was_slow))
        report.notes.append(f"The peer was the bottleneck at times: {slow}.")
    return report


if __name__ == "__main__":
    alone(run)
