"""The bot: each user has a conversation, in order, of what was answered."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from gprochat.server import serve
from gprochat_core import Message, RetryPolicy
from gprochat_transports.aiohttp import Client
from tests.docs.pages import module_of


async def repeat(messages: tuple[Message, ...]) -> AsyncIterator[str]:
    """Answer with all questions of the conversation, after the instructions of the bot."""
    if messages[-1].text == "fail":
        raise RuntimeError("the model failed")
    await asyncio.sleep(0)
    texts = [message.text for message in messages if message.role == "user"]
    yield "|".join(text.rpartition("\n")[2] for text in texts)


def with_bot(play: Callable[[Any], Awaitable[None]]) -> None:
    async def main() -> None:
        async with (
            serve(repeat, grace=0.0) as server,
            Client(server.service, retry=RetryPolicy(max_attempts=1)) as client,
        ):
            await play(module_of("bot", "bot.py").Bot(client))

    asyncio.run(main())


def test_users_have_conversations_of_their_own_and_questions_at_once_are_answered_in_turn() -> None:
    async def play(bot: Any) -> None:
        asked = [("ann", "a1"), ("bob", "b1"), ("ann", "a2"), ("bob", "b2"), ("ann", "a3")]
        answers = await asyncio.gather(*(bot.answer(user, text) for user, text in asked))
        assert answers == ["a1", "b1", "a1|a2", "b1|b2", "a1|a2|a3"]

    with_bot(play)


def test_a_question_that_failed_is_apologised_for_and_not_kept() -> None:
    async def play(bot: Any) -> None:
        assert await bot.answer("ann", "a1") == "a1"
        assert (await bot.answer("ann", "fail")).startswith("Sorry")
        assert await bot.answer("ann", "a2") == "a1|a2"

    with_bot(play)


def test_the_oldest_messages_are_forgotten_and_the_rest_begins_with_the_user() -> None:
    async def play(bot: Any) -> None:
        answers = [await bot.answer("ann", str(number)) for number in range(25)]
        assert answers[-1] == "|".join(map(str, range(4, 25)))
        assert len(bot.chats["ann"].messages) == 40
        assert bot.chats["ann"].messages[0].role == "user"

    with_bot(play)
