"""A whole conversation with the embedded service, in every dialect and several scripts."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from gprochat.server import Server, in_thread, serve
from gprochat_core import (
    Encoding,
    InterruptedReply,
    Message,
    PasswordRejected,
    ServiceFailed,
    SignatureRejected,
)
from tests.contract.conftest import MakeClient

CONVERSATION = [
    Message("system", "Отвечай кратко."),
    Message("user", "Hello, ты кто? 🙂"),
    Message("assistant", "こんにちは、世界"),
    Message("user", "Ещё раз, please: 👩‍👩‍👧"),
]

SEEN: dict[Encoding, list[tuple[str, str]]] = {
    "native": [
        ("user", "Отвечай кратко.\n\nHello, ты кто? 🙂"),
        ("assistant", "こんにちは、世界"),
        ("user", "Ещё раз, please: 👩‍👩‍👧"),
    ],
    "flattened": [
        (
            "user",
            (
                "System: Отвечай кратко.\nUser: Hello, ты кто? 🙂\nAssistant: こんにちは、世界\n"
                "User: Ещё раз, please: 👩‍👩‍👧\nAssistant:"
            ),
        )
    ],
    "content": [(message.role, message.text) for message in CONVERSATION],
}


async def repeat_all(messages: tuple[Message, ...]) -> AsyncIterator[str]:
    """Answer with the whole conversation, a character at a time."""
    for message in messages:
        for character in f"{message.role}: {message.text}\n":
            yield character


async def fail_late(messages: tuple[Message, ...]) -> AsyncIterator[str]:
    yield "Начало "
    raise RuntimeError


async def fail_at_once(messages: tuple[Message, ...]) -> AsyncIterator[str]:
    raise RuntimeError
    yield ""


@pytest.fixture
def server() -> Iterator[Server]:
    with in_thread(serve(repeat_all, password="пароль", grace=0.0)) as server:
        yield server


@pytest.mark.parametrize("encoding", ["native", "flattened", "content"])
async def test_a_conversation_arrives_and_its_reply_comes_back(
    make_client: MakeClient, server: Server, encoding: Encoding
) -> None:
    async with (
        make_client(service=replace(server.service, encoding=encoding)) as client,
        client.stream(CONVERSATION) as reply,
    ):
        pieces = [text async for text in reply]
    assert "".join(pieces) == "".join(f"{role}: {text}\n" for role, text in SEEN[encoding])


async def test_turn_after_turn_of_a_conversation(make_client: MakeClient, server: Server) -> None:
    messages: list[Message] = []
    async with make_client(service=server.service) as client:
        for prompt in ("Раз", "два 🙂", "三"):
            messages.append(Message("user", prompt))
            answer = await client.complete(messages)
            assert answer == "".join(f"{one.role}: {one.text}\n" for one in messages)
            messages.append(Message("assistant", answer))


async def test_a_wrong_key_and_a_wrong_password_are_told_apart(
    make_client: MakeClient, server: Server
) -> None:
    async with make_client(service=replace(server.service, secret_key="another")) as client:
        with pytest.raises(SignatureRejected):
            await client.complete("Hello")
    async with make_client(service=replace(server.service, password="another")) as client:
        with pytest.raises(PasswordRejected):
            await client.complete("Hello")


async def test_a_model_that_fails_at_once(make_client: MakeClient) -> None:
    with in_thread(serve(fail_at_once, grace=0.0)) as server:
        async with make_client(service=server.service) as client:
            with pytest.raises(ServiceFailed):
                await client.complete("Hello")


async def test_a_model_that_fails_half_way(make_client: MakeClient) -> None:
    with in_thread(serve(fail_late, grace=0.0)) as server:
        async with make_client(service=server.service) as client:
            with pytest.raises(InterruptedReply) as caught:
                await client.complete("Hello")
    assert caught.value.text == "Начало "
