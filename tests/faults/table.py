"""The fault table: everything that goes wrong, and what a call must then come to, as data.

A row is a `Fault`; its cases are the moments at which it can happen. The same is expected of all
transports; where a library does not allow it, the case says so and why.
"""

import gzip
import json
import socket
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from email.utils import formatdate
from time import time
from typing import Any, Final, Literal

import pytest

from gprochat_core import (
    AuthenticationError,
    BadRequest,
    ConnectError,
    ConnectTimeout,
    GPROChatError,
    InterruptedReply,
    Limits,
    NotTheService,
    PasswordRejected,
    RateLimited,
    ReplyTimeout,
    ReplyTooLong,
    RetryPolicy,
    ServiceFailed,
    SignatureRejected,
    Timeouts,
    TruncatedReply,
)
from gprochat_core.reply import FAILURE_MARKER
from tests.contract.adapters import ADAPTERS
from tests.faults.fault import PATIENT, QUICK, Case, Door, Expected, Fault
from tests.faults.peer import WELL, hang_up, until_the_call_is_over
from tests.peers.scripted import (
    Connection,
    Script,
    Step,
    close,
    pause,
    receive,
    repeat,
    reset,
    send,
    until_client_closes,
)
from tests.peers.wire import LAST_CHUNK, answer, chunk, chunked, head

__all__ = ["TABLE"]

TEXT: Final = "Раз, два — 🙂"
"""A whole reply, or the part of a reply that arrives before something goes wrong."""

PLAIN: Final = "content-type: text/plain; charset=utf-8"
HTML: Final = "content-type: text/html; charset=utf-8"
GZIP: Final = "content-encoding: gzip"
HEAD: Final = head(200, PLAIN, "transfer-encoding: chunked")
BEGUN: Final = HEAD + chunk(TEXT)
OK: Final = chunked(TEXT)

BEFORE: Final = "before the first text"
AFTER: Final = "after it"

ATTEMPTS: Final = RetryPolicy().max_attempts
TWO_ATTEMPTS: Final = RetryPolicy(max_attempts=2, base_delay=0.002)
ONE_ATTEMPT: Final = RetryPolicy(max_attempts=1)

MOMENT: Final = pause(0.02)
"""Time enough for what has been sent to have been read."""


# Expected outcomes.


def lost(attempts: int = ATTEMPTS) -> Expected:
    """No connection, after all attempts."""
    return Expected(ConnectError, attempts=attempts)


def no_connection_in_time() -> Expected:
    """No connection within the limit, after two attempts."""
    return Expected(ConnectTimeout, attempts=2, attributes={"seconds": QUICK.connect})


def not_the_service(**attributes: object) -> Expected:
    """Something else than the service."""
    return Expected(NotTheService, attributes=attributes)


def truncated(text: str = "") -> Expected:
    """A reply that breaks off."""
    return Expected(TruncatedReply, text)


def complete(text: str = TEXT, attempts: int = 1) -> Expected:
    """A reply that is as it should be."""
    return Expected(None, text, attempts)


def silent(
    limit: Literal["first_byte", "idle", "total"], seconds: float, text: str = "", attempts: int = 1
) -> Expected:
    """A time limit that runs out."""
    attributes = {"limit": limit, "seconds": seconds}
    return Expected(ReplyTimeout, text, attempts, attributes, seconds=seconds)


# Kinds of rows.


def at_once(what: str, script: Script, expected: Expected, **row: Any) -> Fault:
    """A row with a single case: what the peer does once it has read a request."""
    return Fault(what, [Case("", [script], expected)], **row)


def an_answer(what: str, wire: bytes, expected: Expected, *end: Step, **row: Any) -> Fault:
    """A row that is an answer of these bytes."""
    return at_once(what, [send(wire), *end], expected, **row)


def in_a_reply(
    what: str,
    *steps: Step,
    before: Expected | None = None,
    after: Expected | None = None,
    exceptions: Mapping[str, tuple[Expected | None, str]] | None = None,
    **row: Any,
) -> Fault:
    """A row whose fault follows a reply's head, or its first text; a truncated reply if not said.

    It comes a moment later, as it would, and not in one packet with what precedes it.
    """
    cases = [
        Case(BEFORE, [[send(HEAD), MOMENT, *steps]], before or truncated(), exceptions or {}),
        Case(AFTER, [[send(BEGUN), MOMENT, *steps]], after or truncated(TEXT), exceptions or {}),
    ]
    return Fault(what, cases, **row)


