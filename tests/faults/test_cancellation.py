"""A call may be interrupted at any of its awaits: nothing is left behind, and the client goes on.

Each of these tests interrupts the same call at its first turn, at its second and so on, until the
call is over before it can be interrupted (`cancel_loops`).

Over a client that the caller made, httpx decides what becomes of a connection whose call was
interrupted. Where asyncio cancels a call while httpx closes its reply, or connects through a proxy,
httpx keeps the connection, and its slot, until that client is closed. So an adapter over such a
client is asked for less: calls end at once, the next one is well, and closing closes everything.
Such a client is httpx2's here, at every turn. A client of httpx takes the same path through this
project; `tests/contract/test_cancellation.py` cancels its calls too.
"""

import asyncio
import gc
import secrets
import threading
from collections.abc import Sequence
from functools import partial
from itertools import count
from time import monotonic
from typing import Any, Final, Literal, TypeAlias

import pytest
import trio

from gprochat_core import (
    ConnectTimeout,
    GPROChatError,
    IncompleteReply,
    Limits,
    ReplyTimeout,
    RetryPolicy,
    Service,
    Timeouts,
    UsageError,
)
from tests.contract.adapters import ADAPTERS, Adapter, Blocking, Client
from tests.faults.cancel_leaks import SOON, Residue, no_complaints
from tests.faults.cancel_loops import LOOPS, Interruptible, Outcome
from tests.faults.cancel_scenarios import QUICK, SCENARIOS, WELL, Scenario, both
from tests.faults.certificates import CERTIFICATES, client_context
from tests.peers.scripted import (
    Connection,
    ScriptedPeer,
    deaf_port,
    receive,
    repeat,
    send,
    until_client_closes,
    wait_for,
)
from tests.peers.wire import chunk, chunked, head

How: TypeAlias = Literal["cancel", "time out", "close the reply", "close the client"]

LEAST: Final = 4
"""Every call over a socket takes more turns of the event loop."""

RUNS: Final = 3
"""How often a call must have ended before a turn that is said not to exist: if the machine is busy,
what a call would wait for may be there already, and the call takes fewer turns than as a rule."""

BEGUN: Final = head(200, "transfer-encoding: chunked") + chunk("Раз")

INTERRUPTED: Final = [
    each
    for each in ADAPTERS
    if not isinstance(each.loop, Blocking) and each.name != "given-httpx@asyncio"
]

each_adapter = pytest.mark.parametrize("adapter", INTERRUPTED, ids=lambda each: each.name)

each_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)

some_scenarios = pytest.mark.parametrize(
    "scenario",
    [
        each
        for each in SCENARIOS
        if each.name in ("a reply", "TLS", "a HTTP proxy and TLS", "an error and a second attempt")
    ],
    ids=lambda each: each.name,
)


@pytest.fixture(autouse=True)
def quick_collection() -> None:
    """Let the garbage collector, which runs after each turn, look only at what a test makes."""
    gc.collect()
    gc.freeze()


def loop_of(adapter: Adapter) -> Interruptible:
    return LOOPS[adapter.name.partition("@")[2]]


def make(adapter: Adapter, url: str, **settings: Any) -> Client:
    return adapter.make(Service(url, secret_key=secrets.token_hex()), proxy=None, **settings)


async def closed(loop: Interruptible, connections: Sequence[Connection], since: float) -> None:
    """Check that the client closes these connections soon after that time."""
    for connection in connections:
        while not connection.client_closed.is_set():
            assert monotonic() < since + SOON, "the peer sees a connection that is still open"
            await loop.sleep(0.001)


class Trial:
    """Interrupts one call of a new client at one turn, and checks what follows."""

    def __init__(self, adapter: Adapter, scenario: Scenario, peer: ScriptedPeer) -> None:
        self._loop = loop_of(adapter)
        self._scenario = scenario
        self._peer = peer
        self._first = len(peer.connections)
        service = Service(scenario.url(peer), secret_key=secrets.token_hex())
        self._given = adapter.given
        settings = scenario.client_settings(peer)
        if self._given:
            del settings["limits"]
        self._client: Client = adapter.make(service, **settings)

    async def run(self, how: How, turn: int) -> bool:
        """Interrupt the call and check; return whether the call lasted until that turn."""
        client, connections = self._client, self._peer.connections
        if self._scenario.kept:
            assert await client.complete(QUICK) == WELL
        outcome = await self._interrupt(how, turn)
        over = monotonic()
        assert outcome.lag < SOON, f"it went on for {outcome.lag} s"
        self._check(how, outcome)
        if how == "close the client" and outcome.interrupted:
            with pytest.raises(UsageError):
                await client.complete(QUICK)
        else:
            # It has one slot, so a slot that is not given back is missed.
            assert await client.complete(QUICK) == WELL
            if not self._given:
                await closed(self._loop, connections[self._first : -1], over)
            await client.aclose()
        await closed(self._loop, connections[self._first :], monotonic())
        return outcome.interrupted

    async def _interrupt(self, how: How, turn: int) -> Outcome:
        reply = self._client.stream(self._scenario.prompt)

        async def body() -> str:
            async with reply:
                pieces = 0
                async for _ in reply:
                    pieces += 1
                    if pieces == self._scenario.read:
                        break
            return reply.text

        if how == "cancel":
            return await self._loop.cancel_at(turn, body)
        if how == "time out":
            return await self._loop.time_out_at(turn, body)
        if how == "close the client":
            return await self._loop.meanwhile_at(turn, body, self._client.aclose)
        return await self._loop.meanwhile_at(turn, body, partial(reply.__aexit__, None, None, None))

    def _check(self, how: How, outcome: Outcome) -> None:
        closed_meanwhile = outcome.interrupted and how.startswith("close")
        if outcome.stopped or (closed_meanwhile and isinstance(outcome.error, GPROChatError)):
            return
        if outcome.error is not None:
            raise outcome.error
        assert outcome.text is not None
        if closed_meanwhile or self._scenario.read is not None:
            assert self._scenario.expected.startswith(outcome.text)
        else:
            assert outcome.text == self._scenario.expected


