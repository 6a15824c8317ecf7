"""Pieces of text become events and bodies that read back as the same text."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprochat.gateway.frames import Frames, error_object, frames_for
from gprochat.gateway.requests import API
from tests.core.strategies import texts

from .events import deltas, events_of

APIS: list[API] = ["chat", "responses"]
ERROR = error_object("It broke.", "deployment_error", "reply_truncated")


def frames(api: API, model: str = "m") -> Frames:
    return frames_for(api, "1", model, 1700000000)


def stream(api: API, *pieces: str, model: str = "m") -> bytes:
    made = frames(api, model)
    return made.begin() + b"".join(map(made.piece, pieces)) + made.end()


@given(st.sampled_from(APIS), st.lists(texts.filter(bool)), st.text())
def test_a_stream_reads_back_as_its_pieces(api: API, pieces: list[str], model: str) -> None:
    assert deltas(events_of(stream(api, *pieces, model=model))) == pieces


@given(st.sampled_from(APIS), st.lists(texts))
def test_events_are_divided_alike_at_any_line_end_that_unicode_has(
    api: API, pieces: list[str]
) -> None:
    data = stream(api, *pieces)
    assert data.isascii()
    assert data.decode().splitlines() == data.decode().split("\n")[:-1]


class TestChat:
    def test_a_stream_names_the_role_then_pieces_then_why_it_finished(self) -> None:
        *chunks, done = [data for _, data in events_of(stream("chat", "Hel", "lo"))]
        choices = [chunk["choices"][0] for chunk in chunks]
        assert [each["delta"] for each in choices] == [
            {"role": "assistant", "content": ""},
            {"content": "Hel"},
            {"content": "lo"},
            {},
        ]
        assert [each["finish_reason"] for each in choices] == [None, None, None, "stop"]
        assert done == "[DONE]"

    def test_every_chunk_has_the_same_head_and_no_usage(self) -> None:
        *chunks, _ = [data for _, data in events_of(stream("chat", "Hi"))]
        for chunk in chunks:
            del chunk["choices"]
            assert chunk == {
                "id": "chatcmpl-1",
                "object": "chat.completion.chunk",
                "created": 1700000000,
                "model": "m",
                "usage": None,
            }

    @given(texts)
    def test_a_whole_completion_has_the_text(self, text: str) -> None:
        body = json.loads(frames("chat").whole(text))
        assert body["object"] == "chat.completion"
        assert body["usage"] is None
        (choice,) = body["choices"]
        assert choice["message"] == {"role": "assistant", "content": text, "refusal": None}
        assert choice["finish_reason"] == "stop"

    def test_a_failure_is_an_error_and_not_the_end(self) -> None:
        assert events_of(frames("chat").fail(ERROR)) == [(None, {"error": ERROR})]


ORDER = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]
"""The events of a response of two pieces."""


class TestResponses:
    def test_a_stream_has_all_events_in_their_order_and_numbers_them(self) -> None:
        events = events_of(stream("responses", "Hel", "lo"))
        assert [name for name, _ in events] == ORDER
        assert [data["type"] for _, data in events] == ORDER
        assert [data["sequence_number"] for _, data in events] == list(range(10))

    def test_the_last_events_have_the_text(self) -> None:
        data = dict(events_of(stream("responses", "Hel", "lo")))
        part = {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}
        item = data["response.output_item.done"]["item"]
        assert data["response.output_text.done"]["text"] == "Hello"
        assert data["response.content_part.done"]["part"] == part
        assert item["content"] == [part]
        completed = data["response.completed"]["response"]
        assert completed["output"] == [item]
        assert completed["status"] == "completed"
        assert completed["usage"] is None

    def test_the_events_of_a_text_name_the_same_item(self) -> None:
        events = events_of(stream("responses", "Hi"))
        idents = {data["item_id"] for _, data in events if "item_id" in data}
        idents |= {data["item"]["id"] for _, data in events if "item" in data}
        assert idents == {"msg_1"}

    @given(texts)
    def test_a_whole_response_has_the_text(self, text: str) -> None:
        body: dict[str, Any] = json.loads(frames("responses").whole(text))
        assert (body["object"], body["status"]) == ("response", "completed")
        (item,) = body["output"]
        assert [part["text"] for part in item["content"]] == [text]

    def test_a_failure_tells_the_partial_text_and_then_the_error(self) -> None:
        made = frames("responses")
        made.begin()
        made.piece("Hel")
        (name, told), (last, error) = events_of(made.fail(ERROR))
        assert (name, last) == ("response.failed", "error")
        assert told["response"]["status"] == "failed"
        assert told["response"]["error"] == {"code": "server_error", "message": "It broke."}
        assert told["response"]["output"][0]["content"][0]["text"] == "Hel"
        assert error["error"] == ERROR
        assert [error[key] for key in ("message", "code", "param")] == [
            "It broke.",
            "reply_truncated",
            None,
        ]
        assert [told["sequence_number"], error["sequence_number"]] == [5, 6]


@pytest.mark.parametrize("api", APIS)
def test_the_frames_of_a_piece_are_one_event(api: API) -> None:
    made = frames(api)
    made.begin()
    assert len(events_of(made.piece("a\n\nb"))) == 1
