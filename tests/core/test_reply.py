"""The reply parser: the same text and the same outcome however the bytes are cut."""

import codecs
import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import pairwise, repeat
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gprochat_core import (
    AuthenticationError,
    BadRequest,
    GPROChatError,
    IncompleteReply,
    InterruptedReply,
    NotTheService,
    PasswordRejected,
    RateLimited,
    Redactor,
    ReplyParser,
    ReplyTooLong,
    ResponseError,
    ServiceFailed,
    SignatureRejected,
    TruncatedReply,
)
from gprochat_core.diagnosis import MAX_ERROR_BODY
from gprochat_core.reply import FAILURE_MARKER

MARKER = FAILURE_MARKER.encode()
BOM = codecs.BOM_UTF8
JSON_HEADERS = [(b"content-type", b"text/plain;charset=UTF-8")]
HTML_HEADERS = [(b"content-type", b"text/html; charset=utf-8")]

Headers = Sequence[tuple[bytes, bytes]]

# Text in which all that is delicate is likely: the marker, its beginnings, long and broken bytes.
delicate_text = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.sampled_from(
            [
                FAILURE_MARKER,
                "I",
                "Int",
                FAILURE_MARKER[:-1],
                FAILURE_MARKER[1:],
                "\ufeff",
                "🙂",
                "ё",
            ]
        ),
    ),
    max_size=8,
).map("".join)
broken_bytes = st.sampled_from(
    [b"\xf0\x9f", b"\x80", b"\xff", b"\xe2\x82", b"\xed\xa0\x80", b"\xc0\xaf", b"\xef\xbb", BOM]
)
delicate_bytes = st.lists(
    st.one_of(delicate_text.map(str.encode), broken_bytes, st.binary(max_size=4)), max_size=6
).map(b"".join)
cut_places = st.lists(st.integers(0, 120), max_size=20)


def cut_at(data: bytes, places: Iterable[int]) -> list[bytes]:
    bounds = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(bounds)]