def interrupt_everywhere(adapter: Adapter, scenario: Scenario, how: How) -> int:
    """Interrupt a scenario at every turn; return how many there were."""
    loop = loop_of(adapter)
    turns = 0

    async def interrupt(turn: int) -> bool:
        with no_complaints(loop):
            residue = Residue(loop)
            interrupted = await Trial(adapter, scenario, peer).run(how, turn)
            await residue.check()
        return interrupted

    async def main() -> None:
        nonlocal turns
        for turn in count(1):
            for _ in range(RUNS):
                if await interrupt(turn):
                    turns = turn
                    break
            else:
                return

    with scenario.peer() as peer:
        loop.run(main)
    return turns


@each_adapter
@each_scenario
def test_a_cancelled_call_leaves_nothing_behind(adapter: Adapter, scenario: Scenario) -> None:
    assert interrupt_everywhere(adapter, scenario, "cancel") > LEAST


@each_adapter
@some_scenarios
def test_a_call_out_of_time_leaves_nothing_behind(adapter: Adapter, scenario: Scenario) -> None:
    assert interrupt_everywhere(adapter, scenario, "time out") > LEAST


@each_adapter
@some_scenarios
def test_a_reply_may_be_closed_at_any_time(adapter: Adapter, scenario: Scenario) -> None:
    assert interrupt_everywhere(adapter, scenario, "close the reply") > LEAST


@each_adapter
@some_scenarios
def test_a_client_may_be_closed_at_any_time(adapter: Adapter, scenario: Scenario) -> None:
    assert interrupt_everywhere(adapter, scenario, "close the client") > LEAST


@each_adapter
def test_a_call_that_waits_for_a_connection_may_be_cancelled(adapter: Adapter) -> None:
    loop = loop_of(adapter)
    settings = {
        "limits": Limits(max_connections=1),
        "timeouts": Timeouts(connect=0.05, first_byte=2.0, idle=2.0),
        "retry": RetryPolicy(max_attempts=1),
    }
    scenario = Scenario("an endless reply", both(send(BEGUN), until_client_closes))
    turns = 0

    async def main() -> None:
        nonlocal turns
        for turn in count(1):
            with no_complaints(loop):
                residue = Residue(loop)
                async with make(adapter, peer.url, **settings) as client:
                    async with client.stream("Hello") as reply:
                        outcome = await loop.cancel_at(turn, partial(client.complete, QUICK))
                        assert outcome.stopped or isinstance(outcome.error, ConnectTimeout)
                        assert await anext(reply) == "Раз"
                    assert await client.complete(QUICK) == WELL
                await residue.check()
            if not outcome.interrupted:
                return
            turns = turn

    with scenario.peer() as peer:
        loop.run(main)
    assert turns > 0


@each_adapter
def test_a_call_that_nobody_lets_in_may_be_cancelled(adapter: Adapter) -> None:
    loop = loop_of(adapter)
    settings = {"timeouts": Timeouts(connect=0.05), "retry": RetryPolicy(max_attempts=1)}

    async def main() -> None:
        for turn in count(1):
            with no_complaints(loop):
                residue = Residue(loop)
                async with make(adapter, url, **settings) as client:
                    outcome = await loop.cancel_at(turn, partial(client.complete, QUICK))
                    assert outcome.stopped or isinstance(outcome.error, ConnectTimeout)
                await residue.check()
            if not outcome.interrupted:
                return

    with deaf_port() as port:
        url = f"http://127.0.0.1:{port}"
        loop.run(main)


