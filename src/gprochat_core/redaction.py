"""Keeps secrets out of errors and logs.

The service knows the password that it was sent, and a library quotes in its exceptions what it
sent and received. So each text of a peer or of a library is redacted before it becomes part of an
error or of a log line. This is done before the text is cut, put on one line or quoted, because
afterwards a secret may be only half there, or written differently.

A peer chooses those texts. Redacting one takes time linear in its length.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Final

from .errors import GPROChatError

__all__ = ["REDACTED", "Redactor"]

REDACTED: Final = "***"
"""What stands in the place of a secret."""

CREDENTIALS: Final = (
    # A proxy's password that only the caller's own session or client knows: in a header, in a URL.
    r"authorization.{1,8}basic [\w+/=]+",
    r"(?<=://)[^/\s@:]*+:[^/\s@]*+(?=@)",
)

SHORT_ESCAPES: Final = {"\b": "b", "\t": "t", "\n": "n", "\f": "f", "\r": "r"}


class Redactor:
    """Replaces secrets in texts, however JSON, Python, a URL or a wrong decoding writes them.

    Args:
        secrets: the secrets as they are; empty ones are ignored.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        # A longer secret comes first: a part of it may be another secret.
        self._secrets = sorted({*secrets} - {""}, key=len, reverse=True)

    def __repr__(self) -> str:
        return f"Redactor(<{len(self._secrets)} secrets>)"

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # Compiled when it is first used: a call that succeeds needs no redaction.
        patterns = [*map(pattern_of, self._secrets), *CREDENTIALS]
        return re.compile("|".join(patterns), re.IGNORECASE)

    def redact(self, text: str) -> str:
        """Return a text without the secrets."""
        return self._pattern.sub(REDACTED, text)

    def redact_error(self, error: GPROChatError) -> None:
        """Remove from an error's chain each exception of a library that shows a secret."""
        chain: list[BaseException] = [error]
        # Cause and context are often the same exception, so each is searched once.
        shows_secret: dict[int, bool] = {}
        for each in chain:
            for name in ("__cause__", "__context__"):
                linked: BaseException | None = getattr(each, name)
                if linked is None:
                    continue
                if id(linked) not in shows_secret:
                    shows_secret[id(linked)] = bool(self._pattern.search(shown_by(linked)))
                    chain.append(linked)
                if shows_secret[id(linked)]:
                    setattr(each, name, None)


def shown_by(error: BaseException) -> str:
    """Return all that a program, a log or a debugger prints of an exception."""
    # An exception's notes are an attribute, too.
    return "\n".join([str(error), repr(error), repr(error.args), repr(vars(error))])


# The pattern of a secret is a sequence of its characters, each in all the ways to write it. Both
# repetitions in it are possessive, so they cannot backtrack: at each position of a text, a match is
# tried once.


def pattern_of(secret: str) -> str:
    """Return a regular expression that finds a secret."""
    return "".join(pieces_of(secret))


def pieces_of(secret: str) -> Iterator[str]:
    backslashes = 0
    first = True
    for character in secret:
        if character == "\\":
            backslashes += 1
            continue
        if backslashes:
            yield run_of_backslashes(backslashes, first=first)
        elif not first and not is_plain(character):
            yield r"\\*+"
        yield character if is_plain(character) else f"(?:{'|'.join(ways_to_write(character))})"
        backslashes = 0
        first = False
    if backslashes:
        yield run_of_backslashes(backslashes, first=first)


def run_of_backslashes(count: int, *, first: bool) -> str:
    # Quoting a text doubles its backslashes, and adds one in front of a character that is escaped.
    # A match begins only where a run begins, or else each backslash of a long run would be tried.
    begin = r"(?<!\\)" if first else ""
    return rf"(?:{begin}\\{{{count},}}+|(?:%5c){{{count}}})"


def is_plain(character: str) -> bool:
    """Tell whether a character is written as itself everywhere."""
    return character.isascii() and character.isalnum()


def ways_to_write(character: str) -> Iterator[str]:
    """Generate regular expressions for a character, without the backslashes in front of it.

    If one way is the beginning of another, the longer one comes first.
    """
    code = ord(character)
    if character == "%":
        yield "%25"
    if code > 127:
        # In UTF-8: percent-encoded, as Python shows bytes, or decoded as Latin-1 or ASCII.
        yield r"\\*+".join(map(byte_pattern, character.encode("utf-8", "surrogatepass")))
    yield re.escape(character)
    # JSON, and Python's repr() and ascii().
    yield r"(?<=\\)" + r"\\++".join(f"u{unit:04x}" for unit in utf16_units(code))
    yield rf"(?<=\\)U{code:08x}"
    if code < 256:
        yield rf"(?<=\\)x{code:02x}"
        yield f"%{code:02x}"
    if character in SHORT_ESCAPES:
        yield rf"(?<=\\){SHORT_ESCAPES[character]}"
    if character == " ":
        yield r"\+"


def utf16_units(code: int) -> tuple[int, ...]:
    """Return the one or two units that UTF-16 writes a code point with (RFC 2781, 2.1)."""
    # Python's codec would be imported here, which fails if no more files can be opened.
    if code < 0x10000:
        return (code,)
    return (0xD800 + (code - 0x10000 >> 10), 0xDC00 + (code & 0x3FF))


def byte_pattern(byte: int) -> str:
    latin1, surrogate = re.escape(chr(byte)), chr(0xDC00 + byte)
    return (
        rf"(?:{latin1}|{surrogate}|%{byte:02x}|(?<=\\)x{byte:02x}|(?<=\\)u00{byte:02x}"
        rf"|(?<=\\)udc{byte:02x})"
    )
