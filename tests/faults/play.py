"""Plays a row of the fault table on an adapter, and checks that the row holds."""

import os
import secrets
import time
import traceback
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

import anyio

from gprochat_core import (
    ConnectError,
    GPROChatError,
    IncompleteReply,
    InterruptedReply,
    NotTheService,
    Service,
)
from tests.contract.adapters import Adapter, Blocking, Client
from tests.faults.certificates import client_context
from tests.faults.fault import Case, Door, Expected, Fault
from tests.faults.peer import WELL, FaultyPeer

__all__ = ["play"]

SOON: Final = 3.0
"""Seconds within which a connection that is not kept must have been closed, on a busy machine too.
An idle connection would be kept for 4."""

SLACK: Final = 1.5
"""Seconds by which a call may end late on a machine that is busy."""


@dataclass
class Outcome:
    """How a call ended."""

    error: GPROChatError | None = None
    pieces: list[str] = field(default_factory=list[str])
    text: str = ""
    attempts: int = 0
    seconds: float = 0.0


def play(fault: Fault, adapter: Adapter) -> None:
    """Play a row.

    Raises:
        AssertionError: a case did not come to what it must.
        Exception: any that a client let through that is not its own.
    """
    before = open_files()
    with FaultyPeer(fault) as peer, peer.resolver():

        async def main() -> None:
            # Over plain http the client sends a password to loopback only.
            password = None if fault.proxy and fault.scheme == "http" else secrets.token_hex()
            service = Service(peer.service_url, secret_key=secrets.token_hex(), password=password)
            async with adapter.make(
                service,
                timeouts=fault.timeouts,
                retry=fault.retry,
                limits=fault.limits,
                proxy=peer.proxy_url,
                ssl_context=client_context(),
            ) as client:
                for case in fault.cases:
                    await Play(adapter, fault, peer, client, service).play(case)
            await until_closed(adapter, peer, 0, "left open by the client")

        adapter.loop.run(main)
    assert open_files() <= before, "file descriptors are left open"


@dataclass
class Play:
    """One client's calls to one peer."""

    adapter: Adapter
    fault: Fault
    peer: FaultyPeer
    client: Client
    service: Service

    async def play(self, case: Case) -> None:
        """Play one case, and check that the next call succeeds."""
        peer, client = self.peer, self.client
        expected, _ = case.exceptions.get(self.adapter.name, (case.expected, ""))
        if expected is None:
            return
        if case.warm_up is not None:
            peer.warm_up(case)
            assert await client.complete("Hello") == WELL
            while not peer.warm.is_set():
                await pause(self.adapter, 0.002)
            await pause(self.adapter, 0.05)
        peer.fall_ill(case)
        connections, requests = len(peer.connections), len(peer.requests)
        outcome = await self._call()
        peer.over.set()
        check(outcome, expected, self.service)
        if self.fault.door is Door.OPEN:
            # Where the fault precedes the request, each attempt has its own connection.
            seen = (
                len(peer.connections) - connections
                if self.fault.first or self.fault.certificate not in (None, "good")
                else len(peer.requests) - requests
            )
            assert seen == (expected.seen or expected.attempts), f"the peer saw {seen} attempts"
        if not case.kept and is_final(outcome.error):
            await until_closed(self.adapter, peer, connections, "left open by the call")
        peer.recover()
        assert await client.complete("Again") == WELL

    async def _call(self) -> Outcome:
        outcome = Outcome()
        begun = monotonic()
        reply = self.client.stream(self.fault.prompt)
        try:
            async with reply:
                async for piece in reply:
                    assert piece
                    outcome.pieces.append(piece)
        except GPROChatError as error:
            outcome.error = error
        outcome.seconds = monotonic() - begun
        outcome.text = reply.text
        outcome.attempts = reply.attempts
        return outcome


def check(outcome: Outcome, expected: Expected, service: Service) -> None:
    """Compare how a call ended with how it must end."""
    error = outcome.error
    assert type(error) is (expected.error or type(None)), f"{error!r}"
    assert outcome.text == expected.text
    yielded = "".join(outcome.pieces)
    if error is None:
        assert yielded == expected.text
    else:
        assert expected.text.startswith(yielded)
        if isinstance(error, IncompleteReply):
            assert error.text == expected.text
        attributes = {name: getattr(error, name) for name in expected.attributes}
        assert attributes == dict(expected.attributes)
        told = "".join(traceback.format_exception(error, limit=0))
        for secret in filter(None, (service.secret_key, service.password)):
            assert secret not in told
    assert outcome.attempts == expected.attempts
    if expected.seconds is not None:
        assert expected.seconds * 0.9 <= outcome.seconds < expected.seconds + SLACK


def is_final(error: GPROChatError | None) -> bool:
    """Tell whether the connection of a call that failed so cannot be used again."""
    if isinstance(error, NotTheService):
        return error.status == 0
    if isinstance(error, InterruptedReply):
        return False
    return isinstance(error, (ConnectError, IncompleteReply))


async def until_closed(adapter: Adapter, peer: FaultyPeer, first: int, complaint: str) -> None:
    """Wait until the connections from `first` on are closed."""
    deadline = monotonic() + SOON
    while not all(connection.ended.is_set() for connection in peer.connections[first:]):
        assert monotonic() < deadline, f"a connection is {complaint}"
        await pause(adapter, 0.002)


async def pause(adapter: Adapter, seconds: float) -> None:
    """Let some time pass, during which the loop runs."""
    if isinstance(adapter.loop, Blocking):
        time.sleep(seconds)  # noqa: ASYNC251 - there is no loop
    else:
        await anyio.sleep(seconds)


def open_files() -> int:
    """Return how many file descriptors are open; 0 where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0