def cut_anywhere(
    what: str,
    wire: bytes,
    end: Step,
    expect: Callable[[int], tuple[str, Expected]],
    places: Iterable[int] | None = None,
) -> Fault:
    """A row with a case for each place at which these bytes can break off."""
    cases: list[Case] = []
    for place in places or range(1, len(wire)):
        when, expected = expect(place)
        cases.append(Case(when, [[send(wire[:place]), end]], expected))
    return Fault(what, cases)


def over_tls(what: str, certificate: str | None, *first: Step, **row: Any) -> Fault:
    """A row in which there is no connection, because of TLS."""
    expected = row.pop("expected", lost())
    return at_once(
        what, [hang_up], expected, scheme="https", certificate=certificate, first=first, **row
    )


def by_proxies(
    what: str,
    *http: Step,
    socks5: Script | None = None,
    expected: Expected | None = None,
    **row: Any,
) -> list[Fault]:
    """Rows in which there is no connection, because of a proxy of either kind."""
    row["scheme"] = "https"
    return [
        at_once(
            f"an HTTP proxy that {what}",
            [hang_up],
            expected or lost(),
            proxy="http",
            first=http,
            **row,
        ),
        at_once(
            f"a SOCKS5 proxy that {what}",
            [hang_up],
            expected or lost(),
            proxy="socks5",
            first=http if socks5 is None else socks5,
            **row,
        ),
    ]


def a_status(
    status: int,
    body: bytes | str,
    error: type[GPROChatError],
    *fields: str,
    attempts: int = 1,
    note: str = "",
    **attributes: object,
) -> Fault:
    """A row that is a complete answer of a status other than a reply's."""
    body = body.encode() if isinstance(body, str) else body
    shown = note or (body.decode() if body else "no body")
    expected = Expected(error, attempts=attempts, attributes={"status": status, **attributes})
    return an_answer(f"{status}: {shown}", answer(status, body, *fields), expected)


def said(message: str, code: str | None = None) -> str:
    """An error's body, as the service writes it."""
    error = {"message": message} if code is None else {"message": message, "code": code}
    return json.dumps({"error": error}, ensure_ascii=False)


# Steps that only a row or two need.


def hear(connection: Connection) -> None:
    """Read some bytes and ignore them."""
    connection._socket.recv(65536)


def send_past_tls(data: bytes) -> Step:
    """Send bytes that are not encrypted."""
    return lambda connection: socket.socket.send(connection._socket, data)


def reject_signature(seconds: float) -> Step:
    """Answer that the signature is wrong, by a clock that is so many seconds ahead."""

    def step(connection: Connection) -> None:
        date = formatdate(time() + seconds, usegmt=True)
        connection.send(answer(401, said("Invalid signature."), f"date: {date}"))

    return step


NO_CONNECTION: Final = [
    at_once("refuses connections", [], lost(), door=Door.CLOSED),
    at_once("has a name that does not resolve", [], lost(), door=Door.UNKNOWN, scheme="https"),
    at_once(
        "has a full backlog and never accepts",
        [],
        no_connection_in_time(),
        door=Door.FULL,
        timeouts=QUICK,
        retry=TWO_ATTEMPTS,
    ),
    at_once("closes as soon as it has accepted", [], lost(), first=[hang_up]),
    at_once("resets as soon as it has accepted", [], lost(), first=[reset]),
    at_once(
        "closes without reading a request of 4 MB",
        [],
        lost(),
        first=[close],
        prompt="long " * 800_000,
    ),
]

TLS: Final = [
    over_tls("shows a self-signed certificate", "self-signed"),
    over_tls("shows a certificate of an authority that nobody trusts", "unknown authority"),
    over_tls("shows a certificate that has expired", "expired"),
    over_tls("shows a certificate for another name", "wrong name"),
    over_tls("speaks plain HTTP where TLS is expected", None, hear, send(answer(400)), hang_up),
    over_tls("speaks neither TLS nor HTTP", None, send(b"220 smtp.example\r\n"), hang_up),
    over_tls("closes in the handshake", None, hear, hang_up),
    over_tls("resets in the handshake", None, hear, reset),
    over_tls(
        "is silent in the handshake",
        None,
        until_client_closes,
        expected=no_connection_in_time(),
        timeouts=QUICK,
        retry=TWO_ATTEMPTS,
    ),
    in_a_reply("closes without TLS's closing alert", hang_up, scheme="https", certificate="good"),
    in_a_reply("resets, over TLS", reset, scheme="https", certificate="good"),
    in_a_reply(
        "sends bytes that are not encrypted",
        send_past_tls(b"garbage"),
        hang_up,
        scheme="https",
        certificate="good",
    ),
]

