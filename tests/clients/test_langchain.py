"""LangChain's client for OpenAI's API."""

import asyncio

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI

from gprochat.gateway import Running
from tests.clients.gateways import BROKEN, GREETING, MODEL, PARTIAL, RATE_LIMIT, TEXT, failing

both_apis = pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])


def make(running: Running, *, responses: bool = False) -> ChatOpenAI:
    return ChatOpenAI(
        model=MODEL,
        base_url=running.base_url,
        api_key=running.key,
        max_retries=0,
        use_responses_api=responses,
    )


@both_apis
def test_a_whole_reply(running: Running, responses: bool) -> None:
    reply = make(running, responses=responses).invoke(GREETING)
    assert reply.text == TEXT
    assert reply.usage_metadata is None


@both_apis
def test_a_streamed_reply(running: Running, responses: bool) -> None:
    chunks = list(make(running, responses=responses).stream(GREETING))
    assert "".join(chunk.text for chunk in chunks) == TEXT


@both_apis
def test_a_conversation_reaches_the_service_whole(running: Running, responses: bool) -> None:
    conversation = [
        SystemMessage("Be brief."),
        HumanMessage("One"),
        AIMessage("Two"),
        HumanMessage("Three"),
    ]
    reply = make(running, responses=responses).invoke(conversation)
    assert reply.text == "[user: Be brief.\n\nOne][assistant: Two][user: Three]"


def test_asynchronous_replies(running: Running) -> None:
    async def main() -> None:
        model = make(running)
        assert (await model.ainvoke(GREETING)).text == TEXT
        assert "".join([chunk.text async for chunk in model.astream(GREETING)]) == TEXT

    asyncio.run(main())


def test_a_stream_that_breaks_off_raises_after_its_text(running: Running) -> None:
    texts: list[str] = []
    with pytest.raises(openai.APIError, match="after 7 characters"):
        texts.extend(chunk.text for chunk in make(running).stream(BROKEN))
    assert "".join(texts) == PARTIAL


def test_a_rate_limit_is_a_rate_limit_error() -> None:
    with failing(RATE_LIMIT) as (running, _), pytest.raises(openai.RateLimitError):
        make(running).invoke(GREETING)
