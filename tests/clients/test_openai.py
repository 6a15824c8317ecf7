"""openai's SDK."""

import asyncio
from collections.abc import Iterator

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from gprochat.gateway import Running
from gprochat_core import Service
from tests.clients.gateways import (
    BROKEN,
    EMPTY,
    GREETING,
    MODEL,
    OVERLOADED,
    PARTIAL,
    RATE_LIMIT,
    TEXT,
    WRONG_KEY,
    failing,
    over,
)
from tests.peers.scripted import closed_port

ASKED: list[ChatCompletionMessageParam] = [{"role": "user", "content": GREETING}]
BREAKING: list[ChatCompletionMessageParam] = [{"role": "user", "content": BROKEN}]
CONVERSATION: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "One"}]},
    {"role": "assistant", "content": "Two"},
    {"role": "user", "content": "Three"},
]
REPEATED = "[user: Be brief.\n\nOne][assistant: Two][user: Three]"


@pytest.fixture
def client(running: Running) -> Iterator[OpenAI]:
    with make(running) as client:
        yield client


def make(running: Running, *, max_retries: int = 0) -> OpenAI:
    return OpenAI(base_url=running.base_url, api_key=running.key, max_retries=max_retries)


def ask(client: OpenAI, prompt: str = GREETING) -> object:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": prompt}]
    completion = client.chat.completions.create(model=MODEL, messages=messages)
    return completion.choices[0].message.content


def test_a_whole_chat_completion(client: OpenAI) -> None:
    completion = client.chat.completions.create(model=MODEL, messages=ASKED)
    (choice,) = completion.choices
    assert choice.message.content == TEXT
    assert choice.finish_reason == "stop"
    assert completion.model == MODEL
    assert completion.usage is None


def test_a_streamed_chat_completion(client: OpenAI) -> None:
    with client.chat.completions.create(model=MODEL, messages=ASKED, stream=True) as stream:
        chunks = list(stream)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == TEXT
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
    assert all(chunk.usage is None for chunk in chunks)


def test_the_sdks_own_collector_reads_a_stream(client: OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=ASKED) as stream:
        stream.until_done()
        assert stream.get_final_completion().choices[0].message.content == TEXT


def test_a_conversation_reaches_the_service_whole(client: OpenAI) -> None:
    completion = client.chat.completions.create(model=MODEL, messages=CONVERSATION)
    assert completion.choices[0].message.content == REPEATED


def test_an_empty_reply_is_an_empty_message(client: OpenAI) -> None:
    assert ask(client, EMPTY) == ""


def test_a_stop_sequence_ends_a_stream(client: OpenAI) -> None:
    stream = client.chat.completions.create(model=MODEL, messages=ASKED, stop="ld", stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Hello, wör"


def test_a_setting_that_is_ignored_is_named(client: OpenAI) -> None:
    response = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=ASKED, temperature=0.5, seed=1
    )
    assert response.headers["x-gprochat-ignored"] == "seed, temperature"
    assert response.parse().choices[0].message.content == TEXT


def test_the_request_id_is_the_sdks(client: OpenAI) -> None:
    completion = client.chat.completions.create(model=MODEL, messages=ASKED)
    assert completion._request_id


def test_a_whole_response(client: OpenAI) -> None:
    response = client.responses.create(model=MODEL, input=GREETING)
    assert response.output_text == TEXT
    assert response.status == "completed"
    assert response.usage is None


def test_the_instructions_of_a_response_reach_the_service(client: OpenAI) -> None:
    response = client.responses.create(
        model=MODEL,
        instructions="Be brief.",
        input=[{"role": "assistant", "content": "Two"}, {"role": "user", "content": "Three"}],
        store=False,
    )
    assert response.output_text == "[assistant: Two][user: Be brief.\n\nThree]"


def test_a_streamed_response(client: OpenAI) -> None:
    with client.responses.create(model=MODEL, input=GREETING, stream=True) as stream:
        events = list(stream)
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == TEXT
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == TEXT
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_the_sdks_own_collector_reads_a_streamed_response(client: OpenAI) -> None:
    with client.responses.stream(model=MODEL, input=GREETING) as stream:
        assert stream.get_final_response().output_text == TEXT