# Without "connection: close" the next attempt may use a connection that the proxy is closing.
PROXY_ASKS: Final = answer(407, b"", 'proxy-authenticate: Basic realm="proxy"', "connection: close")
SOCKS5_HELLO: Final = send(b"\x05\x00")

PROXIES: Final = [
    *by_proxies("refuses connections", door=Door.CLOSED),
    *by_proxies("closes before it answers", hear, hang_up),
    *by_proxies("resets before it answers", hear, reset),
    *by_proxies("answers garbage", hear, send(b"\xff\xfe\xfdnonsense\r\n\r\n"), hang_up),
    *by_proxies(
        "asks for a password",
        receive,
        send(PROXY_ASKS),
        hang_up,
        socks5=[hear, send(b"\x05\xff"), hang_up],
    ),
    *by_proxies(
        "cannot reach the service",
        receive,
        send(answer(502)),
        hang_up,
        socks5=[hear, SOCKS5_HELLO, hear, send(b"\x05\x05\x00\x01\0\0\0\0\0\0"), hang_up],
    ),
    *by_proxies(
        "says that it is connected, and is not",
        receive,
        send(answer(200)),
        hang_up,
        socks5=[hear, SOCKS5_HELLO, hear, send(b"\x05\x00\x00\x01\0\0\0\0\0\0"), hang_up],
    ),
    *by_proxies(
        "is silent",
        until_client_closes,
        expected=no_connection_in_time(),
        timeouts=QUICK,
        retry=TWO_ATTEMPTS,
    ),
    at_once(
        "an HTTP proxy, without TLS, that asks for a password",
        [hang_up],
        lost(),
        proxy="http",
        first=[receive, send(PROXY_ASKS), hang_up],
    ),
]

ONE_LONG_FIELD: Final = f"x-long: {'a' * 70_000}"
SEVENTY_FIELDS: Final = tuple(f"x-{number}: {'a' * 1000}" for number in range(70))


def within_the_head(place: int) -> tuple[str, Expected]:
    """Return the case's name, and how a call ends whose head breaks off here."""
    return "", lost()


HEADS: Final = [
    at_once("closes instead of answering", [hang_up], lost()),
    at_once("closes instead of answering, and hears no more", [close], lost()),
    at_once("resets instead of answering", [reset], lost()),
    cut_anywhere("closes within the head, at every byte", HEAD, hang_up, within_the_head),
    cut_anywhere("resets within the head, at every byte", HEAD, reset, within_the_head),
    an_answer(
        "a head with 32 KiB in one field", chunked(TEXT, fields=(f"x: {'a' * 32768}",)), complete()
    ),
    an_answer(
        "a head of 60 KB in 60 fields", chunked(TEXT, fields=SEVENTY_FIELDS[:60]), complete()
    ),
    an_answer(
        "a head of 70 KB, in one field", head(200, ONE_LONG_FIELD), not_the_service(), hang_up
    ),
    an_answer(
        "a head of 70 KB, in 70 fields", head(200, *SEVENTY_FIELDS), not_the_service(), hang_up
    ),
    an_answer(
        "a head of 10 MB, in one field",
        head(200, f"x-long: {'a' * 10_000_000}"),
        not_the_service(),
        hang_up,
    ),
    an_answer(
        "a head of 10 MB, in 10,000 fields",
        head(200, *(f"x-{number}: {'a' * 1000}" for number in range(10_000))),
        not_the_service(),
        hang_up,
    ),
    an_answer(
        "another protocol's greeting", b"SSH-2.0-OpenSSH\r\n\r\n", not_the_service(), hang_up
    ),
    an_answer("a status that is no number", b"HTTP/1.1 2x0 OK\r\n\r\n", not_the_service(), hang_up),
    an_answer(
        "a version that is no number", b"HTTP/one 200 OK\r\n\r\n", not_the_service(), hang_up
    ),
    an_answer("a field without a colon", head(200, "no colon"), not_the_service(), hang_up),
    an_answer("a field name with a space", head(200, "bad name: x"), not_the_service(), hang_up),
    an_answer("a NUL in a field", head(200, "x: a\0b"), not_the_service(), hang_up),
    an_answer(
        "two lengths that differ",
        head(200, "content-length: 4", "content-length: 5") + b"12345",
        not_the_service(),
        hang_up,
    ),
    an_answer(
        "a length, and chunked",
        head(200, "content-length: 5", "transfer-encoding: chunked") + chunk("12345") + LAST_CHUNK,
        not_the_service(),
        hang_up,
    ),
    an_answer(
        "a length that is no number", head(200, "content-length: x"), not_the_service(), hang_up
    ),
    an_answer("a negative length", head(200, "content-length: -1"), not_the_service(), hang_up),
    an_answer("100 first", head(100) + OK, complete()),
    an_answer("103 first, twice", head(103, "link: </x>") * 2 + OK, complete()),
    an_answer("100 alone, and closes", head(100), lost(), hang_up),
    an_answer("101, which nobody asked for", head(101, "upgrade: x"), not_the_service(), hang_up),
]

