"""The service's half: what a client builds is accepted, and all else refused in a fixed order."""

import codecs
import hmac
import json
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gprochat_core import (
    Acceptance,
    Accepted,
    ConfigurationError,
    Draft,
    Message,
    Refusal,
    ReplyParser,
    Service,
    SignatureRejected,
    Signer,
)
from gprochat_core.acceptance import FRESHNESS_MS, REPLY_CONTENT_TYPE, error_body

from . import strategies

KEY: Final = "ключ:key"
PASSWORD: Final = "открой?"
SERVICE: Final = Service("https://chat.example", secret_key=KEY, password=PASSWORD)
NOW_MS: Final = 1_700_000_000_000

BAD_HISTORY: Final = (
    400,
    "Invalid message history: The last message must be from user role.",
)
BAD_PASSWORD: Final = (401, "Invalid password.")
BAD_SIGNATURE: Final = (401, "Invalid signature.")
NOT_JSON: Final = (400, "Invalid body: it is not valid JSON.")
NO_OBJECT: Final = (400, "Invalid body: it must be a JSON object.")


def user(text: str) -> dict[str, object]:
    return {"role": "user", "parts": [{"text": text}]}


def fields(**changes: object) -> dict[str, object]:
    """A request that holds, but for the changes; `...` leaves a field out."""
    request: dict[str, object] = {
        "messages": [user("Hello")],
        "time": NOW_MS,
        "pass": PASSWORD,
        "sign": Signer(KEY).sign(NOW_MS, "Hello"),
    }
    return {name: value for name, value in (request | changes).items() if value is not ...}


def accept(
    request: object, *, now_ms: int = NOW_MS, freshness_ms: int | None = FRESHNESS_MS
) -> Accepted:
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    return Acceptance(SERVICE, freshness_ms=freshness_ms).accept(body, now_ms)


def refusal(request: object, *, now_ms: int = NOW_MS) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        accept(request, now_ms=now_ms)
    return caught.value.status, caught.value.message


# What clients build


@st.composite
def alternating(draw: st.DrawFn) -> list[Message]:
    """What a browser sends: the user and the assistant by turns, the user first and last."""
    texts = draw(st.lists(strategies.texts, min_size=1, max_size=7).filter(lambda t: len(t) % 2))
    return [Message("assistant" if index % 2 else "user", text) for index, text in enumerate(texts)]


@given(alternating(), strategies.times)
def test_a_native_conversation_comes_out_as_it_went_in(
    conversation: list[Message], time_ms: int
) -> None:
    request = Draft(SERVICE, conversation).sign(time_ms)
    accepted = accept(request.body, now_ms=time_ms)
    assert accepted.messages == tuple(conversation)
    assert accepted.time_ms == time_ms
    assert accepted.signature == json.loads(request.body)["sign"]


@given(strategies.sendable, strategies.times)
def test_a_conversation_in_the_relatives_dialect_comes_out_as_it_went_in(
    conversation: list[Message], time_ms: int
) -> None:
    request = Draft(replace(SERVICE, encoding="content"), conversation).sign(time_ms)
    accepted = accept(request.body, now_ms=time_ms)
    assert accepted.messages == tuple(conversation)
    assert accepted.time_ms == time_ms
    assert accepted.signature == json.loads(request.body)["sign"]


@given(strategies.sendable)
def test_a_flattened_conversation_comes_out_as_one_prompt(conversation: list[Message]) -> None:
    request = Draft(replace(SERVICE, encoding="flattened"), conversation).sign(NOW_MS)
    (message,) = accept(request.body).messages
    assert message.role == "user"
    assert all(one.text in message.text for one in conversation)


@given(strategies.keys, strategies.texts)
def test_a_request_signed_with_another_key_is_refused(key: str, text: str) -> None:
    request = Draft(replace(SERVICE, secret_key=f"{KEY}{key}!"), [Message("user", text)])
    assert refusal(request.sign(NOW_MS).body) == BAD_SIGNATURE