def single_bytes(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def decoded(data: bytes) -> str:
    """What a TextDecoder makes of bytes, in the words of another decoder."""
    return data.removeprefix(BOM).decode("utf-8", "replace")


def without_marker(text: str) -> str:
    return text.removesuffix(FAILURE_MARKER)


class Outcome(NamedTuple):
    """How an answer ended: the text handed over, and the error with what it says, if any."""

    text: str
    error: type[GPROChatError] | None = None
    said: str = ""


def outcome(
    pieces: Iterable[bytes],
    *,
    status: int = 200,
    headers: Headers = (),
    max_bytes: int = 1 << 24,
    complete: bool = True,
    keep_text: bool = True,
) -> Outcome:
    """Parse an answer; what was handed over must be what the parser and its error call the text."""
    handed_over = ""
    failure: GPROChatError | None = None
    try:
        parser = ReplyParser(status, headers, max_bytes=max_bytes, now=0.0, keep_text=keep_text)
    except ResponseError as error:
        return Outcome("", type(error), str(error))
    try:
        for piece in pieces:
            handed_over += parser.feed(piece)
            assert parser.text == (handed_over if keep_text else "")
        if not complete:
            raise parser.cut("the test ended it")
        handed_over += parser.finish()
    except (IncompleteReply, ResponseError) as error:
        failure = error
    if failure is None:
        assert parser.text == (handed_over if keep_text else "")
        return Outcome(handed_over)
    assert parser.text == getattr(failure, "text", "")
    if not keep_text:
        return Outcome(handed_over + parser.text, type(failure), str(failure))
    # An error may bring text that came too late to be handed over; it never takes any back.
    assert parser.text.startswith(handed_over)
    return Outcome(parser.text, type(failure), str(failure))


def feed_all(parser: ReplyParser, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        parser.feed(piece)
    parser.finish()


def error_of(
    status: int, headers: Headers = (), body: bytes = b"", *, now: float | None = None
) -> ResponseError:
    try:
        feed_all(ReplyParser(status, headers, now=now), [body])
    except ResponseError as error:
        return error
    pytest.fail("this was taken for a reply")


def error_json(message: object, **more: object) -> bytes:
    return json.dumps({"error": {"message": message, **more}}).encode()


# Decoding


@given(delicate_text, cut_places)
def test_text_arrives_as_it_was_sent_however_its_bytes_are_cut(
    text: str, places: list[int]
) -> None:
    arrived = outcome(cut_at(text.encode(), places))
    assert arrived.text == without_marker(text.removeprefix("\ufeff"))


@given(delicate_bytes, cut_places)
def test_any_bytes_decode_as_at_once_however_they_are_cut(data: bytes, places: list[int]) -> None:
    arrived = outcome(cut_at(data, places))
    assert arrived.text == without_marker(decoded(data))
    assert arrived == outcome([data]) == outcome(single_bytes(data))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(b"\xe0\x80", "\ufffd" * 2, id="overlong of three bytes"),
        pytest.param(b"\xf0\x80\x80\x80", "\ufffd" * 4, id="overlong of four bytes"),
        pytest.param(b"\xed\xa0\x80", "\ufffd" * 3, id="surrogate"),
        pytest.param(b"\xed\xa0", "\ufffd" * 2, id="surrogate cut short"),
        pytest.param(b"\xf4\x90\x80\x80", "\ufffd" * 4, id="above U+10FFFF"),
        pytest.param(b"\xc0\xaf", "\ufffd" * 2, id="overlong slash"),
        pytest.param(b"\xf0\x9f\x98", "\ufffd", id="incomplete tail of three bytes"),
        pytest.param(b"\xf0\x9f", "\ufffd", id="incomplete tail of two bytes"),
        pytest.param(b"\xf0\x9f\x98!", "\ufffd!", id="incomplete in the middle"),
        pytest.param(b"\xf0\x9f\x98\xf0\x9f\x98\x80", "\ufffd😀", id="incomplete, then whole"),
        pytest.param(b"a\x80b", "a\ufffdb", id="lone continuation byte"),
        pytest.param(b"\xf5\xfe\xff", "\ufffd" * 3, id="bytes that never occur"),
        pytest.param(
            b"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", "\ufffd" * 4 + "A", id="Unicode's table"
        ),
        pytest.param(BOM + b"x", "x", id="byte order mark"),
        pytest.param(BOM, "", id="byte order mark alone"),
        pytest.param(BOM + BOM + b"x", "\ufeffx", id="two byte order marks"),
        pytest.param(b"x" + BOM + b"y", "x\ufeffy", id="byte order mark in the middle"),
        pytest.param(b"\xef\xbb", "\ufffd", id="byte order mark cut short"),
        pytest.param(b"\xef\xbbx", "\ufffdx", id="byte order mark broken off"),
        pytest.param(b"\xff\xfex\x00", "\ufffd\ufffdx\x00", id="not UTF-16"),
        pytest.param(b"a\r\nb\x00c", "a\r\nb\x00c", id="control characters"),
    ],
)
def test_malformed_sequences_are_replaced_as_a_text_decoder_does(data: bytes, text: str) -> None:
    assert outcome([data]) == outcome(single_bytes(data)) == Outcome(text)


def test_a_character_split_between_pieces_arrives_whole_with_its_last_byte() -> None:
    parser = ReplyParser(200, [])
    assert [parser.feed(piece) for piece in single_bytes("🙂".encode())] == ["", "", "", "🙂"]


def test_an_empty_body_is_an_empty_reply() -> None:
    assert outcome([]) == outcome([b""]) == Outcome("")


# Holding back


def longest_beginning_of_the_marker(text: str) -> str:
    """The longest end of the text that the marker begins with."""
    return next(
        text[len(text) - length :]
        for length in range(min(len(text), len(FAILURE_MARKER)), -1, -1)
        if FAILURE_MARKER.startswith(text[len(text) - length :])
    )


@given(delicate_bytes, cut_places)
@example(b"Internal server error" * 2, list(range(42)))
@example(b"IIInternal server erro", list(range(22)))
def test_all_is_handed_over_but_what_may_become_the_marker(data: bytes, places: list[int]) -> None:
    parser = ReplyParser(200, [])
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    arrived = ""
    for piece in cut_at(data, places):
        arrived += decoder.decode(piece)
        parser.feed(piece)
        text = arrived.removeprefix("\ufeff")
        assert parser.text + longest_beginning_of_the_marker(text) == text