def test_the_models_are_listed(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


def test_a_model_that_does_not_exist_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt")
    assert caught.value.code == "model_not_found"


def test_asynchronous_clients_stream_and_wait(running: Running) -> None:
    async def main() -> None:
        async with AsyncOpenAI(base_url=running.base_url, api_key=running.key) as client:
            stream = await client.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
            texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
            assert "".join(texts) == TEXT
            completion = await client.chat.completions.create(model=MODEL, messages=ASKED)
            assert completion.choices[0].message.content == TEXT
            assert (await client.responses.create(model=MODEL, input=GREETING)).output_text == TEXT
            async with client.responses.stream(model=MODEL, input=GREETING) as events:
                assert (await events.get_final_response()).output_text == TEXT

    asyncio.run(main())


def test_a_wrong_key_is_the_callers_fault(running: Running) -> None:
    with (
        OpenAI(base_url=running.base_url, api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        ask(client)
    assert caught.value.code == "invalid_api_key"


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "f", "parameters": {}}}]),
        ("n", 2),
        ("logprobs", True),
        ("response_format", {"type": "json_object"}),
    ],
)
def test_what_the_service_cannot_do_is_a_bad_request(
    client: OpenAI, param: str, value: object
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=ASKED, extra_body={param: value})
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", param)


def test_a_chat_stream_that_breaks_off_raises_after_its_text(client: OpenAI) -> None:
    texts: list[str] = []
    stream = client.chat.completions.create(model=MODEL, messages=BREAKING, stream=True)
    with pytest.raises(openai.APIError) as caught:
        texts.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "".join(texts) == PARTIAL
    assert caught.value.code == "reply_interrupted"


def test_a_streamed_response_that_breaks_off_raises_after_its_text(client: OpenAI) -> None:
    texts: list[str] = []
    stream = client.responses.create(model=MODEL, input=BROKEN, stream=True)
    with pytest.raises(openai.APIError) as caught:
        texts.extend(e.delta for e in stream if e.type == "response.output_text.delta")
    assert "".join(texts) == PARTIAL
    assert caught.value.code == "reply_interrupted"


def test_a_whole_reply_that_breaks_off_is_an_error_with_the_text(client: OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, BROKEN)
    assert caught.value.status_code == 502
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["partial_text"] == PARTIAL


def test_an_asynchronous_stream_that_breaks_off_raises(running: Running) -> None:
    async def main() -> None:
        async with AsyncOpenAI(base_url=running.base_url, api_key=running.key) as client:
            stream = await client.chat.completions.create(
                model=MODEL, messages=BREAKING, stream=True
            )
            async for _ in stream:
                pass

    with pytest.raises(openai.APIError):
        asyncio.run(main())


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_rate_limit_is_a_rate_limit_error_with_the_time_to_wait(stream: bool) -> None:
    with (
        failing(RATE_LIMIT) as (running, _),
        make(running) as client,
        pytest.raises(openai.RateLimitError) as caught,
    ):
        client.chat.completions.create(model=MODEL, messages=ASKED, stream=stream)
    assert caught.value.response.headers["retry-after"] == "7"


def test_a_wrong_key_of_the_deployment_is_not_the_callers_and_not_repeated() -> None:
    with failing(WRONG_KEY) as (running, peer), make(running, max_retries=2) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client)
        assert caught.value.status_code == 502
        assert caught.value.code == "deployment_key_rejected"
        assert len(peer.requests) == 1


def test_a_call_that_the_gateway_did_not_repeat_is_repeated_by_the_sdk() -> None:
    with failing(OVERLOADED) as (running, peer), make(running, max_retries=1) as client:
        with pytest.raises(openai.InternalServerError):
            ask(client)
        assert len(peer.requests) == 2


def test_a_call_that_the_gateway_has_repeated_is_not_repeated_by_the_sdk() -> None:
    with failing(OVERLOADED, attempts=3) as (running, peer), make(running, max_retries=1) as client:
        with pytest.raises(openai.InternalServerError):
            ask(client)
        assert len(peer.requests) == 3


def test_no_connection_to_the_deployment_is_a_502() -> None:
    with (
        closed_port() as port,
        over(Service(f"http://127.0.0.1:{port}", secret_key="made up")) as running,
        make(running) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        ask(client)
    assert caught.value.code == "deployment_unreachable"