def test_parts_are_joined_with_nothing_between() -> None:
    message = {"role": "user", "parts": [{"text": "Hel"}, {"text": ""}, {"text": "lo"}]}
    assert accept(fields(messages=[message])).messages == (Message("user", "Hello"),)


def test_a_content_goes_before_parts() -> None:
    message = {"role": "user", "parts": [{"text": "Bye"}], "content": "Hello"}
    assert accept(fields(messages=[message])).messages == (Message("user", "Hello"),)


def test_fields_that_mean_nothing_are_passed_over() -> None:
    request = fields(model="gemini-1.5-pro", extra={"deep": [1, 2.5, None]})
    assert accept(request).time_ms == NOW_MS


def test_both_dialects_may_share_a_conversation() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "model", "parts": [{"text": "a"}]},
        {"role": "assistant", "parts": [{"text": "b"}]},
        user("Hello"),
    ]
    assert [message.role for message in accept(fields(messages=messages)).messages] == [
        "system",
        "assistant",
        "assistant",
        "user",
    ]


# The order of refusals


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, BAD_HISTORY, id="the conversation"),
        pytest.param({"messages": [user("Hi")]}, BAD_PASSWORD, id="then the password"),
        pytest.param(
            {"messages": [user("Hi")], "pass": PASSWORD},
            (400, "Invalid time: it must be an integer of milliseconds."),
            id="then the time's type",
        ),
        pytest.param(
            {"messages": [user("Hi")], "pass": PASSWORD, "time": NOW_MS - 10**9},
            (400, "Invalid sign: it must be a string."),
            id="then the signature's type",
        ),
        pytest.param(
            {"messages": [user("Hi")], "pass": PASSWORD, "time": NOW_MS - 10**9, "sign": "00"},
            BAD_SIGNATURE,
            id="then the signature",
        ),
        pytest.param(
            {
                "messages": [user("Hi")],
                "pass": PASSWORD,
                "time": NOW_MS - 10**9,
                "sign": Signer(KEY).sign(NOW_MS - 10**9, "Hi"),
            },
            BAD_SIGNATURE,
            id="then its age",
        ),
    ],
)
def test_of_all_that_is_wrong_the_first_is_told(
    changes: dict[str, object], expected: tuple[int, str]
) -> None:
    all_wrong: dict[str, object] = {"messages": [], "time": "now", "pass": "wrong", "sign": None}
    assert refusal(all_wrong | changes) == expected


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param(..., id="missing"),
        pytest.param(None, id="null"),
        pytest.param([], id="none"),
        pytest.param({}, id="object"),
        pytest.param("Hello", id="string"),
        pytest.param(7, id="number"),
        pytest.param([user("a"), {"role": "model", "parts": [{"text": "b"}]}], id="model last"),
        pytest.param([{"role": "system", "content": "a"}], id="system alone"),
    ],
)
def test_without_a_last_message_of_the_users_the_history_is_invalid(messages: object) -> None:
    assert refusal(fields(messages=messages)) == BAD_HISTORY


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("Hello", "is not an object"),
        (None, "is not an object"),
        ([], "is not an object"),
        ({}, "has an unknown role"),
        ({"role": "function", "content": "a"}, "has an unknown role"),
        ({"role": "User", "content": "a"}, "has an unknown role"),
        ({"role": None, "content": "a"}, "has an unknown role"),
        ({"role": ["user"], "content": "a"}, "has an unknown role"),
        ({"role": {"user": 1}, "content": "a"}, "has an unknown role"),
        ({"role": "user"}, "has no text"),
        ({"role": "user", "content": None}, "has no text"),
        ({"role": "user", "content": ["a"]}, "has no text"),
        ({"role": "user", "content": 7, "parts": [{"text": "a"}]}, "has no text"),
        ({"role": "user", "parts": "a"}, "has no text"),
        ({"role": "user", "parts": {"text": "a"}}, "has no text"),
        ({"role": "user", "parts": ["a"]}, "has no text"),
        ({"role": "user", "parts": [{"text": "a"}, {"text": 1}]}, "has no text"),
        ({"role": "user", "parts": [{"inlineData": {}}]}, "has no text"),
    ],
)
def test_a_message_that_is_none_is_named_with_what_is_wrong(message: object, why: str) -> None:
    expected = (400, f"Invalid message history: message 1 {why}.")
    assert refusal(fields(messages=[user("a"), message, user("Hello")])) == expected


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        pytest.param([r"a\ud83d"], "a\ufffd", id="first half at the end"),
        pytest.param([r"\ude42b"], "\ufffdb", id="second half at the start"),
        pytest.param([r"\ud83d\ud83d\ude42"], "\ufffd🙂", id="before a whole character"),
        pytest.param([r"\ude42\ud83d"], "\ufffd\ufffd", id="halves in the wrong order"),
        pytest.param([r"\ud83d", r"\ude42"], "🙂", id="halves in two parts"),
    ],
)
@pytest.mark.parametrize("encoding", ["parts", "content"])
def test_a_lone_surrogate_is_answered_and_signed_as_a_replacement_character(
    parts: list[str], expected: str, encoding: str
) -> None:
    texts = ",".join(f'{{"text": "{part}"}}' for part in parts)
    text = f'"parts": [{texts}]' if encoding == "parts" else f'"content": "{"".join(parts)}"'
    body = json.dumps(fields(messages="@", sign=Signer(KEY).sign(NOW_MS, expected)))
    body = body.replace('"@"', f'[{{"role": "user", {text}}}]')
    assert accept(body.encode()).messages == (Message("user", expected),)


