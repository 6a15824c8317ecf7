"""Conversations: what a caller may pass, and how each encoding writes it on the wire.

What a caller passes becomes `Message` values, which are checked once. An encoding turns them into
the JSON array of the request and the text to sign. The rules are in docs/protocol.md, "How
conversations of other shapes become wire messages" and "The relatives' dialect".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from json import JSONEncoder
from typing import Final, Literal, TypeAlias, cast

from .errors import InvalidMessages
from .signing import utf8

__all__ = [
    "ENCODINGS",
    "Conversation",
    "Encoded",
    "Encoding",
    "Message",
    "Role",
    "encode",
    "format_prompt",
    "newest",
    "read_messages",
]

Role: TypeAlias = Literal["system", "user", "assistant"]

Encoding: TypeAlias = Literal["native", "flattened", "content"]

ROLES: Final[Mapping[object, Role]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}

BLANK_LINE: Final = "\n\n"
JSON_BLANK_LINE: Final = rb"\n\n"

to_json: Final = JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, slots=True, init=False)
class Message:
    """One message of a conversation.

    Args:
        role: "system", "user" or "assistant"; "developer" becomes "system".
        text: the message's text; may be empty.

    Raises:
        InvalidMessages: the role is unknown, or the text is not a str or holds a lone surrogate.
    """

    role: Role
    text: str
    json: bytes = field(init=False, repr=False, compare=False)
    """The text as a JSON string in UTF-8 without its quotes, encoded once for all attempts."""

    def __init__(self, role: Role, text: str) -> None:
        try:
            object.__setattr__(self, "role", ROLES[role])
        except (KeyError, TypeError):
            raise InvalidMessages(
                f"unknown role {role!r}: use 'system', 'user' or 'assistant' "
                "(which the wire calls 'model')"
            ) from None
        if not isinstance(text, str):
            raise InvalidMessages(f"a message's text must be a str, not {type(text).__name__}")
        utf8(text)
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "json", to_json(text).encode()[1:-1])


Conversation: TypeAlias = (
    str | Message | Mapping[str, object] | Iterable[str | Message | Mapping[str, object]]
)
"""What a caller may pass: a prompt, a message, a role/content dict, or an iterable of these."""


def read_messages(conversation: object) -> list[Message]:
    """Check a `Conversation` and return it as messages, oldest first.

    A str is a user's message. A dict has a `role` and a `content`, which is a str or a list of
    `{"type": "text", "text": ...}` parts; its other keys are not sent.

    Raises:
        InvalidMessages: there is no message, the last message is not the user's, or an item is not
            a message; `index` and `position` tell where.
    """
    if isinstance(conversation, (str, Message, Mapping)):
        items: Iterable[object] = [cast("object", conversation)]
    elif isinstance(conversation, Iterable) and not isinstance(conversation, (bytes, bytearray)):
        items = cast("Iterable[object]", conversation)
    else:
        raise InvalidMessages(
            "a conversation must be a str, a Message or a list of messages, "
            f"not {type(conversation).__name__}"
        )
    messages: list[Message] = []
    for index, item in enumerate(items):
        try:
            messages.append(item if isinstance(item, Message) else read_message(item))
        except InvalidMessages as error:
            raise InvalidMessages(
                f"message {index}: {error}", index=index, position=error.position
            ) from None
    if not messages:
        raise InvalidMessages("there is no message to send; pass at least one message of the user")
    if messages[-1].role != "user":
        raise InvalidMessages(
            f"message {len(messages) - 1}: the last message must be the user's, "
            f"not the {messages[-1].role}'s",
            index=len(messages) - 1,
        )
    return messages


def read_message(item: object) -> Message:
    if isinstance(item, str):
        return Message("user", item)
    if not isinstance(item, Mapping):
        raise InvalidMessages(
            "a message must be a str, a Message or a dict with 'role' and 'content', "
            f"not {type(item).__name__}"
        )
    fields = cast("Mapping[object, object]", item)
    for key in ("role", "content"):
        if key not in fields:
            raise InvalidMessages(f"a message must have a {key!r}, and this one has none")
    return Message(cast("Role", fields["role"]), read_content(fields["content"]))


def read_content(content: object) -> str:
    """Return the text of a content: the str itself, or the texts of its parts joined."""
    if isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        raise InvalidMessages(
            f"a content must be a str or a list of text parts, not {type(content).__name__}"
        )
    texts: list[str] = []
    length = 0
    for index, part in enumerate(cast("Sequence[object]", content)):
        fields = cast("Mapping[object, object] | None", part if isinstance(part, Mapping) else None)
        text = fields.get("text") if fields and fields.get("type") == "text" else None
        if not isinstance(text, str):
            raise InvalidMessages(
                f"part {index} of the content is not text; this service takes only "
                "{'type': 'text', 'text': '...'} parts",
                position=length,
            )
        texts.append(text)
        length += len(text)
    return "".join(texts)


def newest(messages: Sequence[Message], max_history: int | None) -> Sequence[Message]:
    """Return the newest messages, and all messages of the system.

    Args:
        messages: the conversation, oldest first.
        max_history: how many messages of the user and the assistant to keep at most, 1 or more;
            None for all. The first of them must be the user's, so fewer may remain.
    """
    if max_history is None:
        return messages
    spoken = [index for index, message in enumerate(messages) if message.role != "system"]
    first = next(index for index in spoken[-max_history:] if messages[index].role == "user")
    system = [message for message in messages[:first] if message.role == "system"]
    return [*system, *messages[first:]]


def format_prompt(conversation: Conversation) -> str:
    """Write a whole conversation as one prompt.

    A single message becomes its text. Several messages become a line `Role: text` each, and a last
    line `Assistant:`, which asks for the answer.

    Raises:
        InvalidMessages: as `read_messages`.
    """
    return flatten(read_messages(conversation))


def flatten(messages: Sequence[Message]) -> str:
    if len(messages) == 1:
        return messages[0].text
    lines = [f"{message.role.capitalize()}: {message.text}" for message in messages]
    return "\n".join([*lines, "Assistant:"])


Encoded: TypeAlias = tuple[list[bytes], str]
"""A conversation on the wire: the request's `messages`, and the text of the last message, which the
signature covers. `messages` is a JSON array in UTF-8, in pieces. They are joined once, into the
request's body, because the array may be long."""