@pytest.mark.parametrize("before", ["", "Hello", "Приве́т 🙂", "I", "Internal ", FAILURE_MARKER])
def test_a_reply_ended_by_the_marker_is_interrupted(before: str) -> None:
    data = before.encode() + MARKER
    for place in range(len(data) + 1):
        pieces = [data[:place], data[place:]]
        assert outcome(pieces)[:2] == Outcome(before, InterruptedReply)[:2]
    assert outcome(single_bytes(data))[:2] == (before, InterruptedReply)


def test_the_marker_is_not_handed_over_when_the_connection_ends_behind_it() -> None:
    assert outcome([b"Hello", MARKER], complete=False)[:2] == ("Hello", InterruptedReply)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"{FAILURE_MARKER}.", id="one more character"),
        pytest.param(f"{FAILURE_MARKER}\n", id="a line break"),
        pytest.param(f"It says {FAILURE_MARKER} in red", id="in the middle"),
        pytest.param(f"{FAILURE_MARKER}Internal", id="its beginning once more"),
        pytest.param(FAILURE_MARKER[:-1], id="but for the last letter"),
        pytest.param(FAILURE_MARKER[1:], id="but for the first letter"),
        pytest.param(FAILURE_MARKER.lower(), id="in lower case"),
        pytest.param(FAILURE_MARKER.replace("server", "sever"), id="misspelt"),
        pytest.param("I", id="its first letter"),
    ],
)
def test_what_only_resembles_the_marker_is_text(text: str) -> None:
    assert outcome([text.encode()]) == outcome(single_bytes(text.encode())) == Outcome(text)


def test_incomplete_bytes_before_the_marker_are_one_replacement_character() -> None:
    data = b"\xf0\x9f" + MARKER
    assert outcome(single_bytes(data))[:2] == ("\ufffd", InterruptedReply)


def test_incomplete_bytes_after_the_marker_make_it_text() -> None:
    data = MARKER + b"\xf0\x9f"
    assert outcome(single_bytes(data)) == Outcome(f"{FAILURE_MARKER}\ufffd")
    assert outcome([data], complete=False)[:2] == (FAILURE_MARKER, TruncatedReply)


# Broken off


@given(delicate_bytes, cut_places)
def test_a_reply_broken_off_keeps_all_that_arrived(data: bytes, places: list[int]) -> None:
    arrived = outcome(cut_at(data, places), complete=False)
    assert arrived == outcome([data], complete=False)
    assert arrived.error in (TruncatedReply, InterruptedReply)
    # Half a character is not text, nor will it become any.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data).removeprefix("\ufeff")
    if arrived.error is InterruptedReply:
        text = without_marker(text)
    assert arrived.text == text


def test_a_reply_broken_off_says_after_how_much_and_why() -> None:
    parser = ReplyParser(200, [])
    parser.feed("Привет".encode())
    error = parser.cut("connection reset")
    assert isinstance(error, TruncatedReply)
    assert "6 characters" in str(error)
    assert "connection reset" in str(error)


@pytest.mark.parametrize(("held", "text"), [(b"Inter", "Hello Inter"), (MARKER, "Hello ")])
def test_salvaging_brings_what_was_held_back_but_not_the_marker(held: bytes, text: str) -> None:
    parser = ReplyParser(200, [])
    assert parser.feed(b"Hello " + held) == "Hello "
    assert parser.partial_text() == parser.text == text
    assert parser.partial_text() == text


def test_a_reply_that_is_interrupted_says_after_how_much() -> None:
    assert "after 6 characters" in outcome(["Привет".encode() + MARKER]).said


def test_after_the_end_nothing_more_comes() -> None:
    parser = ReplyParser(200, [])
    parser.feed(b"Hello I\xf0\x9f")
    assert parser.finish() == "I\ufffd"
    assert parser.finish() == ""
    assert parser.partial_text() == parser.text == "Hello I\ufffd"


def test_an_error_broken_off_is_what_arrived_of_it() -> None:
    parser = ReplyParser(401, JSON_HEADERS)
    parser.feed(error_json("Invalid password."))
    error = parser.cut("connection reset")
    assert isinstance(error, PasswordRejected)
    assert error.message == "Invalid password."