# Passwords


@pytest.mark.parametrize("password", [..., None, "", "wrong", 7, True, [PASSWORD], "открой\ud800"])
def test_any_other_password_is_refused(password: object) -> None:
    assert refusal(fields(**{"pass": password})) == BAD_PASSWORD


@given(strategies.texts, st.none() | st.text(st.characters()) | st.integers() | st.just(PASSWORD))
def test_a_password_is_that_password_and_no_other(password: str, given: object) -> None:
    acceptance = Acceptance(replace(SERVICE, password=password))
    assert acceptance.is_password(password)
    assert acceptance.is_password(given) is (
        given in {password, *filter(None, password.split(","))}
    )


@pytest.mark.parametrize("given", ["pw1", "pw2", "pw 3", "pw1,pw2,,pw 3"])
def test_a_password_may_be_a_list_with_commas(given: str) -> None:
    acceptance = Acceptance(replace(SERVICE, password="pw1,pw2,,pw 3"))
    assert acceptance.is_password(given)
    body = json.dumps(fields(**{"pass": given})).encode()
    assert acceptance.accept(body, NOW_MS).time_ms == NOW_MS


@pytest.mark.parametrize("given", ["", ",", "pw1,", "pw1,pw2", "pw3", "pw", None])
def test_nothing_else_of_such_a_list_is_a_password(given: str | None) -> None:
    assert not Acceptance(replace(SERVICE, password="pw1,pw2,,pw 3")).is_password(given)


def test_a_deployment_without_a_password_takes_any() -> None:
    acceptance = Acceptance(replace(SERVICE, password=None))
    for password in ("anything", None, 7):
        body = json.dumps(fields(**{"pass": password})).encode()
        assert acceptance.accept(body, NOW_MS).time_ms == NOW_MS
        assert acceptance.is_password(password)


