"""LiteLLM, which calls the gateway as an OpenAI-compatible provider."""

import asyncio
from collections.abc import Mapping

import litellm
import openai
import pytest

from gprochat.gateway import Running
from tests.clients.gateways import (
    BROKEN,
    GREETING,
    MODEL,
    PARTIAL,
    RATE_LIMIT,
    TEXT,
    WRONG_KEY,
    failing,
)

ASKED = [{"role": "user", "content": GREETING}]


def settings(running: Running) -> Mapping[str, object]:
    return {
        "model": f"openai/{MODEL}",
        "api_base": running.base_url,
        "api_key": running.key,
        "max_retries": 0,
    }


def test_a_whole_reply(running: Running) -> None:
    reply = litellm.completion(messages=ASKED, **settings(running))
    assert reply.choices[0].message.content == TEXT


def test_a_streamed_reply(running: Running) -> None:
    stream = litellm.completion(messages=ASKED, stream=True, **settings(running))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == TEXT


def test_a_response(running: Running) -> None:
    assert litellm.responses(input=GREETING, **settings(running)).output_text == TEXT


def test_asynchronous_replies(running: Running) -> None:
    async def main() -> None:
        reply = await litellm.acompletion(messages=ASKED, **settings(running))
        assert reply.choices[0].message.content == TEXT
        stream = await litellm.acompletion(messages=ASKED, stream=True, **settings(running))
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(texts) == TEXT

    asyncio.run(main())


def test_a_stream_that_breaks_off_raises_after_its_text(running: Running) -> None:
    messages = [{"role": "user", "content": BROKEN}]
    texts: list[str] = []
    stream = litellm.completion(messages=messages, stream=True, **settings(running))
    with pytest.raises(openai.APIError, match="after 7 characters"):
        texts.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    # LiteLLM holds a few characters back, to look for a provider's special words.
    assert PARTIAL.startswith("".join(texts))


def test_a_rate_limit_is_a_rate_limit_error() -> None:
    with failing(RATE_LIMIT) as (running, _), pytest.raises(openai.RateLimitError):
        litellm.completion(messages=ASKED, **settings(running))


def test_a_wrong_key_of_the_deployment_is_a_bad_gateway() -> None:
    with (
        failing(WRONG_KEY) as (running, _),
        pytest.raises(openai.APIStatusError, match="secret key") as caught,
    ):
        litellm.completion(messages=ASKED, **settings(running))
    assert caught.value.status_code == 502