# The limit


@given(delicate_text, st.integers(1, 60), cut_places)
@example("Hello " + FAILURE_MARKER + "!", 27, [])
@example("ab🙂", 4, [])
def test_a_reply_is_too_long_from_the_first_byte_above_the_limit(
    text: str, limit: int, places: list[int]
) -> None:
    data = text.encode()
    arrived = outcome(cut_at(data, places), max_bytes=limit)
    if len(data) <= limit:
        assert arrived.error is not ReplyTooLong
        assert arrived == outcome([data])
    else:
        whole_characters = data[:limit].decode("utf-8", "ignore")
        assert arrived[:2] == (whole_characters.removeprefix("\ufeff"), ReplyTooLong)


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_an_error_may_be_longer_than_a_reply(compress: Callable[[bytes], bytes]) -> None:
    headers = [] if compress is bytes else [(b"content-encoding", b"gzip")]
    parser = ReplyParser(500, headers, max_bytes=5)
    with pytest.raises(ServiceFailed, match="the model is overloaded"):
        feed_all(parser, [compress(b"the model is overloaded")])


def test_a_reply_that_is_too_long_says_what_the_limit_is() -> None:
    assert "5 bytes" in outcome([b"123456"], max_bytes=5).said


# The error table


class Row(NamedTuple):
    status: int
    body: bytes
    error: type[ResponseError]
    message: str = ""
    code: str | None = None


INVALID_HISTORY = "Invalid message history: The last message must be from user role."
QUOTA = "[GoogleGenerativeAI Error]: [429 Too Many Requests] Quota exceeded for quota metric"
INVALID_KEY = "API key not valid. Please pass a valid API key."

TABLE = [
    Row(400, error_json(INVALID_HISTORY), BadRequest, INVALID_HISTORY),
    Row(401, error_json("Invalid password."), PasswordRejected, "Invalid password."),
    Row(401, error_json("Invalid signature."), SignatureRejected, "Invalid signature."),
    Row(401, error_json("Who are you?"), AuthenticationError, "Who are you?"),
    Row(403, b"", AuthenticationError),
    Row(403, error_json("Invalid signature."), SignatureRejected, "Invalid signature."),
    Row(500, error_json(QUOTA, code="Error"), RateLimited, QUOTA, "Error"),
    Row(500, error_json(INVALID_KEY, code="Error"), ServiceFailed, INVALID_KEY, "Error"),
    Row(500, error_json("fetch failed", code=13), ServiceFailed, "fetch failed", "13"),
    Row(500, b"", ServiceFailed),
    Row(404, b"Not Found", NotTheService),
    Row(405, b"", NotTheService),
    Row(408, b"slow", ServiceFailed, "slow"),
    Row(413, b"Payload Too Large", BadRequest, "Payload Too Large"),
    Row(418, b"short and stout", BadRequest, "short and stout"),
    Row(429, b"slow down", RateLimited, "slow down"),
    Row(502, b"Bad Gateway", ServiceFailed, "Bad Gateway"),
    Row(503, b"", ServiceFailed),
    Row(504, b"", ServiceFailed),
    Row(520, b"error code: 520", ServiceFailed, "error code: 520"),
    Row(529, b"", ServiceFailed),
    Row(599, b"", ServiceFailed),
    Row(201, b"Hello", NotTheService),
    Row(204, b"", NotTheService),
    Row(206, b"Hel", NotTheService),
    Row(301, b"", NotTheService),
    Row(304, b"", NotTheService),
    Row(100, b"", NotTheService),
    Row(199, b"", NotTheService),
    Row(600, b"", NotTheService),
    Row(999, b"", NotTheService),
    Row(0, b"", NotTheService),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.status} {row.error.__name__}")
def test_each_row_of_the_error_table(row: Row) -> None:
    error = error_of(row.status, JSON_HEADERS, row.body)
    assert type(error) is row.error
    assert (error.status, error.message, error.code) == (row.status, row.message, row.code)
    assert str(row.status) in str(error)
    assert row.message in str(error)