def test_password_and_signature_are_compared_in_constant_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare_digest = hmac.compare_digest

    def recording(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return compare_digest(a, b)

    monkeypatch.setattr(hmac, "compare_digest", recording)
    accept(fields())
    signature = Signer(KEY).sign(NOW_MS, "Hello").encode()
    assert compared == [(PASSWORD.encode(),) * 2, (signature,) * 2]


# Time and signature


@pytest.mark.parametrize(
    "time",
    [..., None, "", "1.7e12", "-1", " 1", "01", "١", "9" * 20, 1.7e12, True, [NOW_MS]],
)
def test_a_time_that_is_no_integer_is_refused(time: object) -> None:
    assert refusal(fields(time=time)) == (
        400,
        "Invalid time: it must be an integer of milliseconds.",
    )


def test_a_time_may_be_a_string_of_digits() -> None:
    assert accept(fields(time=str(NOW_MS))).time_ms == NOW_MS


@pytest.mark.parametrize("sign", [..., None, 7, ["00"], {}])
def test_a_signature_that_is_no_string_is_refused(sign: object) -> None:
    assert refusal(fields(sign=sign)) == (400, "Invalid sign: it must be a string.")


@pytest.mark.parametrize(
    "sign",
    [
        pytest.param("", id="empty"),
        pytest.param("0" * 64, id="zeros"),
        pytest.param(Signer(KEY).sign(NOW_MS, "Hello").upper(), id="upper case"),
        pytest.param(Signer(KEY).sign(NOW_MS, "Hello")[:-1], id="one digit short"),
        pytest.param(Signer(KEY).sign(NOW_MS + 1, "Hello"), id="of another millisecond"),
        pytest.param(Signer(KEY).sign(NOW_MS, "hello"), id="of another text"),
        pytest.param("ключ\ud800", id="not even ASCII"),
    ],
)
def test_any_other_signature_is_refused(sign: str) -> None:
    assert refusal(fields(sign=sign)) == BAD_SIGNATURE


def test_only_the_last_message_is_signed() -> None:
    request = fields(messages=[user("anything"), user("Hello")])
    assert len(accept(request).messages) == 2


@pytest.mark.parametrize("off_ms", [-300_000, -1, 0, 1, 300_000])
def test_a_time_five_minutes_off_is_fresh(off_ms: int) -> None:
    assert accept(fields(), now_ms=NOW_MS + off_ms).time_ms == NOW_MS


@pytest.mark.parametrize("off_ms", [-300_001, 300_001, 10**30])
def test_a_time_more_than_five_minutes_off_is_refused(off_ms: int) -> None:
    assert refusal(fields(), now_ms=NOW_MS + off_ms) == BAD_SIGNATURE


@pytest.mark.parametrize(
    ("freshness_ms", "off_ms", "accepted"),
    [(0, 0, True), (0, 1, False), (10, -10, True), (10, -11, False), (None, 10**15, True)],
)
def test_the_freshness_can_be_set(freshness_ms: int | None, off_ms: int, accepted: bool) -> None:
    refused: Refusal | None = None
    try:
        accept(fields(), now_ms=NOW_MS + off_ms, freshness_ms=freshness_ms)
    except Refusal as caught:
        refused = caught
    assert accepted == (refused is None)
    assert refused is None or (refused.status, refused.message) == BAD_SIGNATURE


def test_a_negative_freshness_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="freshness_ms=-1"):
        Acceptance(SERVICE, freshness_ms=-1)


def test_a_service_without_a_key_can_accept_nothing() -> None:
    with pytest.raises(ConfigurationError, match="secret key"):
        Acceptance(Service("https://chat.example"))


