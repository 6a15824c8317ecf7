"""The request is byte for byte what a browser's client would send, and signed afresh each time."""

import copy
import json
import pickle
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprochat_core import (
    GPROCHAT,
    ConfigurationError,
    Draft,
    Encoding,
    InvalidMessages,
    Message,
    Request,
    Service,
    Signer,
)

from .leaks import told_by
from .strategies import keys, messages, sendable, texts, times

HELLO = [Message("user", "Hello, world!")]
SECRET = replace(GPROCHAT, secret_key="secret")

encodings: st.SearchStrategy[Encoding] = st.sampled_from(["native", "flattened", "content"])


def test_the_whole_request_of_the_protocols_example() -> None:
    request = Draft(SECRET, HELLO).sign(1700000000000)
    assert request.method == "POST"
    assert request.url == "https://gprochat.com/api/generate"
    # accept-encoding is the client's own: a reply is to be streamed uncompressed.
    assert request.headers == (
        ("accept", "*/*"),
        ("origin", "https://gprochat.com"),
        ("referer", "https://gprochat.com/"),
        (
            "user-agent",
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
                "Chrome/129.0.0.0 Safari/537.36"
            ),
        ),
        ("content-type", "text/plain;charset=UTF-8"),
        ("accept-encoding", "identity"),
    )
    assert request.body == (
        b'{"messages":[{"role":"user","parts":[{"text":"Hello, world!"}]}],'
        b'"time":1700000000000,"pass":null,'
        b'"sign":"1e132a12572889b4a97703ee6b1fb93d114b97125478e738c983b693a1b4402a"}'
    )


@pytest.mark.parametrize(
    ("url", "origin", "referer"),
    [
        ("http://localhost:3000", "http://localhost:3000", "http://localhost:3000/"),
        ("https://chat.example/a/b/", "https://chat.example", "https://chat.example/a/b/"),
        ("https://[::1]:443", "https://[::1]", "https://[::1]/"),
    ],
)
def test_origin_and_referer_are_the_deployments(url: str, origin: str, referer: str) -> None:
    headers = dict(Draft(Service(url, secret_key=""), HELLO).sign(0).headers)
    assert headers["origin"] == origin
    assert headers["referer"] == referer


@given(sendable, times, keys, st.none() | texts, encodings)
def test_a_body_has_exactly_the_protocols_keys_and_what_was_asked(
    said: list[Message], time_ms: int, key: str, password: str | None, encoding: Encoding
) -> None:
    service = Service("https://a", key, password, encoding)
    body = json.loads(Draft(service, said).sign(time_ms).body)
    assert list(body) == ["messages", "time", "pass", "sign"]
    assert body["time"] == time_ms
    assert body["pass"] == password
    last = body["messages"][-1]
    signed = last["content"] if encoding == "content" else last["parts"][0]["text"]
    assert Signer(key).verify(body["sign"], time_ms, signed)


@given(sendable, times, keys, st.none() | texts, encodings)
def test_a_body_is_compact_json_in_utf8(
    said: list[Message], time_ms: int, key: str, password: str | None, encoding: Encoding
) -> None:
    body = Draft(Service("https://a", key, password, encoding), said).sign(time_ms).body
    assert body == json.dumps(json.loads(body), ensure_ascii=False, separators=(",", ":")).encode()


def test_a_russian_password_is_not_escaped() -> None:
    service = Service("https://a", secret_key="", password="пароль")
    assert '"pass":"пароль"'.encode() in Draft(service, HELLO).sign(0).body


def test_an_empty_password_is_one() -> None:
    service = Service("https://a", secret_key="", password="")
    assert b'"pass":""' in Draft(service, HELLO).sign(0).body


@given(sendable, st.lists(times, min_size=2, max_size=4))
def test_each_attempt_differs_in_its_time_and_signature_alone(
    said: list[Message], moments: list[int]
) -> None:
    draft = Draft(SECRET, said)
    requests = [draft.sign(time_ms) for time_ms in moments]
    bodies = [json.loads(request.body) for request in requests]
    assert [body["time"] for body in bodies] == moments
    assert len({body["sign"] for body in bodies}) == len(set(moments))
    assert len({json.dumps(body["messages"]) for body in bodies}) == 1
    assert len({(request.url, request.headers) for request in requests}) == 1


@given(sendable, sendable)
def test_all_requests_to_a_service_have_the_same_headers(
    first: list[Message], second: list[Message]
) -> None:
    one, other = (Draft(SECRET, said).sign(0) for said in (first, second))
    assert one.headers == other.headers


@given(messages, sendable)
def test_only_the_newest_messages_are_sent_where_the_service_says_so(
    earlier: Message, said: list[Message]
) -> None:
    service = Service("https://a", secret_key="", encoding="content", max_history=1)
    body = json.loads(Draft(service, [earlier, *said]).sign(0).body)
    kept = [message for message in [earlier, *said] if message.role == "system"] + [said[-1]]
    assert body["messages"] == [{"role": one.role, "content": one.text} for one in kept]


@pytest.mark.parametrize("time_ms", [True, 1.0, "0", None], ids=repr)
def test_a_time_that_is_not_an_integer_is_refused(time_ms: object) -> None:
    with pytest.raises(TypeError, match=f"not {type(time_ms).__name__}"):
        Draft(SECRET, HELLO).sign(cast("int", time_ms))


def test_without_a_secret_key_there_is_no_request() -> None:
    with pytest.raises(ConfigurationError, match="no secret key"):
        Draft(GPROCHAT, HELLO)


def test_a_request_never_shows_its_body() -> None:
    service = Service("https://chat.example", "correct-horse", "battery-staple")
    draft = Draft(service, [Message("user", "my-diary")])
    for shown in (repr(draft), str(draft), repr(draft.sign(0)), f"{draft.sign(0)}"):
        assert "horse" not in shown
        assert "staple" not in shown
        assert "diary" not in shown
    assert "https://chat.example/api/generate" in repr(draft.sign(0))


def test_a_requests_headers_and_url_tell_no_secret() -> None:
    request = Draft(Service("https://a", "correct-horse", "battery-staple"), HELLO).sign(0)
    assert "horse" not in repr((request.url, request.headers))
    assert "staple" not in repr((request.url, request.headers))
    assert b"horse" not in request.body


def test_an_error_while_signing_tells_no_secret() -> None:
    draft = Draft(Service("https://a", "correct-horse", "battery-staple"), HELLO)
    with pytest.raises(TypeError) as caught:
        draft.sign(cast("int", None))
    assert "horse" not in told_by(caught.value)
    assert "staple" not in told_by(caught.value)


def test_a_request_does_not_change() -> None:
    request = Draft(SECRET, HELLO).sign(0)
    with pytest.raises(AttributeError):
        request.body = b""  # type: ignore[misc]
    assert request == Request(request.method, request.url, request.headers, request.body)
    assert request == pickle.loads(pickle.dumps(request))
    assert {request: "found"}[copy.deepcopy(request)] == "found"
    assert replace(request, body=b"") != request


def test_the_longest_text_is_signed_as_it_is_sent() -> None:
    text = "Широкая электрификация 🙂\n" * 10_000
    body = Draft(SECRET, [Message("user", text)]).sign(0).body
    assert json.loads(body)["messages"][0]["parts"][0]["text"] == text
    assert Signer("secret").verify(json.loads(body)["sign"], 0, text)


def test_a_message_that_could_not_be_sent_cannot_be_made() -> None:
    with pytest.raises(InvalidMessages):
        Draft(SECRET, [Message("user", "\ud800")])
