"""The signature: SHA-256 over the time, the last message's text and a secret key.

Where the rule comes from: docs/protocol.md, "Signature". Nothing else of the protocol is needed to
sign, so this file serves other clients too.
"""

import hashlib
from contextlib import suppress

from .errors import ConfigurationError, InvalidMessages

__all__ = ["Signer", "generate_signature", "is_same", "secret_utf8", "utf8"]


def utf8(text: str) -> bytes:
    """Encode text as UTF-8.

    Raises:
        InvalidMessages: the text holds a lone surrogate, which has no UTF-8.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        position = error.start
    raise InvalidMessages(
        f"the text holds a lone surrogate (U+{ord(text[position]):04X}) at position {position}, "
        "which UTF-8 cannot express; remove it or replace it with U+FFFD",
        position=position,
    )


def secret_utf8(secret: str, what: str) -> bytes:
    """Encode a secret as UTF-8; no error tells anything of it, nor does one chained to it.

    Raises:
        ConfigurationError: the secret is not a str, or holds a lone surrogate.
    """
    if not isinstance(secret, str):
        raise ConfigurationError(f"the {what} is a str, not {type(secret).__name__}")
    # A codec's error holds all of the text, so it must be over before another is raised.
    with suppress(UnicodeEncodeError):
        return secret.encode()
    raise ConfigurationError(f"the {what} holds a lone surrogate, which UTF-8 cannot express")


class Signer:
    """Signs and verifies with one deployment's secret key, which it never shows.

    Args:
        secret_key: any text; it may be empty, non-ASCII, and hold colons.

    Raises:
        ConfigurationError: the key is not a str, or holds a lone surrogate.
    """

    __slots__ = ("_suffix",)

    def __init__(self, secret_key: str) -> None:
        self._suffix = b":" + secret_utf8(secret_key, "secret key")

    def __repr__(self) -> str:
        return "Signer(<secret key>)"

    def sign(self, time_ms: int, text: str) -> str:
        """Return the signature: 64 lower-case hexadecimal digits.

        Args:
            time_ms: Unix time in milliseconds.
            text: the text of the conversation's last message.

        Raises:
            TypeError: `time_ms` is not an int (a bool is not one either).
            InvalidMessages: the text holds a lone surrogate; its position is told.
        """
        if not isinstance(time_ms, int) or isinstance(time_ms, bool):
            raise TypeError(
                f"the time is an int of milliseconds, not {type(time_ms).__name__}: "
                "int(time.time() * 1000)"
            )
        digest = hashlib.sha256(b"%d:" % time_ms)
        digest.update(utf8(text))
        digest.update(self._suffix)
        return digest.hexdigest()

    def verify(self, signature: str, time_ms: int, text: str) -> bool:
        """Tell, in constant time, whether the signature holds; raises as `sign` does."""
        expected = self.sign(time_ms, text)
        # A signature comes from outside, and may be any text.
        return is_same(signature.encode(errors="replace"), expected.encode())


def is_same(given: bytes, expected: bytes) -> bool:
    """Compare in constant time."""
    # A client never does, so it is not made to import this.
    from hmac import compare_digest

    return compare_digest(given, expected)


def generate_signature(timestamp: int, message: str, secret_key: str) -> str:
    """Sign once: `Signer(secret_key).sign(timestamp, message)`."""
    return Signer(secret_key).sign(timestamp, message)
