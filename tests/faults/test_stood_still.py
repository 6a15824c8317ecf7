"""A program that blocks its event loop past a time limit does not lose a reply that went on."""

from time import sleep
from typing import Final

import anyio
import pytest

from gprochat_core import Service, Timeouts
from tests.contract.adapters import ADAPTERS, Adapter, Blocking
from tests.peers.scripted import ScriptedPeer, receive, send
from tests.peers.wire import LAST_CHUNK, chunk, head

LIMIT: Final = 0.2

PIECES: Final = 8

BEGIN: Final = head(200, "transfer-encoding: chunked")

# A blocking client has no event loop that other code could block.
LOOPED: Final = [adapter for adapter in ADAPTERS if not isinstance(adapter.loop, Blocking)]


async def stand_still() -> None:
    await anyio.sleep(LIMIT / 10)
    sleep(2 * LIMIT)  # noqa: ASYNC251 - that is what it is for


@pytest.mark.parametrize("adapter", LOOPED, ids=lambda adapter: adapter.name)
def test_a_reply_that_went_on_is_whole(adapter: Adapter) -> None:
    script = [receive, send(BEGIN, *[chunk("a")] * PIECES, LAST_CHUNK, every=LIMIT / 4)]

    async def main() -> None:
        timeouts = Timeouts(first_byte=LIMIT, idle=LIMIT)
        service = Service(peer.url, secret_key="made up")
        async with (
            adapter.make(service, timeouts=timeouts, proxy=None) as client,
            client.stream("Hello") as reply,
            anyio.create_task_group() as group,
        ):
            group.start_soon(stand_still)
            assert "".join([text async for text in reply]) == "a" * PIECES

    with ScriptedPeer(script) as peer:
        adapter.loop.run(main)