# Bodies of any form


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"", NOT_JSON, id="empty"),
        pytest.param(b"Hello", NOT_JSON, id="text"),
        pytest.param(b'{"messages": [', NOT_JSON, id="cut off"),
        pytest.param(b"{} {}", NOT_JSON, id="two objects"),
        pytest.param(b"{'messages': []}", NOT_JSON, id="single quotes"),
        pytest.param(b'{"messages": "\n"}', NOT_JSON, id="bare line break"),
        pytest.param(b'{"messages": "\xff"}', NOT_JSON, id="not UTF-8"),
        pytest.param(b'{"messages": "\xed\xa0\x80"}', NOT_JSON, id="surrogate in UTF-8"),
        pytest.param(json.dumps(fields()).encode("utf-16"), NOT_JSON, id="UTF-16"),
        pytest.param(json.dumps(fields()).encode("utf-32-le"), NOT_JSON, id="UTF-32"),
        pytest.param(codecs.BOM_UTF8 * 2 + b"{}", NOT_JSON, id="two byte order marks"),
        pytest.param(b"[" * 10_000, NOT_JSON, id="10,000 brackets"),
        pytest.param(b"[" * 40_000 + b"]" * 40_000, NOT_JSON, id="40,000 lists"),
        pytest.param(b'{"a":' * 20_000 + b"1" + b"}" * 20_000, NOT_JSON, id="20,000 objects"),
        pytest.param(b'{"time": NaN}', NOT_JSON, id="NaN"),
        pytest.param(b'{"x": [Infinity]}', NOT_JSON, id="Infinity"),
        pytest.param(b'{"x": -Infinity}', NOT_JSON, id="minus Infinity"),
        pytest.param(b"null", NO_OBJECT, id="null"),
        pytest.param(b"[]", NO_OBJECT, id="list"),
        pytest.param(b'"Hello"', NO_OBJECT, id="string"),
        pytest.param(b"17", NO_OBJECT, id="number"),
        pytest.param(b"{}", BAD_HISTORY, id="empty object"),
    ],
)
def test_a_body_that_is_no_request_is_refused(body: bytes, expected: tuple[int, str]) -> None:
    assert refusal(body) == expected


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("time", (400, "Invalid time: it must be an integer of milliseconds.")),
        ("pass", BAD_PASSWORD),
        ("messages", BAD_HISTORY),
    ],
)
@pytest.mark.parametrize("digits", [21, 5000])
def test_a_long_integer_is_no_integer_as_in_javascript(
    where: str, expected: tuple[int, str], digits: int
) -> None:
    body = json.dumps(fields(**{where: "@"})).replace('"@"', "7" * digits)
    assert refusal(body.encode()) == expected


def test_an_integer_of_19_digits_is_one() -> None:
    time_ms = 10**19 - 1
    sign = Signer(KEY).sign(time_ms, "Hello")
    assert accept(fields(time=time_ms, sign=sign), freshness_ms=None).time_ms == time_ms


@pytest.mark.parametrize(("parts", "status"), [(100_000, 400), (100_001, 413)])
def test_a_body_may_have_as_many_parts_as_the_limit_says(parts: int, status: int) -> None:
    # Two brackets, and a comma between two numbers; a list is no request in any case.
    body = f"[{','.join(['0'] * (parts - 1))}]".encode()
    assert refusal(body)[0] == status