NATIVE_TURN: Final = {
    "user": b'{"role":"user","parts":[{"text":"',
    "assistant": b'{"role":"model","parts":[{"text":"',
}
NATIVE_NEXT: Final = {role: b'"}]},' + turn for role, turn in NATIVE_TURN.items()}


def encode_native(messages: Sequence[Message]) -> Encoded:
    """Write what the browser sends: `user` and `model` in turn, system text in the first `user`."""
    system = [message for message in messages if message.role == "system" and message.text]
    pieces = [b"["]
    begin = NATIVE_TURN
    speaker = None
    texts: list[str] = []
    for message in messages:
        role = message.role
        if role == "system":
            continue
        if role != speaker:
            pieces.append(begin[role])
            begin = NATIVE_NEXT
            speaker = role
            texts = []
            if system and role == "user":
                pieces.append(JSON_BLANK_LINE.join([one.json for one in system]))
                texts = [one.text for one in system]
                system = []
        # An empty message is not separated from the others by a blank line.
        if message.text:
            if texts:
                pieces.append(JSON_BLANK_LINE)
            pieces.append(message.json)
            texts.append(message.text)
    pieces.append(b'"}]}]')
    return pieces, BLANK_LINE.join(texts)


def encode_flattened(messages: Sequence[Message]) -> Encoded:
    """Write what the original provider sends: the whole conversation as one `user` message."""
    return encode_native([Message("user", flatten(messages))])


def encode_content(messages: Sequence[Message]) -> Encoded:
    """Write what clients of chatgpt-demo send: each message with its text as `content`."""
    pieces = [b"["]
    for message in messages:
        pieces += (b'{"role":"%b","content":"' % message.role.encode(), message.json, b'"},')
    pieces[-1] = b'"}]'
    return pieces, messages[-1].text


ENCODINGS: Final = {
    "native": encode_native,
    "flattened": encode_flattened,
    "content": encode_content,
}


def encode(messages: Sequence[Message], encoding: Encoding) -> Encoded:
    """Write messages, of which the last is the user's, in the given encoding."""
    return ENCODINGS[encoding](messages)
