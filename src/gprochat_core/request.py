"""The request: one signed POST.

The attempts of a call differ in the time and the signature only. So a call makes one `Draft`, which
makes a `Request` for each attempt. Headers and body are those of docs/protocol.md, "Request".
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from .messages import Message, encode, newest, to_json
from .service import Service

__all__ = ["USER_AGENT", "Draft", "Request"]

USER_AGENT: Final = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/129.0.0.0 Safari/537.36"
)


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request. A transport adds the headers `host` and `content-length`.

    Attributes:
        method: "POST".
        url: the absolute URL.
        headers: names, in lower case, and values, in the order to send them in; the same for all
            requests to a service.
        body: JSON in UTF-8. It holds the password, so the repr does not show it.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)


class Draft:
    """A request without its time and its signature.

    Args:
        service: the deployment to send it to.
        messages: the conversation, as `read_messages` returns it.

    Raises:
        ConfigurationError: the service has no secret key.
    """

    __slots__ = ("_headers", "_password", "_pieces", "_service", "_signer", "_text")

    def __init__(self, service: Service, messages: Sequence[Message]) -> None:
        self._service = service
        self._signer = service.signer
        self._pieces, self._text = encode(newest(messages, service.max_history), service.encoding)
        password = service.password
        self._password = b"null" if password is None else to_json(password).encode()
        self._headers = headers_for(service.url, service.origin)

    def sign(self, time_ms: int) -> Request:
        """Return the request with a time, Unix time in milliseconds, and its signature.

        Raises:
            TypeError: `time_ms` is not an int.
        """
        tail = b',"time":%d,"pass":%b,"sign":"%b"}' % (
            time_ms,
            self._password,
            self._signer.sign(time_ms, self._text).encode(),
        )
        body = b"".join([b'{"messages":', *self._pieces, tail])
        return Request("POST", self._service.endpoint, self._headers, body)


@lru_cache
def headers_for(url: str, origin: str) -> tuple[tuple[str, str], ...]:
    """Return the headers of each request to a deployment; thousands of calls at once share them."""
    return (
        ("accept", "*/*"),
        ("origin", origin),
        ("referer", f"{url}/"),
        ("user-agent", USER_AGENT),
        ("content-type", "text/plain;charset=UTF-8"),
        # A browser asks for compression, which would only delay the short pieces of a reply.
        ("accept-encoding", "identity"),
    )
