"""The connections that the aiohttp adapter makes."""

import asyncio

import pytest
from aiohttp.client_proto import ResponseHandler

from gprochat_core import Service
from gprochat_transports.aiohttp import Client
from tests.peers.scripted import ScriptedPeer, receive, send
from tests.peers.wire import LAST_CHUNK, chunk, head


def test_a_connection_that_has_not_paused_is_not_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp resumes a connection after each read, and has its parser parse nothing."""
    received: list[bytes] = []
    receive_data = ResponseHandler.data_received

    def note(protocol: ResponseHandler, data: bytes) -> None:
        received.append(data)
        receive_data(protocol, data)

    async def main(service: Service) -> None:
        async with Client(service, proxy=None) as client:
            assert await client.complete("Hello") == "aaaa"

    monkeypatch.setattr(ResponseHandler, "data_received", note)
    begin = head(200, "transfer-encoding: chunked")
    with ScriptedPeer([receive, send(begin, *[chunk("a")] * 4, LAST_CHUNK, every=0.01)]) as peer:
        asyncio.run(main(Service(peer.url, secret_key="made up")))
    assert received
    assert b"" not in received