PIECES: Final = ("Раз", ", два", " — ", "🙂")
WHOLE: Final = chunked(*PIECES)


def data_of(chunks: bytes) -> bytes:
    """The data of the chunks of a body that may break off anywhere."""
    data = b""
    while b"\r\n" in chunks:
        size, _, chunks = chunks.partition(b"\r\n")
        length = int(size, 16)
        data += chunks[:length]
        chunks = chunks[length + 2 :]
    return data


def within_a_chunked_reply(place: int) -> tuple[str, Expected]:
    """Return the case's name, and how a call ends whose chunked reply breaks off here."""
    if place < len(HEAD):
        return "within its head", lost()
    text = data_of(WHOLE[len(HEAD) : place]).decode("utf-8", "ignore")
    return "within its body", truncated(text)


GIVEN: Final = tuple(adapter.name for adapter in ADAPTERS if adapter.given)
"""The adapters over a client that the caller made: the pool is httpx's."""

NEXT_ANSWER: Final = (
    "httpx keeps the connection and takes the second answer for the next request's, and only its "
    "pool could tell"
)


BODIES: Final = [
    in_a_reply("closes", hang_up),
    in_a_reply("closes, and hears no more", close),
    in_a_reply("resets", reset),
    cut_anywhere("closes, at every byte of a reply", WHOLE, hang_up, within_a_chunked_reply),
    cut_anywhere("resets, at every byte of a reply", WHOLE, reset, within_a_chunked_reply),
    in_a_reply("a chunk size that is no number", send(b"zz\r\n"), hang_up),
    in_a_reply("a negative chunk size", send(b"-5\r\n12345\r\n"), hang_up),
    in_a_reply("a chunk size of 2^64", send(b"10000000000000000\r\n"), hang_up),
    in_a_reply("a chunk size of 2^64 - 1", send(b"ffffffffffffffff\r\n"), hang_up),
    in_a_reply("a chunk size of 100 digits", send(b"1" * 100 + b"\r\n"), hang_up),
    in_a_reply("a chunk size of no digit", send(b"\r\n"), hang_up),
    in_a_reply(
        "a chunk longer than its size",
        send(b"1\r\nabc\r\n"),
        hang_up,
        before=truncated("a"),
        after=truncated(TEXT + "a"),
    ),
    an_answer(
        "a chunk size that is no number, at once", BEGUN + b"zz\r\n", truncated(TEXT), hang_up
    ),
    in_a_reply(
        "chunk extensions",
        send(b'3;name="value";x\r\nabc\r\n' + LAST_CHUNK),
        before=complete("abc"),
        after=complete(TEXT + "abc"),
    ),
    in_a_reply(
        "trailers",
        send(b"0\r\nx-checksum: 1\r\nx-more: 2\r\n\r\n"),
        before=complete(""),
        after=complete(),
    ),
    an_answer("trailers, at once", BEGUN + b"0\r\nx-checksum: 1\r\n\r\n", complete()),
    in_a_reply(
        "garbage in one packet with the end",
        send(LAST_CHUNK + b"garbage\r\n\r\n"),
        before=complete(""),
        after=complete(),
    ),
    in_a_reply(
        "another answer in one packet with the end",
        send(LAST_CHUNK + chunked("not asked for")),
        before=complete(""),
        after=complete(),
        exceptions=dict.fromkeys(GIVEN, (None, NEXT_ANSWER)),
    ),
    an_answer("garbage in one packet with the whole reply", OK + b"garbage\r\n\r\n", complete()),
    Fault(
        "closes before the length is reached",
        [
            Case(BEFORE, [[send(head(200, PLAIN, "content-length: 90")), hang_up]], truncated()),
            Case(
                AFTER,
                [[send(head(200, PLAIN, "content-length: 90") + TEXT.encode()), hang_up]],
                truncated(TEXT),
            ),
        ],
    ),
    at_once(
        "sends more than the length",
        [
            send(head(200, PLAIN, f"content-length: {len(TEXT.encode())}")),
            MOMENT,
            send(TEXT.encode() + b", and more"),
        ],
        complete(),
    ),
    an_answer(
        "no length: closing is the end", head(200, PLAIN) + TEXT.encode(), complete(), hang_up
    ),
    at_once(
        "no length, and resets",
        [send(head(200, PLAIN) + TEXT.encode()), MOMENT, reset],
        truncated(TEXT),
    ),
    an_answer("an empty reply", chunked(), complete("")),
    an_answer(
        "half a character before the proper end",
        chunked(TEXT.encode() + "🙂".encode()[:2]),
        complete(TEXT + "\ufffd"),
    ),
    in_a_reply(
        "more than the limit of 10,000 bytes",
        send(chunk("a" * 6000), chunk("b" * 6000)),
        until_client_closes,
        before=Expected(ReplyTooLong, "a" * 6000 + "b" * 4000),
        after=Expected(ReplyTooLong, TEXT + "a" * 6000 + "b" * (4000 - len(TEXT.encode()))),
        limits=Limits(max_reply_bytes=10_000),
    ),
]

