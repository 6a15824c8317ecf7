"""The harnesses under hypothesis: every input that is kept, and inputs made from them."""

from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gprochat_core import (
    Accepted,
    BadRequest,
    GPROChatError,
    InterruptedReply,
    NotTheService,
    PasswordRejected,
    RateLimited,
    ServiceFailed,
    SignatureRejected,
    TruncatedReply,
)

from . import acceptance
from .reply import parse, read_answer
from .targets import TARGETS, Harness, corpus

TELLING: Final = [
    *(b"\r\n\r\n", b"\n", b": ", b"HTTP/1.1 ", b"200", b"500", b"I", b"Internal server error"),
    *(b"\xef\xbb\xbf", b"\xf0\x9f", b"\x80", b"\xff", b"\x1f\x8b\x08", b"\x78\x9c", b"\x00"),
    *(b'"', b"\\", b"\\ud800", b"{", b"}", b"[", b"]", b"null", b"NaN", b"1e9", b"9" * 400),
    *(b'"role"', b'"user"', b'"content"', b'"parts"', b'"text"', b'"messages"', b"error"),
]
"""On which something may turn, in one target or the other."""


@st.composite
def made_from(draw: st.DrawFn, target: str) -> bytes:
    """An input that is kept, with some of it exchanged for something else."""
    kept = st.sampled_from(list(corpus(target).values()))
    data = draw(kept)
    for _ in range(draw(st.integers(0, 3))):
        start, length = draw(st.integers(0, len(data))), draw(st.integers(0, 20))
        instead = draw(st.sampled_from(TELLING) | st.binary(max_size=4))
        data = data[:start] + instead + data[start + length :]
    if draw(st.booleans()):
        other = draw(kept)
        data = data[: draw(st.integers(0, len(data)))] + other[draw(st.integers(0, len(other))) :]
    return data


def seeded(target: str) -> Callable[[Harness], Harness]:
    """Begin a property test with what is kept."""

    def decorate(test: Harness) -> Harness:
        for data in corpus(target).values():
            test = example(data)(test)
        return test

    return decorate


@seeded("reply")
@given(st.binary(max_size=200) | made_from("reply"))
def test_any_answer_ends_in_text_or_in_our_own_errors(data: bytes) -> None:
    TARGETS["reply"](data)


@seeded("acceptance")
@given(st.binary(max_size=200) | made_from("acceptance"))
def test_any_body_is_accepted_or_refused(data: bytes) -> None:
    TARGETS["acceptance"](data)


@pytest.mark.parametrize("target", TARGETS)
def test_every_folder_of_inputs_has_a_target(target: str) -> None:
    assert corpus(target)


# The harnesses hold answers against one another; these say which is right.


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("reply.http", "Hello! How can I help you?", None),
        ("reply-without-content-type.http", "Hello!", None),
        ("reply-empty.http", "", None),
        ("reply-gzip.http", "Привет! 🙂 Чем могу помочь?", None),
        ("reply-gzip-cut.http", "Привет! 🙂 Чем", TruncatedReply),
        ("reply-deflate.http", "Hello! How can I help you?", None),
        ("reply-byte-order-mark.http", "Hello!", None),
        ("reply-split-character.http", "Привет \ufffd", None),
        ("reply-malformed.http", "a\ufffd\ufffdb\ufffd\ufffd\ufffdc", None),
        ("marker.http", "The answer is ", InterruptedReply),
        ("marker-alone.http", "", InterruptedReply),
        ("marker-twice.http", "Internal server error", InterruptedReply),
        ("marker-in-the-middle.http", "It says Internal server error.", None),
        ("bad-history.http", "", BadRequest),
        ("bad-password.http", "", PasswordRejected),
        ("bad-signature.http", "", SignatureRejected),
        ("rate-limit-hidden.http", "", RateLimited),
        ("rate-limit.http", "", RateLimited),
        ("invalid-api-key.http", "", ServiceFailed),
        ("failed-without-a-word.http", "", ServiceFailed),
        ("failed-gzip.http", "", ServiceFailed),
        ("redirect.http", "", NotTheService),
        ("page.http", "", NotTheService),
        ("page-not-found.http", "", NotTheService),
        ("page-of-a-gateway.http", "", ServiceFailed),
    ],
)
def test_a_recorded_answer_is_what_the_protocol_says(
    name: str, text: str, error: type[GPROChatError] | None
) -> None:
    answer = read_answer(corpus("reply")[name])
    assert parse(answer, [answer.body])[:2] == (text, error)


@pytest.mark.parametrize("name", ["native.json", "content.json", "flattened.json"])
def test_a_request_that_is_kept_is_accepted_once_it_is_signed(name: str) -> None:
    signed = acceptance.sign(corpus("acceptance")[name])
    assert isinstance(acceptance.decide(signed or b""), Accepted)