@pytest.mark.parametrize("part", ["[]", "{}", '""', "0", '{"a":[1]}', r'"\"{"'])
def test_a_body_of_too_many_parts_is_refused_before_it_is_parsed(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = f"[{','.join([part] * 100_000)}]".encode()
    monkeypatch.setattr(json, "loads", None)
    assert refusal(body) == (413, "Invalid body: it has too many parts.")


@pytest.mark.parametrize("text", ["{" * 200_000, '"' * 200_000, "\\" * 200_000, "[,]:\n" * 50_000])
def test_what_a_text_holds_is_not_a_part(text: str) -> None:
    sign = Signer(KEY).sign(NOW_MS, text)
    assert accept(fields(messages=[user(text)], sign=sign)).messages[0].text == text


def test_6000_messages_are_not_too_many() -> None:
    messages = [*[user("a"), {"role": "model", "parts": [{"text": "b"}]}] * 3000, user("Hello")]
    assert len(accept(fields(messages=messages)).messages) == 6001


def test_messages_nested_deep_are_refused() -> None:
    body = json.dumps(fields(messages="@")).replace('"@"', "[" * 10_000 + "]" * 10_000)
    assert refusal(body.encode()) == NOT_JSON


def test_a_byte_order_mark_is_dropped() -> None:
    assert accept(codecs.BOM_UTF8 + json.dumps(fields()).encode()).time_ms == NOW_MS


def test_of_a_key_that_occurs_twice_the_last_counts() -> None:
    body = json.dumps(fields()).replace('"time":', '"time": "first", "time":')
    assert accept(body.encode()).time_ms == NOW_MS
    assert refusal(body.replace('"sign":', '"sign": "00", "pass": "wrong", "sign":').encode()) == (
        BAD_PASSWORD
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "parts", "text", "content", "messages"]) | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
wire_roles = st.sampled_from(["user", "model", "assistant", "system"]) | json_values
wire_parts = st.lists(st.fixed_dictionaries({"text": strategies.texts | json_values}) | json_values)
wire_messages = (
    st.fixed_dictionaries(
        {"role": wire_roles},
        optional={"parts": wire_parts | json_values, "content": strategies.texts | json_values},
    )
    | json_values
)
requests_of_any_form = st.fixed_dictionaries(
    {},
    optional={
        "messages": st.lists(wire_messages, max_size=3).map(lambda m: [*m, user("Hello")])
        | st.lists(wire_messages, max_size=3)
        | json_values,
        "time": st.just(NOW_MS) | json_values,
        "pass": st.just(PASSWORD) | json_values,
        "sign": st.just(Signer(KEY).sign(NOW_MS, "Hello")) | json_values,
    },
)


def assert_accepted_or_refused(body: bytes) -> None:
    refused: Refusal
    try:
        accepted = accept(body)
    except Refusal as caught:
        refused = caught
    else:
        assert accepted.messages[-1].role == "user"
        assert abs(accepted.time_ms - NOW_MS) <= FRESHNESS_MS
        return
    assert refused.status in (400, 401)
    assert json.loads(refused.body) == {"error": {"message": refused.message}}


@given(st.binary(max_size=200))
def test_any_bytes_are_accepted_or_refused(body: bytes) -> None:
    assert_accepted_or_refused(body)


@given(requests_of_any_form | json_values)
@example({"messages": [{"role": "user", "content": "\ud800"}]})
def test_any_json_is_accepted_or_refused(request: object) -> None:
    assert_accepted_or_refused(json.dumps(request).encode())


@given(st.data())
def test_a_request_with_any_one_field_changed_is_accepted_or_refused(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(fields())))
    assert_accepted_or_refused(json.dumps(fields(**{name: data.draw(json_values)})).encode())


# Answers


@pytest.mark.parametrize(
    ("message", "code", "body"),
    [
        ("Invalid password.", None, b'{"error":{"message":"Invalid password."}}'),
        ("It broke.", "Error", b'{"error":{"message":"It broke.","code":"Error"}}'),
        ('Нет «"».', None, '{"error":{"message":"Нет «\\"»."}}'.encode()),
        ("", "", b'{"error":{"message":"","code":""}}'),
        ("a\ud800b", None, b'{"error":{"message":"a?b"}}'),
    ],
)
def test_an_error_is_worded_as_the_service_does(
    message: str, code: str | None, body: bytes
) -> None:
    assert error_body(message, code) == body


def test_a_refusals_body_is_what_a_client_understands() -> None:
    refused = Refusal(401, "Invalid signature.")
    parser = ReplyParser(refused.status, [(b"content-type", REPLY_CONTENT_TYPE.encode())])
    parser.feed(refused.body)
    with pytest.raises(SignatureRejected, match=r"Invalid signature\."):
        parser.finish()


def test_a_refusal_says_its_status_and_message() -> None:
    assert str(Refusal(401, "Invalid password.")) == "(401, 'Invalid password.')"
