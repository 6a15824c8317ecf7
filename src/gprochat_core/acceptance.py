"""The service's half: parses and verifies the body of a request, and writes the refusals.

Tests and the embedded service use it. It checks in the order of the table in docs/protocol.md,
"Errors": the conversation, the password, the signature with its time.
"""

import json
import re
from typing import Final, NamedTuple, NoReturn, cast

from .errors import ConfigurationError
from .messages import Message, Role
from .service import Service
from .signing import is_same

__all__ = [
    "FRESHNESS_MS",
    "REPLY_CONTENT_TYPE",
    "Acceptance",
    "Accepted",
    "Refusal",
    "error_body",
]

FRESHNESS_MS: Final = 5 * 60 * 1000
"""Milliseconds that the time of a request may be before or after the service's time."""

MAX_PARTS: Final = 100_000
"""How many strings, brackets, colons and commas a request may have: 6,000 messages have fewer."""

# Not compiled here: a client needs neither. What is between two parts is a match too, because that
# is faster than a search at each byte.
PARTS: Final = rb'(?s)"(?:[^"\\]++|(?:\\.)++)*+"?|[{}\[\]:,]|(?P<between>[^"{}\[\]:,]++)'

TIME: Final = "0|[1-9][0-9]{0,18}"

REPLY_CONTENT_TYPE: Final = "text/plain; charset=utf-8"

NOT_THE_USERS: Final = "Invalid message history: The last message must be from user role."
WRONG_PASSWORD: Final = "Invalid password."
WRONG_SIGNATURE: Final = "Invalid signature."

WIRE_ROLES: Final[dict[object, Role]] = {
    "user": "user",
    "model": "assistant",
    "assistant": "assistant",
    "system": "system",
}


class Refusal(Exception):
    """A request is not accepted.

    Attributes:
        status: the HTTP status of the answer.
        message: the message in the answer's body.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message

    @property
    def body(self) -> bytes:
        """The answer's body: JSON in UTF-8."""
        return error_body(self.message)


class Accepted(NamedTuple):
    """A request that was accepted.

    Attributes:
        messages: the conversation, oldest first; the last message is the user's.
        time_ms: when the request was signed, Unix time in milliseconds.
        signature: the request's signature; a service may refuse a signature that it has seen.
    """

    messages: tuple[Message, ...]
    time_ms: int
    signature: str


def error_body(message: str, code: str | None = None) -> bytes:
    """Return the body of an error as the service writes it: JSON in UTF-8."""
    error = {"message": message} if code is None else {"message": message, "code": code}
    return json.dumps({"error": error}, ensure_ascii=False, separators=(",", ":")).encode(
        errors="replace"
    )


