"""pydantic-ai, with its models for both of OpenAI's APIs."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from gprochat.gateway import Running
from tests.clients.gateways import BROKEN, GREETING, MODEL, PARTIAL, TEXT

MODELS: Mapping[str, Callable[..., object]] = {
    "chat": OpenAIChatModel,
    "responses": OpenAIResponsesModel,
}


@pytest.fixture(params=MODELS)
def agent(running: Running, request: pytest.FixtureRequest) -> Agent[None, str]:
    provider = OpenAIProvider(base_url=running.base_url, api_key=running.key)
    return Agent(MODELS[request.param](MODEL, provider=provider))


async def collect(agent: Agent[None, str], prompt: str, texts: list[str]) -> None:
    async with agent.run_stream(prompt) as run:
        async for text in run.stream_text(delta=True, debounce_by=None):
            texts.append(text)  # noqa: PERF401 - what has arrived counts when the next one raises


def test_a_whole_reply(agent: Agent[None, str]) -> None:
    assert agent.run_sync(GREETING).output == TEXT


def test_a_streamed_reply(agent: Agent[None, str]) -> None:
    texts: list[str] = []
    asyncio.run(collect(agent, GREETING, texts))
    assert "".join(texts) == TEXT


def test_the_history_and_the_instructions_reach_the_service(agent: Agent[None, str]) -> None:
    first = agent.run_sync("One", instructions="Be brief.")
    assert first.output == "[user: Be brief.\n\nOne]"
    second = agent.run_sync("Two", message_history=first.all_messages())
    assert second.output == f"[user: One][assistant: {first.output}][user: Two]"


def test_a_stream_that_breaks_off_raises_after_its_text(agent: Agent[None, str]) -> None:
    texts: list[str] = []
    with pytest.raises(ModelAPIError, match="after 7 characters"):
        asyncio.run(collect(agent, BROKEN, texts))
    assert "".join(texts) == PARTIAL


def test_tools_are_refused(agent: Agent[None, str]) -> None:
    def dice() -> int:
        """Roll a die."""
        return 4

    with pytest.raises(ModelHTTPError, match="unsupported_parameter") as caught:
        Agent(agent.model, tools=[dice]).run_sync(GREETING)
    assert caught.value.status_code == 400
