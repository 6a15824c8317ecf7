"""The signature: SHA-256 over the time, the last message's text and a secret key.

The rule is in docs/protocol.md, "Signature". A client that needs only the signature needs this file
and errors.py.
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
    """Encode a secret as UTF-8. Neither an error nor an exception chained to it shows the secret.

    Raises:
        ConfigurationError: the secret is not a str, or holds a lone surrogate.
    """
    if not isinstance(secret, str):
        raise ConfigurationError(f"the {what} must be a str, not {type(secret).__name__}")
    # UnicodeEncodeError holds the whole text, and would become the context of an exception that is
    # raised while it is handled.
    with suppress(UnicodeEncodeError):
        return secret.encode()
    # A traceback may be shown with its local variables.
    del secret
    raise ConfigurationError(f"the {what} holds a lone surrogate, which UTF-8 cannot express")


class Signer:
    """Signs and verifies with the secret key of one deployment. Its repr does not show the key.

    Args:
        secret_key: any text; it may be empty, may be non-ASCII, and may hold colons.

    Raises:
        ConfigurationError: the key is not a str, or holds a lone surrogate.
    """

    __slots__ = ("_suffix",)

    def __init__(self, secret_key: str) -> None:
        try:
            self._suffix = b":" + secret_utf8(secret_key, "secret key")
        finally:
            # A traceback may be shown with its local variables.
            del secret_key

    def __repr__(self) -> str:
        return "Signer(<secret key>)"

    def sign(self, time_ms: int, text: str) -> str:
        """Return the signature: 64 lower-case hexadecimal digits.

        Args:
            time_ms: Unix time in milliseconds.
            text: the text of the conversation's last message.

        Raises:
            TypeError: `time_ms` is not an int (a bool is not one either).
            InvalidMessages: the text holds a lone surrogate; `position` tells where.
        """
        if not isinstance(time_ms, int) or isinstance(time_ms, bool):
            raise TypeError(
                f"the time must be an int of milliseconds, not {type(time_ms).__name__}; "
                "pass int(time.time() * 1000)"
            )
        # Not one call with all three parts, because joining them would copy a long text once more.
        digest = hashlib.sha256(b"%d:" % time_ms)
        digest.update(utf8(text))
        digest.update(self._suffix)
        return digest.hexdigest()

    def verify(self, signature: str, time_ms: int, text: str) -> bool:
        """Tell in constant time whether the signature is right.

        Args:
            signature: any text; a wrong one is not an error.
            time_ms, text: as in `sign`.

        Raises:
            TypeError, InvalidMessages: as `sign`.
        """
        expected = self.sign(time_ms, text)
        # The signature comes from a peer, so it may hold a lone surrogate.
        return is_same(signature.encode(errors="replace"), expected.encode())


def is_same(given: bytes, expected: bytes) -> bool:
    """Compare in constant time."""
    # Imported here, because a client does not need it.
    from hmac import compare_digest

    return compare_digest(given, expected)


def generate_signature(timestamp: int, message: str, secret_key: str) -> str:
    """Return `Signer(secret_key).sign(timestamp, message)`; raises as these two do.

    Args:
        timestamp: Unix time in milliseconds.
        message: the text of the conversation's last message.
        secret_key: the deployment's.
    """
    try:
        return Signer(secret_key).sign(timestamp, message)
    finally:
        # As in Signer.
        del secret_key
