"""Secrets stay out of errors, logs and tracebacks, and finding them takes linear time."""

import json
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, cast
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from gprochat_core import (
    Cause,
    ConnectError,
    Exchange,
    GPROChatError,
    InterruptedReply,
    Limits,
    Message,
    Phase,
    Redactor,
    Refusal,
    ReplyParser,
    ResponseError,
    RetryPolicy,
    Service,
    Signer,
    State,
    TransportError,
)
from gprochat_core.acceptance import read_object
from gprochat_core.content_coding import Inflater
from gprochat_core.diagnosis import (
    MAX_ERROR_BODY,
    diagnose,
    one_line,
    read_headers,
)
from gprochat_core.redaction import REDACTED
from gprochat_core.reply import FAILURE_MARKER
from gprochat_core.request import Draft

from .leaks import chain, told_by
from .strategies import texts
from .timing import cpu_time

KEY: Final = "made-up-key"
PASSWORD: Final = 'päss"\\w0rd'
PROMPT: Final = "my-diary"
SERVICE: Final = Service("https://chat.example", secret_key=KEY, password=PASSWORD)


# How a secret may be written


def mojibake(text: str) -> str:
    return text.encode().decode("latin-1")


def surrogates(text: str) -> str:
    return text.encode().decode("ascii", "surrogateescape")


WAYS: Final[dict[str, Callable[[str], str]]] = {
    "plain": str,
    "decoded as Latin-1": mojibake,
    "decoded as ASCII with surrogates": surrogates,
    "in a path": quote,
    "in a query": lambda secret: quote(secret, safe=""),
    "in a form": quote_plus,
    "in JSON": lambda secret: json.dumps(secret)[1:-1],
    "in JSON in UTF-8": lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
    "in JSON with escaped slashes": lambda secret: json.dumps(secret)[1:-1].replace("/", r"\/"),
    "in JSON in JSON": lambda secret: json.dumps(json.dumps(secret))[3:-3],
    "in repr() of a str": lambda secret: repr(secret)[1:-1],
    "in repr() of bytes": lambda secret: repr(secret.encode())[2:-1],
    "in ascii()": lambda secret: ascii(secret)[1:-1],
    "in repr() of Latin-1": lambda secret: repr(mojibake(secret))[1:-1],
    "in repr() of surrogates": lambda secret: repr(surrogates(secret))[1:-1],
    "in repr() of JSON": lambda secret: repr(json.dumps(secret))[2:-2],
}


@settings(max_examples=100)
@given(secret=texts.filter(bool))
@example(secret="\\x")
@example(secret="\xc3")
@example(secret="\\" * 200)
@example(secret='quote " slash / back \\ space + percent %25%')
def test_a_secret_is_found_however_it_is_written(secret: str) -> None:
    assume("(" not in secret and ")" not in secret)
    # Making a redactor takes much longer than using it.
    redactor = Redactor([secret])
    for way, write in WAYS.items():
        redacted = redactor.redact(f"(({write(secret)}))")
        # A backslash that stood in front of the secret may stay there.
        assert redacted.replace("\\", "") == f"(({REDACTED}))", way


@pytest.mark.parametrize("written", ["OPEN%2Fsesame", r"open\u002Fsesame", "open%2fSESAME"])
def test_a_secret_is_found_in_upper_and_lower_case(written: str) -> None:
    assert Redactor(["open/sesame"]).redact(f"no {written}!") == f"no {REDACTED}!".replace(
        REDACTED, "\\***" if written.startswith("\\") else REDACTED
    )


@given(texts, st.text("abc", min_size=1, max_size=2))
def test_a_text_without_a_secret_stays_as_it_is(text: str, secret: str) -> None:
    without = text.replace("a", "").replace("b", "").replace("c", "")
    assert Redactor([f"{secret}c"]).redact(without) == without
    assert Redactor([]).redact(text) == text
    assert Redactor([""]).redact(text) == text


