"""What the log says of requests, and what it does not."""

import logging
import re

import pytest

from gprochat.gateway.requests import API
from gprochat.server import serve
from gprochat_core import RetryPolicy
from tests.gprochat.server.serving import answer_of, failing

from .calling import KEY, calling, model_of, models_of

pytestmark = pytest.mark.anyio

APIS: list[API] = ["chat", "responses"]
NEVER = RetryPolicy(max_attempts=1)

parametrize_api = pytest.mark.parametrize("api", APIS)
parametrize_stream = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


class TestLog:
    async def test_there_is_one_line_for_a_request_with_its_id(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "gprochat.gateway")
        async with serve(answer_of("Hi")) as server, calling(model_of(server.service)) as caller:
            caplog.clear()
            replies = [await caller.ask(), await caller.ask(stream=True)]
        lines = [each.getMessage() for each in caplog.records if each.name == "gprochat.gateway"]
        assert len(lines) == 2
        for line, reply, mode in zip(lines, replies, ["whole", "streamed"], strict=True):
            assert line.startswith(
                f"{reply.headers['x-request-id']} POST /v1/chat/completions 200 {mode} "
                f"model=gprochat code=- in="
            )
            assert f" out={len(reply.body)} " in line
            assert re.search(r"first_ms=\d+ ms=\d+$", line)

    async def test_two_requests_have_two_ids(self) -> None:
        async with calling(models_of("http://127.0.0.1:1")) as caller:
            replies = [await caller.send("GET", "/health") for _ in range(2)]
        assert len({reply.headers["x-request-id"] for reply in replies}) == 2

    async def test_no_line_has_a_text_a_key_or_a_name_that_a_caller_chose(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        async with (
            serve(
                failing("some reply", error=ValueError("no")), secret_key="very-secret"
            ) as server,
            calling(model_of(server.service)) as caller,
        ):
            for api in APIS:
                for stream in (False, True):
                    await caller.ask(api, stream=stream)
            await caller.ask(model="unknown-model", messages=[{"role": "user", "content": "Ask"}])
            await caller.ask(surprise_setting=1)
            await caller.send("GET", "/unknown-path?with=query")
            await caller.send("PURGE", "/unknown-path")
        gateway = "\n".join(each.getMessage() for each in caplog.records if "gateway" in each.name)
        told = ("some reply", "Ask", KEY, "very-secret", "unknown", "query", "surprise", "PURGE")
        assert gateway
        assert [each for each in told if each in gateway] == []
        assert KEY not in caplog.text

    async def test_a_stream_that_broke_off_is_told_by_its_code(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "gprochat.gateway")
        async with (
            serve(failing("Hi", error=ValueError("no"))) as server,
            calling(model_of(server.service)) as caller,
        ):
            await caller.ask(stream=True)
        assert "200 streamed model=gprochat code=reply_interrupted" in caplog.text