def test_no_page_is_a_reply_and_only_gateways_may_send_one() -> None:
    for status in range(100, 600):
        error = error_of(status, HTML_HEADERS, b"<!DOCTYPE html><title>Hello</title>")
        if status == 429:
            assert type(error) is RateLimited
        elif status == 413:
            assert type(error) is BadRequest
        elif status == 408 or status >= 500:
            assert type(error) is ServiceFailed, status
        else:
            assert type(error) is NotTheService, status
        assert error.message == ""
        assert "<" not in str(error)


def test_what_is_no_reply_by_its_head_needs_no_body() -> None:
    for status, headers in [(200, HTML_HEADERS), (302, []), (405, []), (201, [])]:
        with pytest.raises(NotTheService):
            ReplyParser(status, headers)


def test_a_reply_needs_no_content_type() -> None:
    assert outcome([b"Hello"], headers=[]) == Outcome("Hello")


@pytest.mark.parametrize(
    "headers",
    [
        [(b"name", b"v" * 100)],
        [(b"content-length", b"5"), (b"content-length", b"6")],
        [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")],
        [(b"transfer-encoding", b"gzip, chunked")],
        [(b"transfer-encoding", b"gzip")],
        [(b"Transfer-Encoding", b"chunked"), (b"transfer-encoding", b"chunked")],
    ],
)
def test_a_head_that_no_honest_service_sends_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(NotTheService) as caught:
        ReplyParser(200, headers, max_head_bytes=100)
    assert caught.value.status == 200


def test_the_name_of_the_one_transfer_coding_is_in_any_case() -> None:
    assert outcome([b"Hello"], headers=[(b"transfer-encoding", b" Chunked ")]) == Outcome("Hello")


def test_headers_and_status_are_there_to_be_read() -> None:
    parser = ReplyParser(200, [(b"X-One", b"1"), (b"x-one", b" 2 "), (b"Server", b"caf\xe9")])
    assert parser.status == 200
    assert parser.headers == {"x-one": "1, 2", "server": "café"}
    assert parser.is_reply
    assert not ReplyParser(500, []).is_reply


def test_a_redirect_tells_where_it_points() -> None:
    error = error_of(302, [(b"Location", b"https://elsewhere.example/login")])
    assert isinstance(error, NotTheService)
    assert error.location == "https://elsewhere.example/login"
    assert "https://elsewhere.example/login" in str(error)


def test_a_redirect_without_a_location_is_not_the_service_either() -> None:
    error = error_of(307)
    assert isinstance(error, NotTheService)
    assert error.location is None
    assert "redirected (307)" in str(error)


def test_a_rate_limit_carries_when_to_come_back() -> None:
    for status, body in [(429, b""), (500, error_json(QUOTA))]:
        error = error_of(status, [(b"retry-after", b"7")], body)
        assert isinstance(error, RateLimited)
        assert error.retry_after == 7
        assert "in 7 s" in str(error)


# Error bodies of any form


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        pytest.param(b"", "", None, id="empty"),
        pytest.param(b" \r\n ", "", None, id="white space"),
        pytest.param(b"it broke", "it broke", None, id="plain text"),
        pytest.param(b"it\r\n  broke\there", "it broke here", None, id="several lines"),
        pytest.param(b"<html>it broke", "", None, id="HTML that does not say so"),
        pytest.param(b'{"error": "it broke"}', "it broke", None, id="error as a string"),
        pytest.param(b'{"error": {"message": "it broke"}}', "it broke", None, id="no code"),
        pytest.param(b'{"error": {"message": "a", "code": "E"}}', "a", "E", id="code"),
        pytest.param(b'{"error": {"message": "a", "code": 42}}', "a", "42", id="code as a number"),
        pytest.param(b'{"error": {"message": "a", "code": null}}', "a", None, id="code null"),
        pytest.param(b'{"error": {"message": "a", "code": [1]}}', "a", None, id="code a list"),
        pytest.param(
            b'{"error": {"code": "E"}}', '{"error": {"code": "E"}}', None, id="no message"
        ),
        pytest.param(b'{"error": {"message": 5}}', '{"error": {"message": 5}}', None, id="number"),
        pytest.param(b'{"error": ["a"]}', '{"error": ["a"]}', None, id="error a list"),
        pytest.param(b'{"error": null}', '{"error": null}', None, id="error null"),
        pytest.param(b'{"detail": "no"}', '{"detail": "no"}', None, id="other object"),
        pytest.param(b'["it broke"]', '["it broke"]', None, id="list"),
        pytest.param(b'"it broke"', '"it broke"', None, id="string"),
        pytest.param(b"17", "17", None, id="number alone"),
        pytest.param(b"null", "null", None, id="null"),
        pytest.param(b'{"error": {"message"', '{"error": {"message"', None, id="cut off"),
        pytest.param(b"\xff\xfe", "\ufffd\ufffd", None, id="not UTF-8"),
        pytest.param(b'{"error": {"message": "\\ud800 a"}}', "a", None, id="lone surrogate"),
        pytest.param("{'ошибка'}".encode(), "{'ошибка'}", None, id="not quite JSON"),
    ],
)
def test_an_error_body_of_any_form_gives_what_it_says(
    body: bytes, message: str, code: str | None
) -> None:
    error = error_of(500, [], body)
    assert (error.message, error.code) == (message, code)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" * 100_000, id="brackets"),
        pytest.param(b'{"error":' * 10_000, id="objects"),
        pytest.param(b'{"error":{"message":"a","code":' + b"9" * 5_000 + b"}}", id="huge number"),
    ],
)
def test_hostile_json_is_quoted_and_shortened(body: bytes) -> None:
    error = error_of(500, [], body)
    assert 0 < len(error.message) <= 500
    assert len(str(error)) < 700


