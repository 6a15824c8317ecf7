"""Any body is a request or is refused by the name of the parameter."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gprochat.gateway.requests import API, Asked, Invalid, read_request
from gprochat_core import Message
from tests.core.strategies import sendable, texts

USER = {"role": "user", "content": "Hi"}
IMAGE = [{"type": "text", "text": "What is it?"}, {"type": "image_url"}]
APIS: list[API] = ["chat", "responses"]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
parts = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["text", "input_text", "image_url"]) | json_values,
        "text": json_values,
    },
)
items = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "system", "tool"]) | json_values,
        "content": json_values | st.lists(parts, max_size=3),
        "type": st.sampled_from(["message", "reasoning"]) | json_values,
        "name": json_values,
        "tool_calls": json_values,
    },
)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "model": st.text() | json_values,
        "messages": st.lists(items | json_values, max_size=3) | json_values,
        "input": st.lists(items | json_values, max_size=3) | json_values,
        "instructions": json_values,
        "stream": json_values,
        "stream_options": json_values,
        "stop": json_values,
        "text": json_values,
        "n": json_values,
        "tools": json_values,
        "temperature": json_values,
        "response_format": json_values,
    },
)


def read(api: API = "chat", *, strict: bool = False, **fields: Any) -> Asked:
    filled = {"model": "m", ("messages" if api == "chat" else "input"): [USER], **fields}
    return read_request(json.dumps(filled).encode(), api, strict=strict)


def refusal(api: API = "chat", *, strict: bool = False, **fields: Any) -> tuple[str | None, str]:
    with pytest.raises(Invalid) as caught:
        read(api, strict=strict, **fields)
    assert caught.value.status == 400
    return caught.value.param, caught.value.code


class TestAnyBody:
    @given(json_values | bodies, st.sampled_from(APIS), st.booleans())
    @example({"model": "m", "messages": [{"role": [], "content": [{"type": []}]}]}, "chat", False)
    def test_any_json_is_a_request_or_is_refused(
        self, body: object, api: API, strict: bool
    ) -> None:
        with suppress(Invalid):
            asked = read_request(json.dumps(body).encode(), api, strict=strict)
            assert asked.messages[-1].role == "user"
            assert all(asked.stop)
            assert not (strict and asked.ignored)

    @given(st.binary(), st.sampled_from(APIS))
    def test_any_bytes_are_a_request_or_are_refused(self, body: bytes, api: API) -> None:
        with pytest.raises(Invalid):
            read_request(body, api)

    @pytest.mark.parametrize("opening", [b"[", b'{"a":'])
    def test_what_is_nested_ten_thousand_deep_is_refused(self, opening: bytes) -> None:
        with pytest.raises(Invalid) as caught:
            read_request(b'{"messages":' + opening * 10_000, "chat")
        assert caught.value.status == 400

    def test_a_parameter_that_is_nested_ten_thousand_deep_is_refused(self) -> None:
        body = b'{"model":"m","messages":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
        with pytest.raises(Invalid) as caught:
            read_request(body, "chat")
        assert caught.value.status == 400

    @pytest.mark.parametrize("body", [b"", b"Hello", b'"Hello"', b"[]", b"{", b"\xff", b"NaN"])
    def test_what_is_no_json_object_is_refused(self, body: bytes) -> None:
        with pytest.raises(Invalid) as caught:
            read_request(body, "chat")
        assert (caught.value.param, caught.value.code) == (None, "invalid_json")


class TestMessages:
    @given(sendable)
    def test_a_conversation_is_read_as_it_is(self, conversation: list[Message]) -> None:
        written = [{"role": each.role, "content": each.text} for each in conversation]
        assert read(messages=written).messages == tuple(conversation)
        assert read("responses", input=written).messages == tuple(conversation)

    @given(st.lists(texts), st.sampled_from(["text", "input_text"]))
    def test_text_parts_are_joined(self, parts: list[str], kind: str) -> None:
        content = [{"type": kind, "text": part} for part in parts]
        asked = read(messages=[{"role": "user", "content": content}])
        assert asked.messages == (Message("user", "".join(parts)),)

    def test_a_developer_is_the_system(self) -> None:
        asked = read(messages=[{"role": "developer", "content": "Be brief."}, USER])
        assert asked.messages[0] == Message("system", "Be brief.")

    def test_an_input_may_be_a_string_and_instructions_come_first(self) -> None:
        asked = read("responses", input="Hi", instructions="Be brief.")
        assert asked.messages == (Message("system", "Be brief."), Message("user", "Hi"))

    def test_an_output_may_be_part_of_the_next_input(self) -> None:
        output = {
            "id": "msg_1",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Yes", "annotations": [], "logprobs": []}],
        }
        asked = read("responses", input=[USER, output, USER])
        assert asked.messages[1] == Message("assistant", "Yes")
        assert asked.ignored == ()

    def test_an_assistant_may_have_said_nothing(self) -> None:
        asked = read(messages=[{"role": "assistant", "content": None}, USER])
        assert asked.messages[0] == Message("assistant", "")

    @pytest.mark.parametrize(
        ("messages", "param", "code"),
        [
            (None, "messages", "missing_required_parameter"),
            ("Hi", "messages", "invalid_type"),
            ({}, "messages", "invalid_type"),
            ([], "messages", "invalid_messages"),
            (["Hi"], "messages[0]", "invalid_type"),
            ([{"content": "Hi"}], "messages[0].role", "invalid_value"),
            ([USER, {"role": "tool", "content": "1"}], "messages[1].role", "invalid_value"),
            ([{"role": "user"}], "messages[0].content", "missing_required_parameter"),
            ([{"role": "user", "content": 1}], "messages[0].content", "invalid_type"),
            ([{"role": "user", "content": "\ud800"}], "messages[0].content", "invalid_messages"),
            ([USER, {"role": "assistant", "content": "A"}], "messages", "invalid_messages"),
            (
                [{"role": "user", "content": [{"type": "text", "text": 1}]}],
                "messages[0].content[0].text",
                "invalid_type",
            ),
            (
                [
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": ""}, {"type": "image_url"}],
                    }
                ],
                "messages[0].content[1]",
                "unsupported_parameter",
            ),
            (
                [{"role": "user", "content": [{"type": "input_audio"}]}],
                "messages[0].content[0]",
                "unsupported_parameter",
            ),
            (
                [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, USER],
                "messages[0].tool_calls",
                "unsupported_parameter",
            ),
        ],
    )
    def test_other_messages_are_refused_by_name(
        self, messages: object, param: str, code: str
    ) -> None:
        assert refusal(messages=messages) == (param, code)

    @pytest.mark.parametrize(
        ("fields", "param", "code"),
        [
            ({"input": None}, "input", "missing_required_parameter"),
            ({"input": 1}, "input", "invalid_type"),
            ({"input": []}, "input", "invalid_messages"),
            ({"input": "\ud800"}, "input", "invalid_messages"),
            ({"instructions": []}, "instructions", "invalid_type"),
            ({"input": [{"type": "reasoning"}]}, "input[0].type", "unsupported_parameter"),
            (
                {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
                "input[0].content[0]",
                "unsupported_parameter",
            ),
        ],
    )
    def test_other_inputs_are_refused_by_name(
        self, fields: dict[str, Any], param: str, code: str
    ) -> None:
        assert refusal("responses", **fields) == (param, code)


class TestUnsupported:
    @pytest.mark.parametrize("api", APIS)
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("tools", [{"type": "function"}]),
            ("tool_choice", "required"),
            ("functions", [{"name": "f"}]),
            ("function_call", {"name": "f"}),
            ("n", 2),
            ("n", True),
            ("n", "1"),
            ("logprobs", True),
            ("top_logprobs", 3),
            ("response_format", {"type": "json_object"}),
            ("modalities", ["text", "audio"]),
            ("audio", {"voice": "alloy"}),
            ("prediction", {"type": "content"}),
            ("web_search_options", {}),
            ("previous_response_id", "resp_1"),
            ("conversation", "conv_1"),
            ("background", True),
            ("prompt", {"id": "pmpt_1"}),
            ("include", ["reasoning.encrypted_content"]),
        ],
    )
    def test_what_the_service_cannot_do_is_refused_by_name(
        self, api: API, name: str, value: object
    ) -> None:
        fields: dict[str, Any] = {name: value}
        assert refusal(api, **fields) == (name, "unsupported_parameter")

    def test_a_format_other_than_text_is_refused(self) -> None:
        fields: dict[str, Any] = {"text": {"format": {"type": "json_schema"}}}
        assert refusal("responses", **fields) == ("text.format", "unsupported_parameter")

    @pytest.mark.parametrize("api", APIS)
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("tools", []),
            ("tools", None),
            ("tool_choice", "auto"),
            ("n", 1),
            ("logprobs", False),
            ("response_format", {"type": "text"}),
            ("modalities", ["text"]),
            ("background", False),
            ("stream_options", {"include_usage": True}),
            ("stream_options", {"include_obfuscation": False}),
        ],
    )
    def test_a_value_that_asks_for_nothing_is_understood(
        self, api: API, name: str, value: object
    ) -> None:
        assert read(api, strict=True, **{name: value}).ignored == ()

    def test_the_format_text_is_understood(self) -> None:
        assert read("responses", strict=True, text={"format": {"type": "text"}}).ignored == ()


class TestIgnored:
    def test_settings_that_cannot_be_passed_on_are_named_in_order(self) -> None:
        asked = read(temperature=0.5, max_tokens=10, seed=1, user="me", top_p=None)
        assert asked.ignored == ("max_tokens", "seed", "temperature", "user")

    def test_those_of_messages_and_text_are_named_too(self) -> None:
        assert read(messages=[{**USER, "name": "me"}]).ignored == ("messages.name",)
        assert read("responses", text={"verbosity": "low"}).ignored == ("text.verbosity",)

    @pytest.mark.parametrize("api", APIS)
    def test_those_of_parts_and_of_the_stream_are_named_too(self, api: API) -> None:
        said = "messages" if api == "chat" else "input"
        parts = [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]
        fields: dict[str, Any] = {
            said: [{"role": "user", "content": parts}],
            "stream_options": {"include_usage": True, "include_obfuscation": True},
        }
        assert read(api, **fields).ignored == (
            f"{said}.content.cache_control",
            "stream_options.include_obfuscation",
        )

    def test_a_strict_gateway_refuses_them(self) -> None:
        assert refusal(strict=True, temperature=0) == ("temperature", "unsupported_parameter")

    @pytest.mark.parametrize("name", ["", "a b", "a\r\nb", "a,b", "é", "x" * 65])
    def test_a_name_that_cannot_be_in_a_header_is_refused(self, name: str) -> None:
        fields: dict[str, Any] = {name: 1}
        assert refusal(**fields) == (None, "unknown_parameter")

    def test_more_names_than_a_header_can_hold_are_refused(self) -> None:
        fields: dict[str, Any] = {f"setting_{number}": 1 for number in range(65)}
        _, code = refusal(**fields)
        assert code == "unknown_parameter"


class TestOptions:
    def test_model_stream_and_stop_are_read(self) -> None:
        asked = read(model="gprochat", stream=True, stop="END")
        assert (asked.model, asked.stream, asked.stop) == ("gprochat", True, ("END",))

    @pytest.mark.parametrize("stop", [None, []])
    def test_there_may_be_no_stop_sequence(self, stop: object) -> None:
        assert read(stop=stop).stop == ()

    @pytest.mark.parametrize(
        ("fields", "param", "code"),
        [
            ({"model": None}, "model", "missing_required_parameter"),
            ({"model": 1}, "model", "invalid_type"),
            ({"stream": "yes"}, "stream", "invalid_type"),
            ({"stream_options": 1}, "stream_options", "invalid_type"),
            ({"stop": 1}, "stop", "invalid_type"),
            ({"stop": {}}, "stop", "invalid_type"),
            ({"stop": ["a", 1]}, "stop", "invalid_type"),
            ({"stop": ""}, "stop", "invalid_value"),
            ({"stop": ["a", ""]}, "stop", "invalid_value"),
            ({"stop": "x" * 257}, "stop", "invalid_value"),
            ({"stop": ["x"] * 17}, "stop", "invalid_value"),
        ],
    )
    def test_a_wrong_value_is_refused_by_name(
        self, fields: dict[str, Any], param: str, code: str
    ) -> None:
        assert refusal(**fields) == (param, code)