def test_redacting_opens_no_file() -> None:
    """An import would fail where the process has as many files open as it may."""
    code = (
        "import sys; from gprochat_core.redaction import Redactor; before = set(sys.modules);"
        "assert Redactor(['k\N{KEY}\u0439']).redact('k\N{KEY}\u0439') == '***';"
        "print(*(sys.modules.keys() - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("\n", "")


def test_of_two_secrets_the_longer_is_found_first() -> None:
    assert Redactor(["open", "open sesame"]).redact("open sesame, open") == "***, ***"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("http://user:word@proxy.example:3128", "http://***@proxy.example:3128"),
        ("http://:word@proxy", "http://***@proxy"),
        ("http://user@proxy", "http://user@proxy"),
        ("http://host:80/a@b:c@d", "http://host:80/a@b:c@d"),
        ("Proxy-Authorization: Basic dXNlcjp3b3Jk!", "Proxy-***!"),
        ("[(b'Authorization', b'Basic dXNlcjp3b3Jk')]", "[(b'***')]"),
    ],
)
def test_the_credentials_of_a_proxy_are_known_by_their_form(text: str, redacted: str) -> None:
    assert Redactor([]).redact(text) == redacted


# Errors


def test_an_exception_that_shows_a_secret_is_removed_from_an_errors_chain() -> None:
    error = ConnectError("no connection")
    fine, telling = OSError("reset"), OSError(f"cannot send {json.dumps(PASSWORD)}")
    error.__cause__ = fine
    fine.__context__ = telling
    Redactor([PASSWORD]).redact_error(error)
    assert list(chain(error)) == [error, fine]


@pytest.mark.parametrize("place", ["str", "repr", "argument", "attribute", "note"])
def test_a_secret_is_found_wherever_an_exception_shows_it(place: str) -> None:
    class LibraryError(Exception):
        def __str__(self) -> str:
            return PASSWORD if place == "str" else "nothing to see"

        def __repr__(self) -> str:
            return PASSWORD if place == "repr" else "nothing to see"

    theirs = LibraryError(PASSWORD if place == "argument" else "")
    if place == "attribute":
        theirs.request = {"pass": PASSWORD}  # type: ignore[attr-defined]
    elif place == "note":
        theirs.add_note(PASSWORD)
    error = ConnectError("no connection")
    error.__cause__ = theirs
    Redactor([PASSWORD]).redact_error(error)
    assert error.__cause__ is None


def test_each_exception_of_a_chain_is_searched_once() -> None:
    class LibraryError(Exception):
        searched = 0

        def __str__(self) -> str:
            LibraryError.searched += 1
            return "nothing to see"

    error: Exception = LibraryError()
    for _ in range(40):
        following = LibraryError()
        following.__cause__ = following.__context__ = error
        error = following
    last = ConnectError("no connection")
    last.__cause__ = last.__context__ = error
    Redactor([PASSWORD]).redact_error(last)
    assert LibraryError.searched == 41
    assert last.__cause__ is error


@pytest.mark.parametrize("secret", [KEY, PASSWORD])
@pytest.mark.parametrize("way", WAYS)
def test_the_words_of_a_library_are_redacted(way: str, secret: str) -> None:
    exchange = Exchange(SERVICE, "Hello", retry=RetryPolicy(max_attempts=1))
    exchange.attempt(0)
    detail = f"bad line {WAYS[way](secret)}\r\n!"
    error = exchange.fail(TransportError(Cause.MALFORMED, Phase.AWAITING_HEAD, detail=detail), 0.0)
    assert "bad line " in str(error)
    assert str(error).isprintable()
    assert Redactor([secret]).redact(str(error)) == str(error)
    assert "w0rd" not in str(error)


