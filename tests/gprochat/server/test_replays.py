"""Requests that are recorded and sent again."""

import aiohttp
import pytest

from gprochat.server import replays, serve
from gprochat.server.replays import Replays

from .serving import error_of, send, signed

pytestmark = pytest.mark.anyio


async def test_a_signature_that_has_been_seen_is_refused_if_asked_for(
    session: aiohttp.ClientSession,
) -> None:
    async with serve(replay="refuse") as server:
        request = signed(server.service)
        async with send(session, request) as response:
            assert response.status == 200
        # Only the last message is signed.
        earlier = {"role": "user", "parts": [{"text": "earlier"}]}
        last = {"role": "user", "parts": [{"text": "Hi"}]}
        for changes in ({}, {"messages": [earlier, last]}):
            async with send(session, request, **changes) as response:
                assert response.status == 401
                assert error_of(await response.read()) == {"message": "Invalid signature."}
        async with send(session, signed(server.service, "Hi again")) as response:
            assert response.status == 200


async def test_it_is_accepted_otherwise(session: aiohttp.ClientSession) -> None:
    async with serve() as server:
        request = signed(server.service)
        for _ in range(2):
            async with send(session, request) as response:
                assert response.status == 200


async def test_a_request_that_was_refused_may_be_sent_again(
    session: aiohttp.ClientSession,
) -> None:
    async with serve(replay="refuse", password="sesame") as server:
        request = signed(server.service)
        async with send(session, request, **{"pass": "wrong"}) as response:
            assert response.status == 401
        async with send(session, request) as response:
            assert response.status == 200


def test_memory_is_bounded_and_what_is_forgotten_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replays, "MAX_SIGNATURES", 10)
    seen = Replays()
    requests = [(str(time_ms), time_ms) for time_ms in range(100)]
    assert all(seen.is_new(*request) for request in requests)
    assert len(seen._seen) == len(seen._by_time) == 10
    assert not any(seen.is_new(*request) for request in requests)
    assert not seen.is_new("never seen, but too old to tell", 89)
    assert seen.is_new("newer than what is forgotten", 90)