COMPRESSED: Final = gzip.compress((TEXT * 3).encode(), mtime=0)
GZIP_HEAD: Final = head(200, PLAIN, GZIP, f"content-length: {len(COMPRESSED)}")
BOMB: Final = gzip.compress(b"a" * 50_000_000, 9, mtime=0)


def inflated(data: bytes) -> str:
    """Return the text that can be decompressed from data that may be cut or corrupt."""
    inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
    plain = b""
    try:
        for byte in data:
            plain += inflate.decompress(bytes((byte,)))
    except zlib.error:
        pass
    return plain.decode("utf-8", "ignore")


def within_a_compressed_reply(place: int) -> tuple[str, Expected]:
    """Return how a call ends whose compressed reply breaks off here; the case has no name."""
    return "", truncated(inflated(COMPRESSED[: place - len(GZIP_HEAD)]))


def spoilt(place: int) -> bytes:
    """Compressed data with one byte changed."""
    return COMPRESSED[:place] + bytes([COMPRESSED[place] ^ 0xFF]) + COMPRESSED[place + 1 :]


COMPRESSION: Final = [
    an_answer("gzip", chunked(COMPRESSED, fields=(GZIP,)), complete(TEXT * 3)),
    cut_anywhere(
        "closes, at every byte of a compressed body",
        GZIP_HEAD + COMPRESSED,
        hang_up,
        within_a_compressed_reply,
        range(len(GZIP_HEAD), len(GZIP_HEAD + COMPRESSED)),
    ),
    Fault(
        "ends properly, at every byte of compressed data",
        [
            Case(
                "",
                [[send(chunked(COMPRESSED[:place], fields=(GZIP,)))]],
                truncated(inflated(COMPRESSED[:place])),
                kept=True,
            )
            for place in range(1, len(COMPRESSED))
        ],
    ),
    Fault(
        "gzip that is corrupt",
        [
            Case(
                when,
                [[send(chunked(spoilt(place), fields=(GZIP,)))]],
                truncated(inflated(spoilt(place))),
                kept=True,
            )
            for when, place in [(BEFORE, 0), (AFTER, len(COMPRESSED) - 6)]
        ],
    ),
    an_answer(
        "gzip of 50 MB in 50 KB, the limit being 100,000 bytes",
        chunked(BOMB, fields=(GZIP,))[: -len(LAST_CHUNK)],
        Expected(ReplyTooLong, "a" * 100_000),
        until_client_closes,
        limits=Limits(max_reply_bytes=100_000),
    ),
    an_answer(
        "503, and gzip of 50 MB in 50 KB",
        chunked(BOMB, status=503, fields=(GZIP,)),
        Expected(
            ServiceFailed, attempts=ATTEMPTS, attributes={"status": 503, "message": "a" * 500}
        ),
    ),
    an_answer(
        "a coding that nobody asked for",
        answer(200, b"??", "content-encoding: br"),
        not_the_service(status=200),
    ),
]