def test_no_object_of_the_core_shows_a_secret() -> None:
    draft = Draft(SERVICE, [Message("user", PROMPT)])
    exchange = Exchange(SERVICE, PROMPT)
    for shown in (
        SERVICE,
        SERVICE.signer,
        Signer(KEY),
        draft,
        draft.sign(0),
        exchange,
        exchange.attempt(0),
        Redactor([KEY, PASSWORD]),
        ReplyParser(200, [], redactor=Redactor([KEY, PASSWORD])),
    ):
        for text in (repr(shown), str(shown), f"{shown}", repr([shown])):
            assert not secrets_in(text), text


# Tracebacks that show local variables


def secrets_in(text: str) -> list[str]:
    """The secrets that a text shows; each has a part that is written in one way only."""
    return [part for part in (KEY, "w0rd", PROMPT) if part in text]


def locals_of_the_library(error: BaseException) -> Iterator[str]:
    """Return the local variables of gprochat_core's frames, as a traceback would print them."""
    for each in chain(error):
        shown = traceback.TracebackException.from_exception(each, capture_locals=True)
        for frame in shown.stack:
            if "gprochat_core" in frame.filename:
                yield f"{frame.name}: {frame.locals}"


def error_of(make: Callable[[], object]) -> Exception:
    with pytest.raises((GPROChatError, TypeError)) as caught:
        make()
    return caught.value


def echoed(status: int, body: str = "", headers: tuple[tuple[bytes, bytes], ...] = ()) -> Exception:
    exchange = Exchange(SERVICE, PROMPT, retry=RetryPolicy(max_attempts=1))
    exchange.attempt(0)

    def answer() -> None:
        try:
            exchange.receive_head(status, headers, sent=0.0, now_ms=0)
            exchange.receive(body.encode())
            exchange.receive(b"")
        except GPROChatError as error:
            assert exchange.state is State.FAILED
            exchange.retry(error, 0.0, 0.0)

    return error_of(answer)


ERRORS: Final[dict[str, Callable[[], Exception]]] = {
    "a time that cannot be signed": lambda: error_of(
        lambda: Draft(SERVICE, [Message("user", "Hello")]).sign(cast("int", None))
    ),
    "an error's body": lambda: echoed(500, json.dumps({"error": {"message": PASSWORD}})),
    "a long body of an error": lambda: echoed(500, PASSWORD + "x" * MAX_ERROR_BODY),
    "a redirect": lambda: echoed(302, headers=((b"location", PASSWORD.encode()),)),
    "a coding": lambda: echoed(200, headers=((b"content-encoding", PASSWORD.encode()),)),
    "two lengths": lambda: echoed(
        200, headers=((b"content-length", b"1"), (b"content-length", PASSWORD.encode()))
    ),
    "a proxy": lambda: echoed(407, headers=((b"reason", PASSWORD.encode()),)),
}


@pytest.mark.parametrize("what", ERRORS)
def test_a_traceback_with_local_variables_shows_no_secret(what: str) -> None:
    error = ERRORS[what]()
    frames = list(locals_of_the_library(error))
    assert frames
    for frame in frames:
        assert not secrets_in(frame), frame
    assert not secrets_in(told_by(error))


# Time


SHORT: Final = 16 * 1024
LONG: Final = 64 * 1024

HOSTILE: Final[dict[str, str]] = {
    "colons in a URL": "HTTP/x ://" + ":" * LONG,
    "URLs": "://" * LONG,
    "at signs": "://" + ":@" * LONG,
    "backslashes": "\\" * LONG,
    "quotes and backslashes": '"\\\\\\' * LONG,
    "percent-encoded backslashes": "%5c" * LONG,
    "authorizations": "authorization: basic " * LONG,
    "a letter of the secret": "a" * LONG,
    "escapes": r"\u00e4" * LONG,
    "spaces": " " * LONG,
    "nested JSON": "[" * LONG,
    "digits": "9" * LONG,
    "JSON": '{"error":{"message":"' + "\\\\" * LONG,
    "commas": "Sun, " * LONG,
    "waits": "retry in 9" * LONG,
    "delays": r'retryDelay\\\\"        :' * LONG,
    "markers": FAILURE_MARKER[:-1] * LONG,
}