def test_of_an_error_body_no_more_than_the_limit_is_kept_and_nothing_after_it_needed() -> None:
    piece = b"x" * (1 << 20)
    parser = ReplyParser(500, [])
    tracemalloc.start()
    try:
        with pytest.raises(ServiceFailed) as caught:
            feed_all(parser, repeat(piece, 10))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert set(caught.value.message) == {"x"}
    assert peak < 3 << 20


def test_an_error_body_is_complete_at_the_limit() -> None:
    parser = ReplyParser(500, [])
    assert parser.feed(b"x" * (MAX_ERROR_BODY - 1)) == ""
    with pytest.raises(ServiceFailed):
        parser.feed(b"x")


@given(st.text(alphabet=st.characters(codec="utf-8", categories=["Cc", "Cf", "Zl", "Zp", "L"])))
@example("\x1b[2J\x1b]0;owned\x07")
@example("\u202eright to left\u2066")
@example("a\r\nset-cookie: b")
def test_nothing_unprintable_survives_into_an_error(said: str) -> None:
    for body in (error_json(said, code=said), said.encode()):
        error = error_of(503, [], body)
        assert str(error).isprintable()
        assert error.message.isprintable()
        assert (error.code or "").isprintable()


def test_a_redirect_to_a_terminal_escape_is_quoted() -> None:
    assert str(error_of(301, [(b"location", b"\x1b[2J\x00")])).isprintable()


# Content codings


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


CODED = [
    pytest.param(b"gzip", gzip.compress, id="gzip"),
    pytest.param(b"X-GZIP", gzip.compress, id="x-gzip"),
    pytest.param(b"deflate", zlib.compress, id="deflate in zlib's wrapper"),
    pytest.param(b"deflate", raw_deflate, id="raw deflate"),
    pytest.param(b"identity", bytes, id="identity"),
    pytest.param(b"", bytes, id="empty"),
]

Compress = Callable[[bytes], bytes]


def coded(coding: bytes) -> Headers:
    return [(b"Content-Encoding", coding)]


@pytest.mark.parametrize(("coding", "compress"), CODED)
def test_a_coded_reply_arrives_however_it_is_cut(coding: bytes, compress: Compress) -> None:
    data = compress("Привет 🙂".encode() * 10)
    for pieces in ([data], single_bytes(data), cut_at(data, range(0, len(data), 3))):
        assert outcome(pieces, headers=coded(coding)) == Outcome("Привет 🙂" * 10)