MARKED: Final = chunked(TEXT, FAILURE_MARKER)


def within_the_marker(place: int) -> tuple[str, Expected]:
    """Return the case's name, and how a call ends that breaks off within or after the marker."""
    text = data_of(MARKED[len(HEAD) : place]).decode()
    if text.endswith(FAILURE_MARKER):
        return "after it", Expected(InterruptedReply, TEXT)
    return "within it", truncated(text)


MARKER: Final = [
    in_a_reply(
        "the marker, and the end",
        send(chunk(FAILURE_MARKER) + LAST_CHUNK),
        before=Expected(InterruptedReply, attempts=ATTEMPTS),
        after=Expected(InterruptedReply, TEXT),
    ),
    in_a_reply(
        "the marker in two chunks, and the end",
        send(chunk(FAILURE_MARKER[:9]), chunk(FAILURE_MARKER[9:]) + LAST_CHUNK, every=0.02),
        before=Expected(InterruptedReply, attempts=ATTEMPTS),
        after=Expected(InterruptedReply, TEXT),
    ),
    in_a_reply(
        "half the marker, and the end",
        send(chunk(FAILURE_MARKER[:9]) + LAST_CHUNK),
        before=complete(FAILURE_MARKER[:9]),
        after=complete(TEXT + FAILURE_MARKER[:9]),
    ),
    in_a_reply(
        "the marker, and more text",
        send(chunk(FAILURE_MARKER), chunk("!") + LAST_CHUNK, every=0.02),
        before=complete(FAILURE_MARKER + "!"),
        after=complete(TEXT + FAILURE_MARKER + "!"),
    ),
    cut_anywhere(
        "closes, at every byte of the marker",
        MARKED,
        hang_up,
        within_the_marker,
        range(len(BEGUN), len(MARKED)),
    ),
]

LIMIT: Final = 0.4
"""Seconds of each limit of `QUICK`."""

FIRST_BYTE: Final = silent("first_byte", LIMIT)
TOTAL: Final = replace(PATIENT, total=LIMIT)

TIME: Final = [
    at_once("never answers", [until_client_closes], FIRST_BYTE, timeouts=QUICK),
    at_once(
        "answers 103, and nothing more",
        [send(head(103)), until_client_closes],
        FIRST_BYTE,
        timeouts=QUICK,
    ),
    at_once(
        "sends half a head, and nothing more",
        [send(HEAD[:40]), until_client_closes],
        FIRST_BYTE,
        timeouts=QUICK,
    ),
    at_once(
        "sends a head a byte at a time, slower than allowed",
        [send(*(bytes([byte]) for byte in HEAD), every=0.03), until_client_closes],
        FIRST_BYTE,
        timeouts=QUICK,
    ),
    at_once(
        "accepts, and never reads a request of 4 MB",
        [],
        FIRST_BYTE,
        first=[until_the_call_is_over, until_client_closes],
        prompt="long " * 800_000,
        timeouts=QUICK,
    ),
    in_a_reply(
        "sends nothing more",
        until_client_closes,
        before=FIRST_BYTE,
        after=silent("idle", LIMIT, TEXT),
        timeouts=QUICK,
    ),
    in_a_reply(
        "sends nothing more, and had longer to begin",
        until_client_closes,
        before=silent("first_byte", 0.8),
        after=silent("idle", LIMIT, TEXT),
        timeouts=Timeouts(first_byte=0.8, idle=LIMIT),
    ),
    in_a_reply(
        "sends a chunk size a digit at a time",
        repeat(pause(0.05), send(b"0")),
        before=FIRST_BYTE,
        after=silent("idle", LIMIT, TEXT),
        timeouts=QUICK,
    ),
    in_a_reply(
        "sends nothing more, and the whole call has a limit",
        until_client_closes,
        before=silent("total", LIMIT),
        after=silent("total", LIMIT, TEXT),
        timeouts=TOTAL,
    ),
    Fault(
        "answers 503 twice and then not at all, and the whole call has a limit",
        [
            Case(
                "",
                [[send(answer(503))], [send(answer(503))], [until_client_closes]],
                silent("total", LIMIT, attempts=3),
                kept=True,
            )
        ],
        timeouts=TOTAL,
    ),
    at_once(
        "answers 503, and its body does not come",
        [send(head(503, "content-length: 90")), until_client_closes],
        Expected(ServiceFailed, attempts=ATTEMPTS, attributes={"status": 503}, seconds=3 * LIMIT),
        timeouts=QUICK,
    ),
]


