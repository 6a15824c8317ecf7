"""A call may be interrupted at any of its awaits: nothing is left behind, and the client goes on.

Each test interrupts the same call at its first turn, at its second and so on until the call is
over before it can be interrupted (`cancel_loops`).
"""

import secrets
from collections.abc import Sequence
from itertools import count
from time import monotonic

import pytest

from gprochat_core import GPROChatError, Service, UsageError
from tests.contract.adapters import ADAPTERS, Adapter, Blocking, Client
from tests.faults.cancel_leaks import SOON, Residue, no_complaints, quick_collection
from tests.faults.cancel_loops import LOOPS, Interruptible, Outcome
from tests.faults.cancel_scenarios import SCENARIOS, WELL, Scenario
from tests.peers.scripted import Connection, ScriptedPeer

pytestmark = pytest.mark.parametrize(
    "adapter",
    [each for each in ADAPTERS if not isinstance(each.loop, Blocking)],
    ids=lambda each: each.name,
)


def loop_of(adapter: Adapter) -> Interruptible:
    return LOOPS[adapter.name.partition("@")[2]]


class Trial:
    """One call that is interrupted at one turn, and what must follow."""

    def __init__(self, adapter: Adapter, scenario: Scenario, peer: ScriptedPeer) -> None:
        self._loop = loop_of(adapter)
        self._scenario = scenario
        self._peer = peer
        self._first = len(peer.connections)
        service = Service(scenario.url(peer), secret_key=secrets.token_hex())
        self._client: Client = adapter.make(service, **scenario.client_settings(peer))

    async def run(self, how: str, turn: int) -> bool:
        """Return whether the call was interrupted at all."""
        client = self._client
        if self._scenario.kept:
            assert await client.complete(self._scenario.quick) == WELL
        outcome = await self._interrupt(how, turn)
        over = monotonic()
        self._check(how, outcome)
        if how == "close the client" and outcome.interrupted:
            with pytest.raises(UsageError):
                await client.complete(self._scenario.quick)
        else:
            assert await client.complete(self._scenario.quick) == WELL
            await self._closed(self._peer.connections[self._first : -1], over)
            await client.aclose()
        await self._closed(self._peer.connections[self._first :], monotonic())
        return outcome.interrupted

    async def _interrupt(self, how: str, turn: int) -> Outcome:
        reply = self._client.stream(self._scenario.prompt)
        scenario = self._scenario

        async def body() -> str:
            async with reply:
                pieces = 0
                async for _ in reply:
                    pieces += 1
                    if pieces == scenario.read:
                        break
            return reply.text

        if how == "cancel":
            return await self._loop.cancel_at(turn, body)
        if how == "time out":
            return await self._loop.time_out_at(turn, body)
        close = reply.aclose if how == "close the reply" else self._client.aclose
        return await self._loop.meanwhile_at(turn, body, close)

    def _check(self, how: str, outcome: Outcome) -> None:
        if outcome.stopped:
            return
        expected = self._scenario.expected
        if isinstance(outcome.error, GPROChatError) and how.startswith("close"):
            return
        if outcome.error is not None:
            raise outcome.error
        assert isinstance(expected, str)
        assert outcome.text is not None
        if self._scenario.read is None and not how.startswith("close"):
            assert outcome.text == expected
        else:
            assert expected.startswith(outcome.text)

    async def _closed(self, connections: Sequence[Connection], since: float) -> None:
        for connection in connections:
            while not connection.client_closed.is_set():
                assert monotonic() < since + SOON, "the peer sees a connection that is still open"
                await self._loop.sleep(0.001)


def interrupt_everywhere(adapter: Adapter, scenario: Scenario, how: str) -> int:
    """Interrupt a scenario at every turn; return how many there were."""
    loop = loop_of(adapter)
    turns = 0

    async def main() -> None:
        nonlocal turns
        for turn in count(1):
            turns = turn
            with no_complaints():
                residue = Residue(loop)
                trial = Trial(adapter, scenario, peer)
                interrupted = await trial.run(how, turn)
                del trial
                await residue.check()
            if not interrupted:
                return

    with scenario.peer() as peer, quick_collection():
        loop.run(main)
    return turns


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_a_cancelled_call_leaves_nothing_behind(adapter: Adapter, scenario: Scenario) -> None:
    assert interrupt_everywhere(adapter, scenario, "cancel") > 5
