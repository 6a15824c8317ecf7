"""The echo."""

import asyncio

import pytest

from gprochat.server import answers, serve
from gprochat_core import Message
from gprochat_transports.aiohttp import Client

pytestmark = pytest.mark.anyio


class TestTheEcho:
    async def test_echo_gives_back_the_last_message_unchanged(self) -> None:
        text = "  Как дела? 🙂\n\n\tAntidisestablishmentarianism,  as ever "
        async with serve() as server, Client(server.service) as client:
            earlier = [Message("user", "Not this"), Message("assistant", "Nor this")]
            assert await client.complete([*earlier, Message("user", text)]) == text

    async def test_echo_streams_word_by_word(self) -> None:
        async with (
            serve() as server,
            Client(server.service) as client,
            client.stream("one two three") as reply,
        ):
            assert [text async for text in reply] == ["one ", "two ", "three"]

    async def test_a_long_echo_is_over_soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(answers, "ECHO_LENGTH", 0.1)
        text = "word " * 3000
        async with asyncio.timeout(1):
            pieces = [piece async for piece in answers.echo((Message("user", text),))]
        assert "".join(pieces) == text
        assert len(pieces) <= 0.1 / answers.ECHO_PAUSE