def on_a_kept_connection(
    what: str,
    warm_up: Script,
    *scripts: Script,
    attempts: int = 1,
    exceptions: Mapping[str, tuple[Expected | None, str]] | None = None,
) -> Fault:
    """A row in which a call comes after another, and is well with a single attempt allowed.

    A kept connection that is lost does not count, so more than one may be made.
    """
    case = Case(
        "",
        [*scripts, [send(OK)]],
        complete(attempts=attempts),
        exceptions or {},
        warm_up=[send(chunked(WELL)), *warm_up],
    )
    return Fault(what, [case], retry=ONE_ATTEMPT)


KEPT: Final = [
    on_a_kept_connection("stays", []),
    on_a_kept_connection("is closed between two calls", [hang_up]),
    on_a_kept_connection("is reset between two calls", [reset]),
    on_a_kept_connection("is closed in the instant of the next call", [], [hang_up], attempts=2),
    on_a_kept_connection("is closed then, and hears no more", [], [close], attempts=2),
    on_a_kept_connection("is reset in the instant of the next call", [], [reset], attempts=2),
    on_a_kept_connection(
        "is closed within the next head", [], [send(HEAD[:40]), hang_up], attempts=2
    ),
    on_a_kept_connection("brings garbage between two calls", [MOMENT, send(b"garbage\r\n\r\n")]),
    on_a_kept_connection(
        "brings 408 between two calls, and closes", [MOMENT, send(answer(408)), hang_up]
    ),
    on_a_kept_connection(
        "brings the first byte of an answer between two calls", [MOMENT, send(b"H")]
    ),
    on_a_kept_connection(
        "brings an answer that nobody asked for",
        [MOMENT, send(chunked("?"))],
    ),
]

RATE_LIMIT_INSIDE: Final = "[429 Too Many Requests] Quota exceeded"
LAST_NOT_THE_USERS: Final = "Invalid message history: The last message must be from user role."

ANSWERS: Final = [
    a_status(400, said(LAST_NOT_THE_USERS), BadRequest, PLAIN, message=LAST_NOT_THE_USERS),
    a_status(400, "", BadRequest, message=""),
    a_status(401, said("Invalid password."), PasswordRejected, PLAIN, message="Invalid password."),
    a_status(401, said("Invalid signature."), SignatureRejected, PLAIN, clock_skew=None),
    at_once(
        "401: Invalid signature. The Date agrees",
        [reject_signature(0)],
        Expected(SignatureRejected, attributes={"clock_skew": pytest.approx(0, abs=5)}),
    ),
    at_once(
        "401: Invalid signature. The Date is an hour ahead",
        [reject_signature(3600)],
        Expected(
            SignatureRejected, attempts=2, attributes={"clock_skew": pytest.approx(3600, abs=5)}
        ),
    ),
    Fault(
        "401: Invalid signature. The Date is an hour ahead, and the second attempt is right",
        [Case("", [[reject_signature(3600)], [send(OK)]], complete(attempts=2))],
    ),
    a_status(403, "no", AuthenticationError, message="no"),
    a_status(404, said("?"), NotTheService),
    a_status(405, "", NotTheService),
    a_status(408, "", ServiceFailed, attempts=ATTEMPTS),
    a_status(413, "too long", BadRequest, message="too long"),
    a_status(429, "", RateLimited, attempts=ATTEMPTS, retry_after=None),
    a_status(500, said(RATE_LIMIT_INSIDE, "Error"), RateLimited, attempts=ATTEMPTS, code="Error"),
    a_status(500, said("API key not valid.", "Error"), ServiceFailed, code="Error"),
    a_status(
        500,
        said("Что-то не так", "Error"),
        ServiceFailed,
        attempts=ATTEMPTS,
        message="Что-то не так",
    ),
    a_status(500, "", ServiceFailed, attempts=ATTEMPTS, message=""),
    a_status(500, b"\xff\xfe", ServiceFailed, attempts=ATTEMPTS, note="not UTF-8"),
    a_status(500, "x" * 10_000_000, ServiceFailed, attempts=ATTEMPTS, note="10 MB"),
    at_once(
        "500: a body without an end",
        [send(head(500)), repeat(send(b"x" * 65536))],
        Expected(ServiceFailed, attempts=ATTEMPTS, attributes={"status": 500}),
    ),
    at_once(
        "500: a body that breaks off",
        [send(answer(500, said("Что-то"))[:-5]), hang_up],
        Expected(ServiceFailed, attempts=ATTEMPTS, attributes={"status": 500}),
    ),
    a_status(501, "", ServiceFailed),
    a_status(502, "<html>Bad gateway</html>", ServiceFailed, HTML, attempts=ATTEMPTS, message=""),
    a_status(503, "busy", ServiceFailed, attempts=ATTEMPTS, message="busy"),
    a_status(504, "", ServiceFailed, attempts=ATTEMPTS),
    *(a_status(status, "", ServiceFailed, attempts=ATTEMPTS) for status in range(520, 530)),
    *(
        a_status(
            status,
            "",
            NotTheService,
            "location: http://127.0.0.1:9/elsewhere",
            note="to elsewhere, where nobody goes",
            location="http://127.0.0.1:9/elsewhere",
        )
        for status in (301, 302, 303, 307, 308)
    ),
    a_status(302, "", NotTheService, note="to nowhere", location=None),
    a_status(200, "<html>Welcome</html>", NotTheService, HTML),
    a_status(204, "", NotTheService),
    a_status(418, "short and stout", BadRequest),
]