SECRETS: Final = ("\\x" + "\\" * 200, '"' * 30 + "x", "a" * 30 + "b", "ä" * 10 + "x", KEY)


REDACTOR: Final = Redactor(SECRETS)

HEADERS: Final = (
    (200, b"content-encoding"),
    (200, b"content-length"),
    (200, b"content-type"),
    (200, b"transfer-encoding"),
    (302, b"location"),
    (401, b"date"),
    (429, b"retry-after"),
)
"""The headers whose values matter, each with a status with which it is read."""


def headers_of(text: str) -> list[tuple[bytes, bytes]]:
    data = text.encode()
    return [(b"via", data[start : start + 4]) for start in range(0, len(data), 4)]


def parse(status: int, text: str) -> None:
    parser = ReplyParser(status, [], redactor=REDACTOR)
    data = text.encode()
    with suppress(ResponseError, InterruptedReply):
        for start in range(0, len(data), 7):
            parser.feed(data[start : start + 7])
        parser.finish()


def receive_heads(text: str) -> None:
    for status, name in HEADERS:
        exchange = Exchange(
            SERVICE, "Hello", limits=Limits(max_head_bytes=LONG * 10), redactor=REDACTOR
        )
        exchange.attempt(0)
        with suppress(GPROChatError):
            exchange.receive_head(status, [(name, text.encode())], sent=0.0, now_ms=0)
            exchange.receive(b"")


def read_failure(text: str) -> None:
    exchange = Exchange(SERVICE, "Hello", redactor=REDACTOR)
    exchange.attempt(0)
    failure = TransportError(Cause.MALFORMED, Phase.AWAITING_HEAD, detail=text)
    error = exchange.fail(failure, 0.0)
    error.__cause__ = error.__context__ = ValueError(text)
    REDACTOR.redact_error(error)


def inflate(text: str) -> None:
    # An empty gzip member of 20 bytes, again and again, the way a hostile peer would.
    member = bytes.fromhex("1f8b08000000000002ff03000000000000000000")
    assert Inflater("gzip").decode(member * (len(text) // 20), LONG) == b""


def read_request(text: str) -> None:
    with suppress(Refusal):
        read_object(text.encode())


READERS: Final[dict[str, Callable[[str], object]]] = {
    "redact": REDACTOR.redact,
    "read a request": read_request,
    "one_line": one_line,
    "receive heads": receive_heads,
    "diagnose a body": lambda text: diagnose(500, {}, text.encode(), redactor=REDACTOR),
    "diagnose a rejection": lambda text: diagnose(401, {}, text.encode(), redactor=REDACTOR),
    "parse a reply": lambda text: parse(200, text),
}
"""What reads a text whose characters matter."""

READERS_OF_SIZE: Final[dict[str, Callable[[str], object]]] = {
    "read_headers": lambda text: read_headers(200, headers_of(text), LONG * 10),
    "parse an error": lambda text: parse(500, text),
    "read a library's exception": read_failure,
    "inflate": inflate,
}
"""What reads a text of which only the length matters."""


def is_linear(read: Callable[[str], object], text: str) -> bool:
    # Four times the text takes four times as long, quadratic time sixteen times. A text that is
    # read within milliseconds is not compared: quadratic time would be above. Other processes may
    # slow a run down, so the least of two or three counts.
    long = cpu_time(read, text)
    if long < 0.02:
        return True
    short = min(cpu_time(read, text[:SHORT]) for _ in range(3))
    return min(long, cpu_time(read, text)) < 10 * short


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("what", HOSTILE)
def test_reading_a_hostile_text_takes_linear_time(reader: str, what: str) -> None:
    assert is_linear(READERS[reader], HOSTILE[what][:LONG])


@pytest.mark.parametrize("reader", READERS_OF_SIZE)
def test_reading_many_pieces_takes_linear_time(reader: str) -> None:
    assert is_linear(READERS_OF_SIZE[reader], "a" * LONG)
