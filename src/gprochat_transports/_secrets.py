"""Keeps secrets out of errors: whoever sends one back, and whichever library then quotes it.

A peer knows the passwords that it has been sent, and libraries put what they received, or the
headers that they sent, into their exceptions. So an error is looked over once, before a caller
gets it, together with all that is chained to it.
"""

import re
from base64 import b64encode
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, quote_plus, unquote, urlsplit

from gprochat_core import GPROChatError, ResponseError
from gprochat_core.diagnosis import CONCEALED, conceal

__all__ = ["Hidden", "Secrets", "proxy_secrets", "split_proxy"]

CREDENTIALS: Final = (r"authorization.{1,8}basic [\w+/=]+", r"(?<=://)[^/\s@]+:[^/\s@]+(?=@)")
"""How a proxy's password looks that only the caller's own session or client knows."""


class Secrets:
    """What an error must not tell.

    Args:
        secrets: in plain; empty ones are none.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        found = {form for secret in secrets if secret for form in forms(secret)}
        patterns = [
            # A backslash is one more each time that a text is quoted.
            re.escape(form).replace(r"\\", r"\\+")
            # The longest first, or else a part of it might be replaced and the rest told.
            for form in sorted(found, key=len, reverse=True)
        ]
        self._pattern = re.compile("|".join([*patterns, *CREDENTIALS]), re.IGNORECASE)

    def conceal(self, error: GPROChatError) -> None:
        """Take the secrets out of an error, and from its chain the exceptions that tell one."""
        if isinstance(error, ResponseError):
            conceal(error, self.hide)
        self._cut(error)

    def hide(self, text: str) -> str:
        """Return a text from outside without the secrets."""
        return self._pattern.sub(CONCEALED, text)

    def _cut(self, error: BaseException) -> None:
        for name in ("__cause__", "__context__"):
            linked: BaseException | None = getattr(error, name)
            if linked is not None:
                if self._pattern.search(words(linked)):
                    setattr(error, name, None)
                else:
                    self._cut(linked)


def words(error: BaseException) -> str:
    """All that an exception would print."""
    notes: list[str] = getattr(error, "__notes__", [])
    return "\n".join([str(error), repr(error), repr(error.args), repr(vars(error)), *notes])


def forms(secret: str) -> set[str]:
    """How a secret may be written in a header, a URL, JSON or a Python string."""
    utf8 = secret.encode()
    latin1 = utf8.decode("latin-1")
    return {
        secret,
        latin1,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        repr(secret)[1:-1],
        repr(latin1)[1:-1],
        repr(utf8)[2:-1],
        ascii(secret)[1:-1],
    }


def split_proxy(proxy: str) -> tuple[str, str, str]:
    """Return a proxy's URL without user and password, and these two, "" where there are none."""
    parts = urlsplit(proxy)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}", unquote(parts.username or ""), unquote(parts.password or "")


def proxy_secrets(proxy: str | None) -> list[str]:
    """Return what errors must not tell of a proxy's URL."""
    _, user, password = split_proxy(proxy or "")
    if not password:
        return []
    return [password, b64encode(f"{user}:{password}".encode()).decode()]


class Hidden(str):
    """A text for a library that logs what it is given: neither it nor its bytes are shown."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(CONCEALED)

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """Return the bytes, which are not shown either."""
        return HiddenBytes(super().encode(encoding, errors))


class HiddenBytes(bytes):
    """What a `Hidden` encodes to."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(CONCEALED.encode())
