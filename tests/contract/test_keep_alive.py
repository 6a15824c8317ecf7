"""How long an idle connection is kept for the next call: `Limits(keep_alive=...)` seconds."""

from time import monotonic
from typing import Final

import pytest

from gprochat_core import Limits
from tests.contract.adapters import Adapter
from tests.contract.conftest import Happens, MakeClient
from tests.peers.scripted import Script, ScriptedPeer, receive, repeat, send
from tests.peers.wire import chunked

OK: Final[Script] = [repeat(receive, send(chunked("fine")))]

KEEP_ALIVE: Final = 0.4
"""Seconds."""

SLACK: Final = 1.0
"""Seconds by which a connection may be closed late on a machine that is busy."""

BRIEFLY: Final = Limits(keep_alive=KEEP_ALIVE)

NOT_AT_ALL: Final = Limits(keep_alive=0)

not_on = pytest.mark.not_on
not_on_plain_httpx = not_on(
    "given-httpx@asyncio", "the client that was passed says how long it keeps connections"
)
not_on_httpx2 = not_on("httpx2@asyncio", "httpx closes an old connection at its next request")


@not_on_plain_httpx
@not_on_httpx2
@not_on("httpx@blocking", "between two calls there is no thread that could close anything")
async def test_an_idle_connection_is_closed_in_time_without_a_further_call(
    make_client: MakeClient, happens: Happens
) -> None:
    with ScriptedPeer(OK) as peer:
        async with make_client(peer.url, limits=BRIEFLY) as client:
            assert await client.complete("Hello") == "fine"
            idle_since = monotonic()
            # aiohttp looks at its idle connections once in each such span.
            assert await happens(peer.connections[0].client_closed, 2 * KEEP_ALIVE + SLACK)
    closed_at = peer.connections[0].client_closed_at
    assert closed_at is not None
    assert closed_at - idle_since > 0.9 * KEEP_ALIVE


@not_on_plain_httpx
async def test_an_idle_connection_that_is_too_old_is_not_used_again(
    make_client: MakeClient, happens: Happens, adapter: Adapter
) -> None:
    with ScriptedPeer(OK) as peer:
        async with make_client(peer.url, limits=BRIEFLY) as client:
            assert await client.complete("Hello") == "fine"
            await adapter.loop.sleep(1.2 * KEEP_ALIVE)
            assert await client.complete("Hello") == "fine"
            assert len(peer.connections) == 2
            assert await happens(peer.connections[0].client_closed)


async def test_a_connection_is_kept_as_long_as_calls_follow_each_other_in_time(
    make_client: MakeClient, adapter: Adapter
) -> None:
    with ScriptedPeer(OK) as peer:
        async with make_client(peer.url, limits=Limits(keep_alive=2 * KEEP_ALIVE)) as client:
            for _ in range(4):
                assert await client.complete("Hello") == "fine"
                await adapter.loop.sleep(0.7 * KEEP_ALIVE)
    assert len(peer.connections) == 1


@not_on_plain_httpx
@not_on_httpx2
async def test_without_keep_alive_each_call_has_its_own_connection_and_closes_it(
    make_client: MakeClient, happens: Happens
) -> None:
    with ScriptedPeer(OK) as peer:
        async with make_client(peer.url, limits=NOT_AT_ALL) as client:
            for number in range(2):
                assert await client.complete("Hello") == "fine"
                assert await happens(peer.connections[number].client_closed)
    assert len(peer.connections) == 2
