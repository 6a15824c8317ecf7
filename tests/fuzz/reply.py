"""Any answer, whole or cut: it ends in text or in one of our own errors, and always the same way.

An input is an answer as it is written down: a status line, headers, an empty line, the body (after
its transfer coding is gone). What is not such an answer is read as one all the same.
"""

import gzip
import re
import tracemalloc
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterable
from typing import Final, NamedTuple

from gprochat_core import (
    GPROChatError,
    IncompleteReply,
    InterruptedReply,
    Redactor,
    ReplyParser,
    ReplyTooLong,
    ResponseError,
    TruncatedReply,
)
from gprochat_core.reply import FAILURE_MARKER

SECRET: Final = "hunter2:ключ"
"""What an answer may repeat and an error must not."""

STATUS: Final = re.compile(rb"HTTP/[\d.]+ (\d{1,3})", re.ASCII)

EMPTY_LINE: Final = re.compile(rb"\r?\n\r?\n")

CONTENT_CODING: Final = b"content-encoding"

SMALL: Final = 1000
"""A limit that a compressed body passes easily."""

SLACK: Final = 1 << 20
"""Bytes of memory that any answer may take, beside some for each of its own."""


class Answer(NamedTuple):
    """An input, taken apart."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Outcome(NamedTuple):
    """How an answer ended."""

    text: str
    error: type[GPROChatError] | None
    said: str


def read_answer(data: bytes) -> Answer:
    head, body = data, b""
    if empty_line := EMPTY_LINE.search(data):
        head, body = data[: empty_line.start()], data[empty_line.end() :]
    first, *lines = head.splitlines() or [b""]
    status = STATUS.match(first)
    fields = (line.partition(b":") for line in lines)
    headers = [(name.strip(), value.strip()) for name, _, value in fields]
    return Answer(int(status[1]) if status else 200, headers, body)


def in_pieces(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


def parse(
    answer: Answer,
    pieces: Iterable[bytes],
    *,
    max_bytes: int = 1 << 24,
    complete: bool = True,
    keep_text: bool = True,
) -> Outcome:
    """Parse an answer; what is handed over must be what the parser calls the text."""
    handed_over = ""
    failure: GPROChatError | None = None
    parser: ReplyParser | None = None
    try:
        parser = ReplyParser(
            answer.status,
            answer.headers,
            max_bytes=max_bytes,
            keep_text=keep_text,
            now=1_700_000_000.0,
            redactor=Redactor([SECRET]),
        )
        for piece in pieces:
            handed_over += parser.feed(piece)
            assert parser.text == (handed_over if keep_text else "")
        if not complete:
            raise parser.cut("that was all")
        handed_over += parser.finish()
    except GPROChatError as error:
        failure = error
    if failure is None:
        return Outcome(handed_over, None, "")
    text = handed_over
    if isinstance(failure, IncompleteReply):
        assert parser is not None
        assert failure.text == parser.text
        # An error may bring text that came too late to be handed over; it takes none back.
        assert not keep_text or failure.text.startswith(handed_over)
        text = failure.text if keep_text else handed_over + failure.text
    else:
        assert isinstance(failure, ResponseError)
        assert handed_over == ""
        assert str(failure).isprintable()
        assert len(str(failure)) < 1000
        assert SECRET not in f"{failure} {vars(failure)}"
    return Outcome(text, type(failure), str(failure))


def plain(answer: Answer) -> bytes | None:
    """The body without its content coding, by other means; None where it is not sound."""
    codings = [value.lower() for name, value in answer.headers if name.lower() == CONTENT_CODING]
    if codings in ([], [b""], [b"identity"]) or not answer.body:
        return answer.body
    try:
        if codings == [b"gzip"]:
            return gzip.decompress(answer.body)
        if codings == [b"deflate"]:
            inflate = zlib.decompressobj()
            body = inflate.decompress(answer.body)
            return body if inflate.eof and not inflate.unused_data else None
    except (OSError, EOFError, zlib.error):
        pass
    return None


def reply(data: bytes) -> None:
    """The harness."""
    answer = read_answer(data)
    body = answer.body

    whole = parse(answer, [body])
    assert parse(answer, in_pieces(body, 1)) == whole
    assert parse(answer, in_pieces(body, 3)) == whole
    assert parse(answer, in_pieces(body, 1), keep_text=False)[:2] == whole[:2]

    broken_off = parse(answer, [body], complete=False)
    assert parse(answer, in_pieces(body, 1), complete=False) == broken_off
    if whole.error is None:
        assert broken_off.error is TruncatedReply
        # But for a character that is not complete.
        assert whole.text.removesuffix("\ufffd").startswith(broken_off.text.removesuffix("\ufffd"))

    if whole.error in (None, InterruptedReply):
        said = plain(answer)
        if said is not None:
            text = said.removeprefix(BOM_UTF8).decode("utf-8", "replace")
            interrupted = whole.error is InterruptedReply
            assert whole.text + FAILURE_MARKER * interrupted == text
            assert interrupted == text.endswith(FAILURE_MARKER)
            limited(answer, said, whole)
    assert_bounded(answer)


def limited(answer: Answer, said: bytes, whole: Outcome) -> None:
    """A limit changes nothing for what is within it, and leaves of the rest what is."""
    assert parse(answer, [answer.body], max_bytes=max(1, len(said))) == whole
    if len(said) > 1:
        limit = len(said) // 2
        too_long = parse(answer, [answer.body], max_bytes=limit)
        assert too_long.error is ReplyTooLong
        assert too_long == parse(answer, in_pieces(answer.body, 1), max_bytes=limit)
        assert len(too_long.text) <= limit
        assert (whole.text + FAILURE_MARKER).startswith(too_long.text)


def assert_bounded(answer: Answer) -> None:
    """However far a body unfolds, no more of it than the limit is held."""
    tracemalloc.start()
    try:
        outcome = parse(answer, [answer.body], max_bytes=SMALL)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(outcome.text) <= SMALL
    assert peak < SLACK + 20 * len(answer.body)