class Acceptance:
    """Accepts or refuses the requests to one deployment.

    Args:
        service: the deployment, with its secret key and, if it has one, its password. A password
            such as "pw1,pw2" is a list: each entry is accepted, and the whole string too.
        freshness_ms: milliseconds that the time of a request may be before or after the service's;
            None for no check.

    Raises:
        ConfigurationError: the service has no secret key, or `freshness_ms` is negative.
    """

    __slots__ = ("_freshness_ms", "_passwords", "_signer")

    def __init__(self, service: Service, *, freshness_ms: int | None = FRESHNESS_MS) -> None:
        if freshness_ms is not None and freshness_ms < 0:
            raise ConfigurationError(f"freshness_ms={freshness_ms}: give None, or 0 or more")
        self._signer = service.signer
        password = service.password
        self._passwords: list[bytes] | None = None
        if password is not None:
            entries = filter(None, password.split(","))
            self._passwords = [each.encode() for each in {password, *entries}]
        self._freshness_ms = freshness_ms

    def accept(self, body: bytes, now_ms: int) -> Accepted:
        """Return a request's conversation, in whichever encoding it is.

        Args:
            body: the request's body.
            now_ms: the time, Unix time in milliseconds.

        Raises:
            Refusal: the request is not accepted; the refusal is the answer to send.
        """
        request = read_object(body)
        messages = request.get("messages")
        if not isinstance(messages, list) or not messages:
            raise Refusal(400, NOT_THE_USERS)
        conversation = tuple(
            read_wire_message(index, message)
            for index, message in enumerate(cast("list[object]", messages))
        )
        if conversation[-1].role != "user":
            raise Refusal(400, NOT_THE_USERS)
        if not self.is_password(request.get("pass")):
            raise Refusal(401, WRONG_PASSWORD)
        time_ms, signature = request.get("time"), request.get("sign")
        if isinstance(time_ms, str) and re.fullmatch(TIME, time_ms):
            time_ms = int(time_ms)
        if type(time_ms) is not int:
            raise Refusal(400, "Invalid time: it must be an integer of milliseconds.")
        if not isinstance(signature, str):
            raise Refusal(400, "Invalid sign: it must be a string.")
        if not self._signer.verify(signature, time_ms, conversation[-1].text):
            raise Refusal(401, WRONG_SIGNATURE)
        if self._freshness_ms is not None and abs(now_ms - time_ms) > self._freshness_ms:
            raise Refusal(401, WRONG_SIGNATURE)
        return Accepted(conversation, time_ms, signature)

    def is_password(self, password: object) -> bool:
        """Tell in constant time whether this is a right password; without one, any is right."""
        if self._passwords is None:
            return True
        if not isinstance(password, str):
            return False
        # JSON may hold a lone surrogate. Encoded as "?", it would match a "?" of the password.
        given = password.encode(errors="surrogatepass")
        # A list first, so that a match does not end the comparisons early.
        return True in [is_same(given, each) for each in self._passwords]


def refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def parse_int(digits: str) -> int | float:
    # A longer integer is a float, as in JavaScript; to convert it exactly takes quadratic time.
    return int(digits) if len(digits) <= 20 else float(digits)


def read_object(body: bytes) -> dict[str, object]:
    # A request that nobody has authenticated yet must not cost much memory or time. A request of
    # brackets alone takes 100 times as much of both as a request of text alone.
    parts = 0
    for match in re.finditer(PARTS, body):
        parts += match.lastgroup is None
        if parts > MAX_PARTS:
            raise Refusal(413, "Invalid body: it has too many parts.")
    try:
        # Like JavaScript's Request.json(): UTF-8 only, without a byte order mark, and no NaN.
        value = json.loads(
            body.decode("utf-8-sig"), parse_constant=refuse_constant, parse_int=parse_int
        )
    except (ValueError, RecursionError):
        raise Refusal(400, "Invalid body: it is not valid JSON.") from None
    if not isinstance(value, dict):
        raise Refusal(400, "Invalid body: it must be a JSON object.")
    return cast("dict[str, object]", value)


def read_wire_message(index: int, message: object) -> Message:
    def refuse(why: str) -> Refusal:
        return Refusal(400, f"Invalid message history: message {index} {why}.")

    if not isinstance(message, dict):
        raise refuse("is not an object")
    fields = cast("dict[str, object]", message)
    role = fields.get("role")
    # A list or an object cannot be looked up in a dict.
    if not isinstance(role, str) or role not in WIRE_ROLES:
        raise refuse("has an unknown role")
    text = fields["content"] if "content" in fields else read_parts(fields.get("parts"))
    if not isinstance(text, str):
        raise refuse("has no text")
    return Message(WIRE_ROLES[role], replace_lone_surrogates(text))


def replace_lone_surrogates(text: str) -> str:
    """Replace each lone surrogate by U+FFFD, as a browser does when it signs (WHATWG Encoding)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        # Through UTF-16, because two parts of a message may each hold half of a pair.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def read_parts(parts: object) -> str | None:
    if not isinstance(parts, list):
        return None
    texts: list[str] = []
    for part in cast("list[object]", parts):
        text = cast("dict[str, object]", part).get("text") if isinstance(part, dict) else None
        if not isinstance(text, str):
            return None
        texts.append(text)
    return "".join(texts)