@pytest.mark.parametrize(
    "adapter",
    # A client that is passed is not closed.
    [each for each in INTERRUPTED if not each.given],
    ids=lambda each: each.name,
)
@pytest.mark.parametrize("way", ["direct", "tls"])
def test_closing_a_client_may_be_cancelled_and_closes_it(
    adapter: Adapter, way: Literal["direct", "tls"]
) -> None:
    loop = loop_of(adapter)
    scenario = Scenario(way, send(BEGUN), way)

    async def main() -> None:
        for turn in count(1):
            first = len(peer.connections)
            with no_complaints(loop):
                residue = Residue(loop)
                settings = scenario.client_settings(peer) | {"limits": Limits()}
                service = Service(peer.url, secret_key=secrets.token_hex())
                client = adapter.make(service, **settings)
                one, two, three = (client.stream(prompt) for prompt in ("Hello", "Hello", QUICK))
                async with one, two, three:
                    assert await anext(one) == await anext(two) == "Раз"
                    assert [text async for text in three] == [WELL]
                    begun = threading.Event()

                    async def close(client: Client = client, begun: Any = begun) -> str:
                        begun.set()
                        await client.aclose()
                        return ""

                    outcome = await loop.cancel_at(turn, close)
                    if begun.is_set():
                        await closed(loop, peer.connections[first:], monotonic())
                await client.aclose()
                assert len(peer.connections) == first + 3
                del client, close, one, two, three
                await residue.check()
            if not outcome.interrupted:
                return

    with scenario.peer() as peer:
        loop.run(main)


@each_adapter
@pytest.mark.parametrize("way", ["direct", "tls"])
@pytest.mark.parametrize("what", ["a reply", "a long request"])
def test_a_peer_that_reads_no_more_keeps_no_connection_open(
    adapter: Adapter, way: Literal["direct", "tls"], what: str
) -> None:
    loop = loop_of(adapter)
    over = threading.Event()
    script = [receive, send(BEGUN), wait_for(over)] if what == "a reply" else [wait_for(over)]
    context = CERTIFICATES["good"]() if way == "tls" else None

    async def main() -> None:
        residue = Residue(loop, peers=1)
        timeouts = Timeouts(first_byte=0.1)
        client = make(adapter, peer.url, timeouts=timeouts, ssl_context=client_context())
        if what == "a reply":
            async with client.stream("Hello") as reply:
                assert await anext(reply) == "Раз"
        else:
            with pytest.raises(ReplyTimeout):
                await client.complete("x" * 16_000_000)
        await residue.check()
        over.set()
        await client.aclose()

    with ScriptedPeer(script, ssl_context=context) as peer:
        loop.run(main)


@each_adapter
def test_a_reply_whose_client_is_closed_tells_what_has_arrived(adapter: Adapter) -> None:
    loop = loop_of(adapter)
    reading = threading.Event()

    async def main() -> None:
        client = make(adapter, peer.url)

        async def body() -> str:
            async with client.stream("Hello") as reply:
                assert await anext(reply) == "Раз"
                reading.set()
                with pytest.raises((IncompleteReply, UsageError)):
                    await anext(reply)
                return reply.text

        async def close() -> None:
            while not reading.is_set():
                await loop.sleep(0.001)
            await loop.sleep(0.01)
            await client.aclose()

        outcome = await loop.meanwhile_at(1, body, close)
        assert outcome.error is None
        assert outcome.text == "Раз"

    with ScriptedPeer([receive, send(BEGUN), until_client_closes]) as peer:
        loop.run(main)


@each_adapter
def test_two_tasks_cannot_read_one_reply(adapter: Adapter) -> None:
    loop = loop_of(adapter)

    async def main() -> None:
        async with make(adapter, peer.url) as client, client.stream("Hello") as reply:
            assert await anext(reply) == "Раз"

            async def read() -> str:
                reading.set()
                return await anext(reply)

            async def read_too() -> None:
                while not reading.is_set():
                    await loop.sleep(0.001)
                with pytest.raises(UsageError):
                    await anext(reply)
                go_on.set()

            outcome = await loop.meanwhile_at(1, read, read_too)
            assert outcome.error is None
            assert outcome.text == "два"

    reading, go_on = threading.Event(), threading.Event()
    script = [receive, send(BEGUN), wait_for(go_on), send(chunk("два"))]
    with ScriptedPeer([*script, until_client_closes]) as peer:
        loop.run(main)


@each_adapter
def test_a_client_belongs_to_the_loop_that_it_was_first_used_on(adapter: Adapter) -> None:
    clients: list[Client] = []

    async def use() -> None:
        clients.append(make(adapter, peer.url))
        assert await clients[0].complete(QUICK) == WELL
        await on_another_loop(adapter, use_again)
        assert await clients[0].complete(QUICK) == WELL
        await clients[0].aclose()

    async def use_again() -> None:
        with pytest.raises(UsageError, match="event loop"):
            await clients[0].complete(QUICK)

    with ScriptedPeer([repeat(receive, send(chunked(WELL)))]) as peer:
        loop_of(adapter).run(use)
    assert len(peer.requests) == 2


async def on_another_loop(adapter: Adapter, main: Any) -> None:
    """Run something on a second loop of the same kind, in a thread, while this one waits."""
    if loop_of(adapter) is LOOPS["trio"]:
        await trio.to_thread.run_sync(trio.run, main)
    else:
        await asyncio.to_thread(asyncio.run, main())