@pytest.mark.parametrize(("coding", "compress"), CODED)
def test_a_coded_error_is_told_as_if_it_were_not(coding: bytes, compress: Compress) -> None:
    error = error_of(401, coded(coding), compress(error_json("Invalid password.")))
    assert isinstance(error, PasswordRejected)
    assert error.message == "Invalid password."


def test_a_coded_reply_may_end_with_the_marker() -> None:
    data = gzip.compress(b"Hello" + MARKER)
    assert outcome(single_bytes(data), headers=coded(b"gzip"))[:2] == ("Hello", InterruptedReply)


@pytest.mark.parametrize("coding", [b"br", b"zstd", b"gzip, gzip", b"\x1b[2J"])
def test_a_reply_in_another_coding_is_not_the_services(coding: bytes) -> None:
    error = error_of(200, coded(coding))
    assert isinstance(error, NotTheService)
    assert error.status == 200
    assert f"coded as {coding.decode()!r}" in str(error)
    assert str(error).isprintable()


def test_an_error_in_another_coding_is_told_by_its_status() -> None:
    error = error_of(503, coded(b"br"), b"\x0b\x02\x80")
    assert isinstance(error, ServiceFailed)
    assert error.message == ""


@pytest.mark.parametrize(("coding", "compress"), CODED[:4])
def test_a_coded_reply_cut_off_at_any_byte_is_truncated_with_the_text_so_far(
    coding: bytes, compress: Compress
) -> None:
    text = "".join(f"{number} попугаев. " for number in range(40))
    data = compress(text.encode())
    longest = ""
    for end in range(1, len(data)):
        arrived = outcome([data[:end]], headers=coded(coding))
        assert arrived.error is TruncatedReply
        assert "compressed data is not complete" in arrived.said
        assert text.startswith(arrived.text)
        assert len(arrived.text) >= len(longest)
        longest = arrived.text
        assert arrived == outcome(single_bytes(data[:end]), headers=coded(coding))
    assert len(longest) > len(text) - 10


def test_a_coded_reply_that_is_corrupt_is_truncated_with_the_text_before_it() -> None:
    data = bytearray(gzip.compress(b"Hello " * 100))
    data[-5] ^= 0xFF
    arrived = outcome([bytes(data)], headers=coded(b"gzip"))
    assert arrived == outcome(single_bytes(bytes(data)), headers=coded(b"gzip"))
    assert arrived[:2] == ("Hello " * 100, TruncatedReply)
    assert "corrupt" in arrived.said


def test_what_follows_a_coded_reply_makes_it_truncated_with_all_its_text() -> None:
    for coding, coded_text in [
        (b"gzip", gzip.compress(b"Hello")),
        (b"deflate", zlib.compress(b"Hello")),
    ]:
        data = coded_text + b"<!-- a proxy was here -->"
        for pieces in ([data], single_bytes(data)):
            assert outcome(pieces, headers=coded(coding))[:2] == ("Hello", TruncatedReply)


def test_a_coded_error_that_is_corrupt_is_told_by_what_precedes_the_fault() -> None:
    data = gzip.compress(b"it broke")[:-8] + b"12345678"
    error = error_of(503, coded(b"gzip"), data)
    assert isinstance(error, ServiceFailed)
    assert error.message == "it broke"


def test_several_gzip_members_are_one_reply() -> None:
    data = gzip.compress("При".encode()) + gzip.compress("вет".encode())
    for pieces in ([data], single_bytes(data)):
        assert outcome(pieces, headers=coded(b"gzip")) == Outcome("Привет")


@cache
def bomb() -> bytes:
    """64 MiB of text in some 64 KiB of gzip."""
    return gzip.compress(b"x" * (64 << 20))


