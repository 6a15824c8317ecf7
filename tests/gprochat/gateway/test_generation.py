"""Pieces of a deployment reach the caller at once, cut at stop sequences, and errors after them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gprochat.gateway.requests import API
from gprochat.server import serve
from gprochat_core import Message, RetryPolicy
from tests.gprochat.server.serving import Watched, answer_of, failing, in_time
from tests.peers.scripted import ScriptedPeer, receive, reset, send
from tests.peers.wire import chunked

from .calling import PATHS, calling, model_of, models_of, request_of
from .events import deltas, events_of

pytestmark = pytest.mark.anyio

APIS: list[API] = ["chat", "responses"]
NEVER = RetryPolicy(max_attempts=1)

parametrize_api = pytest.mark.parametrize("api", APIS)
parametrize_stream = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


class TestAReply:
    @parametrize_api
    @parametrize_stream
    async def test_has_the_text_of_the_deployment(self, api: API, stream: bool) -> None:
        async with (
            serve(answer_of("Hel", "lo \u2028", "🙂")) as server,
            calling(model_of(server.service)) as caller,
        ):
            reply = await caller.ask(api, stream=stream)
        assert reply.status == 200
        assert reply.text == "Hello \u2028🙂"
        assert not stream or reply.complete

    @parametrize_api
    @parametrize_stream
    async def test_may_be_empty(self, api: API, stream: bool) -> None:
        async with serve(answer_of()) as server, calling(model_of(server.service)) as caller:
            reply = await caller.ask(api, stream=stream)
        assert (reply.status, reply.text) == (200, "")
        assert not stream or reply.complete

    async def test_is_to_the_whole_conversation(self) -> None:
        watched = Watched("a")
        watched.proceed.set()
        conversation = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": [{"type": "text", "text": "What?"}]},
        ]
        async with serve(watched) as server, calling(model_of(server.service)) as caller:
            await caller.ask(messages=conversation)
        assert watched.messages == (
            Message("user", "Be brief.\n\nHi"),
            Message("assistant", "Hello"),
            Message("user", "What?"),
        )

    @parametrize_api
    async def test_is_one_event_for_each_piece_and_no_piece_waits_for_the_next(
        self, api: API
    ) -> None:
        pieces = [f"piece {number}" for number in range(10)]
        arrived = asyncio.Semaphore(0)

        async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
            for piece in pieces:
                yield piece
                await arrived.acquire()

        async with serve(answer) as server, calling(model_of(server.service)) as caller:
            url = f"{caller.url}{PATHS[api]}"
            body = request_of(api, stream=True)
            async with caller.session.post(url, json=body) as response:
                seen = b""
                for piece in pieces:
                    while piece.encode() not in seen:
                        seen += await response.content.readany()
                    arrived.release()
                seen += await response.read()
        assert deltas(events_of(seen)) == pieces

    async def test_of_a_caller_without_stream_is_one_json_object(self) -> None:
        async with serve(answer_of("Hi")) as server, calling(model_of(server.service)) as caller:
            reply = await caller.ask()
        assert reply.headers["content-type"] == "application/json"
        assert reply.json["usage"] is None

    @pytest.mark.parametrize("size", [100_000])
    async def test_to_a_large_conversation_is_like_any_other(self, size: int) -> None:
        async with serve(answer_of("Hi")) as server, calling(model_of(server.service)) as caller:
            reply = await caller.ask(messages=[{"role": "user", "content": "x" * size}])
        assert reply.text == "Hi"

    async def test_of_large_pieces_to_a_slow_reader_is_whole(self) -> None:
        piece = "Hello, world! " * 30_000
        async with (
            serve(answer_of(piece, piece, piece)) as server,
            calling(model_of(server.service)) as caller,
        ):
            url = f"{caller.url}{PATHS['chat']}"
            async with caller.session.post(url, json=request_of("chat", stream=True)) as response:
                await asyncio.sleep(0.2)
                data = await response.read()
        assert "".join(deltas(events_of(data))) == piece * 3


class TestStop:
    @parametrize_api
    @parametrize_stream
    async def test_cuts_the_text_and_ends_the_reply_of_the_deployment(
        self, api: API, stream: bool
    ) -> None:
        # The answer waits for ever after these pieces.
        watched = Watched("one t", "wo EN", "D three")
        async with serve(watched) as server, calling(model_of(server.service)) as caller:
            reply = await caller.ask(api, stream=stream, stop=["END", "STOP"])
            await in_time(watched.closed.wait())
        assert reply.text == "one two "
        assert not stream or reply.complete

    @parametrize_api
    @parametrize_stream
    async def test_that_never_comes_changes_nothing(self, api: API, stream: bool) -> None:
        async with (
            serve(answer_of("one ", "two E")) as server,
            calling(model_of(server.service)) as caller,
        ):
            reply = await caller.ask(api, stream=stream, stop="END")
        assert reply.text == "one two E"

    async def test_may_be_all_that_the_deployment_says(self) -> None:
        async with serve(answer_of("END")) as server, calling(model_of(server.service)) as caller:
            streamed = await caller.ask(stream=True, stop="END")
            whole = await caller.ask(stop="END")
        assert (streamed.text, whole.text) == ("", "")
        assert streamed.complete


class TestAReplyThatBreaksOff:
    @parametrize_api
    async def test_a_whole_reply_that_breaks_off_tells_the_partial_text(self, api: API) -> None:
        async with (
            serve(failing("Hel", "lo ", error=ValueError("no"))) as server,
            calling(model_of(server.service)) as caller,
        ):
            reply = await caller.ask(api)
        assert (reply.status, reply.error["code"]) == (502, "reply_interrupted")
        assert reply.error["partial_text"] == "Hello "

    async def test_a_partial_text_holds_what_a_stop_sequence_held_back(self) -> None:
        async with (
            serve(failing("Hello E", error=ValueError("no"))) as server,
            calling(model_of(server.service)) as caller,
        ):
            reply = await caller.ask(stop="END")
            streamed = await caller.ask(stream=True, stop="END")
        assert reply.error["partial_text"] == "Hello E"
        assert streamed.text == "Hello E"

    @parametrize_api
    async def test_a_stream_that_breaks_off_ends_with_an_error(self, api: API) -> None:
        cut = chunked("Hel", "lo Inter")[:-5]
        with ScriptedPeer([receive, send(cut), reset]) as peer:
            async with calling(models_of(peer.url)) as caller:
                reply = await caller.ask(api, stream=True)
        assert reply.status == 200
        assert reply.error["code"] == "reply_truncated"
        assert not reply.complete
        # The beginning of the failure marker was held back, and is text after all.
        assert reply.text == "Hello Inter"
