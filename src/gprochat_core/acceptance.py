"""The service's half: parses and verifies the body of a request, and words the refusals.

Tests and the embedded service use it. It checks in the order of the table in docs/protocol.md,
"Errors": the conversation, the password, the signature with its time.
"""

import json
from typing import Final, NamedTuple, NoReturn, cast

from .errors import ConfigurationError, InvalidMessages
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
"""Milliseconds that the time of a request may be before or after the service's."""

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
    """

    messages: tuple[Message, ...]
    time_ms: int


def error_body(message: str, code: str | None = None) -> bytes:
    """Return the body of an error as the service writes it: JSON in UTF-8."""
    error = {"message": message} if code is None else {"message": message, "code": code}
    return json.dumps({"error": error}, ensure_ascii=False, separators=(",", ":")).encode(
        errors="replace"
    )


class Acceptance:
    """Accepts or refuses the requests to one deployment.

    Args:
        service: the deployment, with its secret key and, if it has one, its password.
        freshness_ms: milliseconds that the time of a request may be before or after the service's;
            None for no check.

    Raises:
        ConfigurationError: the service has no secret key, or `freshness_ms` is negative.
    """

    __slots__ = ("_freshness_ms", "_password", "_signer")

    def __init__(self, service: Service, *, freshness_ms: int | None = FRESHNESS_MS) -> None:
        if freshness_ms is not None and freshness_ms < 0:
            raise ConfigurationError(f"freshness_ms={freshness_ms}: give None or 0 and more")
        self._signer = service.signer
        self._password = service.password
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
        if type(time_ms) is not int:
            raise Refusal(400, "Invalid time: it must be an integer of milliseconds.")
        if not isinstance(signature, str):
            raise Refusal(400, "Invalid sign: it must be a string.")
        if not self._signer.verify(signature, time_ms, conversation[-1].text):
            raise Refusal(401, WRONG_SIGNATURE)
        if self._freshness_ms is not None and abs(now_ms - time_ms) > self._freshness_ms:
            raise Refusal(401, WRONG_SIGNATURE)
        return Accepted(conversation, time_ms)

    def is_password(self, password: object) -> bool:
        """Tell in constant time whether this is the password; true for any if there is none."""
        if self._password is None:
            return True
        if not isinstance(password, str):
            return False
        # JSON may hold a lone surrogate. Encoded as "?", it would match a "?" of the password.
        given = password.encode(errors="surrogatepass")
        return is_same(given, self._password.encode())


def refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def read_object(body: bytes) -> dict[str, object]:
    try:
        # Like JavaScript's Request.json(): UTF-8 only, without a byte order mark, and no NaN.
        value = json.loads(body.decode("utf-8-sig"), parse_constant=refuse_constant)
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
    try:
        return Message(WIRE_ROLES[role], text)
    except InvalidMessages:
        raise refuse("holds a lone surrogate") from None


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