@pytest.mark.parametrize(("status", "error"), [(200, ReplyTooLong), (500, ServiceFailed)])
@pytest.mark.parametrize("piece_size", [4096, 1 << 24])
def test_a_bomb_stops_at_the_limit_in_bounded_memory(
    status: int, error: type[GPROChatError], piece_size: int
) -> None:
    data = bomb()
    tracemalloc.start()
    try:
        parser = ReplyParser(status, coded(b"gzip"), max_bytes=1 << 20)
        with pytest.raises(error):
            feed_all(parser, cut_at(data, range(0, len(data), piece_size)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(parser.text) == (1 << 20 if status == 200 else 0)
    assert peak < 8 << 20


# Anything at all

header_names = st.one_of(
    st.sampled_from(
        [b"content-type", b"Content-Encoding", b"retry-after", b"date", b"location", b"x"]
    ),
    st.binary(max_size=10),
)
header_values = st.one_of(
    st.sampled_from(
        [
            b"text/html",
            b"gzip",
            b"deflate",
            b"br",
            b"identity",
            b"17",
            b"9" * 5000,
            b"Sun, 06 Nov 1994 08:49:37 GMT",
            b"Sun, 99 Nov 0000 99:99:99 GMT",
        ]
    ),
    st.binary(max_size=30),
)
statuses = st.one_of(
    st.sampled_from([200, 400, 401, 403, 404, 413, 429, 500, 503]), st.integers(-1, 1000)
)
bodies = st.one_of(
    delicate_bytes,
    delicate_bytes.map(gzip.compress),
    delicate_bytes.map(zlib.compress),
    delicate_bytes.map(lambda data: gzip.compress(data)[:-9] + data),
    delicate_text.map(error_json),
    st.sampled_from([error_json(QUOTA), error_json("Invalid signature."), b"[" * 2000]),
)


@given(
    status=statuses,
    headers=st.lists(st.tuples(header_names, header_values), max_size=5),
    body=bodies,
    places=cut_places,
    max_bytes=st.one_of(st.integers(1, 60), st.just(1 << 20)),
    complete=st.booleans(),
)
def test_any_answer_ends_the_same_however_it_is_cut_and_never_but_in_our_own_errors(
    status: int,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    places: list[int],
    max_bytes: int,
    complete: bool,
) -> None:
    def parse(pieces: Iterable[bytes]) -> Outcome:
        return outcome(
            pieces, status=status, headers=headers, max_bytes=max_bytes, complete=complete
        )

    assert parse(cut_at(body, places)) == parse([body]) == parse(single_bytes(body))


@given(
    coding=st.sampled_from([b"identity", b"gzip", b"deflate"]),
    body=bodies,
    places=cut_places,
    max_bytes=st.one_of(st.integers(1, 60), st.just(1 << 20)),
    complete=st.booleans(),
)
@example(b"gzip", gzip.compress(b"Hello") + b"!", [], 1 << 20, True)
@example(b"identity", b"Hello", [2], 4, True)
@example(b"identity", b"Hello Int", [], 1 << 20, True)
def test_who_keeps_no_text_loses_none(
    coding: bytes, body: bytes, places: list[int], max_bytes: int, complete: bool
) -> None:
    kept, not_kept = (
        outcome(
            cut_at(body, places),
            headers=coded(coding),
            max_bytes=max_bytes,
            complete=complete,
            keep_text=keep_text,
        )
        for keep_text in (True, False)
    )
    assert kept[:2] == not_kept[:2]


@given(delicate_text)
def test_what_is_not_to_be_kept_is_returned_and_forgotten(text: str) -> None:
    parser = ReplyParser(200, [], keep_text=False)
    pieces = [parser.feed(piece) for piece in single_bytes(text.encode() + "é".encode())]
    assert "".join(pieces) == text.removeprefix("\ufeff") + "é"
    assert parser.text == ""


def test_an_error_of_a_reply_that_is_not_kept_has_what_was_not_returned() -> None:
    parser = ReplyParser(200, [], keep_text=False)
    assert parser.feed(b"Hello, Int") == "Hello, "
    assert isinstance(error := parser.cut("it ended"), TruncatedReply)
    assert error.text == "Int"


def test_a_reply_in_thousands_of_pieces_is_kept_in_order() -> None:
    parser = ReplyParser(200, [])
    pieces = [f"{number} " for number in range(3000)]
    assert [parser.feed(piece.encode()) for piece in pieces] == pieces
    assert parser.text == "".join(pieces)


def test_a_coding_that_repeats_a_secret_is_quoted_without_it() -> None:
    with pytest.raises(NotTheService, match=r"'x-\*\*\*'"):
        ReplyParser(
            200, [(b"content-encoding", b"x-open-sesame")], redactor=Redactor(["open-sesame"])
        )
