"""Threads may share a blocking client: each call gets its own reply or its own error, in time."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import monotonic, sleep
from typing import Final

import pytest

from gprochat_core import GPROChatError, Limits, Service
from gprochat_transports.httpx import SyncClient
from tests.contract.adapters import ADAPTERS
from tests.peers.scripted import ScriptedPeer, receive, send, until_client_closes
from tests.peers.wire import chunk, head
from tests.soak import peer as soak_peer
from tests.soak.worker import Callers, open_files

THREADS: Final = 16

CALLS: Final = 20 * THREADS
"""Every third call meets a fault; 20 of each thread are enough for each kind of fault, several
times, in other threads."""

LONGEST: Final = 30.0
"""Seconds that all calls together may take. A few wait 2 seconds each for a time limit."""


@pytest.fixture(scope="module")
def faulty_service() -> Iterator[str]:
    with soak_peer.in_a_process() as url:
        yield url


@pytest.mark.parametrize("connections", [THREADS, 4], ids=["enough slots", "too few slots"])
def test_calls_of_many_threads_do_not_mix_and_leave_nothing_open(
    faulty_service: str, connections: int
) -> None:
    (adapter,) = (adapter for adapter in ADAPTERS if adapter.name == "httpx@blocking")
    callers = Callers(adapter, faulty_service, THREADS, clients=1, connections=connections)
    result = callers.run(0, CALLS)
    assert (result.calls, result.wrong, result.files) == (CALLS, [], 0)
    assert result.seconds < LONGEST


def test_threads_that_wait_for_a_reply_end_when_another_thread_closes_the_client() -> None:
    before = open_files()
    begun = Barrier(THREADS + 1)
    endless = [receive, send(head(200, "transfer-encoding: chunked") + chunk("a"))]
    with ScriptedPeer([*endless, until_client_closes]) as peer:
        service = Service(peer.url, secret_key="made up")
        client = SyncClient(service, limits=Limits(max_connections=THREADS), proxy=None)

        def read() -> str:
            with client.stream("Hello") as reply:
                assert next(reply) == "a"
                begun.wait()
                try:
                    next(reply)
                except GPROChatError:
                    return "an error of this project"
            return "more text"

        with ThreadPoolExecutor(THREADS) as threads:
            ends = [threads.submit(read) for _ in range(THREADS)]
            begun.wait(10)
            closing_at = monotonic()
            client.close()
            outcomes = Counter(end.result(10) for end in ends)
        assert outcomes == {"an error of this project": THREADS}
        assert monotonic() - closing_at < 2.0
    assert open_files() <= before


def test_a_thread_that_waits_for_a_slot_gets_the_one_that_another_thread_releases() -> None:
    once = [receive, send(head(200, "transfer-encoding: chunked") + chunk("a"))]
    with ScriptedPeer([*once, until_client_closes]) as peer:
        service = Service(peer.url, secret_key="made up")
        with (
            SyncClient(service, limits=Limits(max_connections=1), proxy=None) as client,
            ThreadPoolExecutor(THREADS) as threads,
        ):

            def first_text() -> str:
                with client.stream("Hello") as reply:
                    return next(reply)

            with client.stream("Hello") as reply:
                assert next(reply) == "a"
                waiting = [threads.submit(first_text) for _ in range(THREADS)]
                sleep(0.05)
                assert not any(each.done() for each in waiting)
            assert [each.result(10) for each in waiting] == ["a"] * THREADS
    assert len(peer.connections) == THREADS + 1