def asks_to_wait(*fields: str, status: int = 429) -> Script:
    """Answer that a pause is needed."""
    return [send(answer(status, b"", *fields))]


DATE: Final = "date: Tue, 15 Nov 1994 08:12:31 GMT"

RETRIES: Final = [
    Fault("503 once", [Case("", [[send(answer(503))], [send(OK)]], complete(attempts=2))]),
    Fault(
        "closes instead of answering, then 429, then answers",
        [Case("", [[hang_up], [send(answer(429))], [send(OK)]], complete(attempts=3))],
    ),
    Fault(
        "503 over and over, to a client that tries five times",
        [Case("", [[send(answer(503))]], Expected(ServiceFailed, attempts=5))],
        retry=RetryPolicy(max_attempts=5, base_delay=0.002),
    ),
    Fault(
        "429 once, with Retry-After: 1",
        [
            Case(
                "",
                [asks_to_wait("retry-after: 1"), [send(OK)]],
                replace(complete(attempts=2), seconds=1.0),
            )
        ],
    ),
    Fault(
        "503 once, with Retry-After, a second after its Date",
        [
            Case(
                "",
                [
                    asks_to_wait(DATE, "retry-after: Tue, 15 Nov 1994 08:12:32 GMT", status=503),
                    [send(OK)],
                ],
                replace(complete(attempts=2), seconds=1.0),
            )
        ],
    ),
    at_once(
        "429 with Retry-After: 121, longer than anybody waits",
        asks_to_wait("retry-after: 121"),
        Expected(RateLimited, attributes={"retry_after": 121.0}),
    ),
    at_once(
        "429 with Retry-After, an hour after its Date",
        asks_to_wait(DATE, "retry-after: Tue, 15 Nov 1994 09:12:31 GMT"),
        Expected(RateLimited, attributes={"retry_after": 3600.0}),
    ),
    at_once(
        "429 with Retry-After: 5, longer than is left of the whole call",
        asks_to_wait("retry-after: 5"),
        Expected(RateLimited, attributes={"retry_after": 5.0}),
        timeouts=replace(PATIENT, total=2.0),
    ),
    at_once(
        "429 with a Retry-After that is neither",
        asks_to_wait("retry-after: soon"),
        Expected(RateLimited, attempts=ATTEMPTS, attributes={"retry_after": None}),
    ),
]

TABLE: Final[Mapping[str, Sequence[Fault]]] = {
    "No connection": NO_CONNECTION,
    "TLS": TLS,
    "Proxies": PROXIES,
    "The head": HEADS,
    "The body": BODIES,
    "Compression": COMPRESSION,
    "The failure marker": MARKER,
    "Time": TIME,
    "A kept connection": KEPT,
    "Answers that are no reply": ANSWERS,
    "Retries": RETRIES,
}
"""All rows, by group."""
