"""A request of OpenAI's API becomes a conversation and options, or an error. Pure: no I/O.

The service takes text only, and none of a model's settings. A parameter of a request is one of

* understood: the conversation, `stream`, `stop`, and parameters at the value that the service has
  anyway, such as `n: 1`;
* unsupported, because a reply without it would mislead the caller: tools, images, several
  choices. The request is refused;
* ignored, because the reply is useful all the same: `temperature`, `seed`, `user`. The response
  names these, and a strict gateway refuses them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast

from gprochat_core import InvalidMessages, Message, Refusal
from gprochat_core.acceptance import read_object
from gprochat_core.messages import ROLES, Role, read_messages

__all__ = ["API", "Asked", "Invalid", "read_request"]

API: TypeAlias = Literal["chat", "responses"]
"""POST /v1/chat/completions, or POST /v1/responses."""

MAX_STOPS: Final = 16
MAX_STOP_LENGTH: Final = 256
"""How many stop sequences a request may have, and how many characters each."""

MAX_IGNORED: Final = 64
"""How many parameters that are ignored a request may have."""

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
"""What the name of an ignored parameter looks like; the response repeats it in a header."""

Fields: TypeAlias = dict[str, object]

UNDERSTOOD: Final[Mapping[API, frozenset[str]]] = {
    "chat": frozenset({"model", "messages", "stream", "stream_options", "stop"}),
    "responses": frozenset(
        {"model", "input", "instructions", "stream", "stream_options", "stop", "text"}
    ),
}

NEUTRAL: Final[Mapping[str, tuple[object, ...]]] = {
    "audio": (),
    "background": (False,),
    "conversation": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "include": ([],),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "prediction": (),
    "previous_response_id": (),
    "prompt": (),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "web_search_options": (),
}
"""Unsupported parameters, with the values besides null that ask for nothing unsupported."""

NOTHING: Final[tuple[object, ...]] = (None, [], {})
"""Values with which a parameter that is ignored asks for nothing."""

PART_TYPES: Final[frozenset[object]] = frozenset({"text", "input_text", "output_text"})


class Invalid(Exception):
    """A request is refused.

    Attributes:
        status: the HTTP status.
        message: what is wrong, and what to do.
        param: the parameter at fault, such as "messages[2].content"; None for the whole body.
        code: a word by which programs recognise the reason, such as "unsupported_parameter".
    """

    def __init__(
        self, message: str, param: str | None, code: str = "invalid_value", status: int = 400
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was understood.

    Attributes:
        api: the API that it is a request of.
        model: the model's name, not checked.
        messages: the conversation; the last message is the user's.
        stream: whether to stream the reply.
        stop: the stop sequences, none of them empty.
        ignored: the names of the parameters that change nothing.
    """

    api: API
    model: str
    messages: tuple[Message, ...]
    stream: bool = False
    stop: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def read_request(body: bytes, api: API, *, strict: bool = False) -> Asked:
    """Read the body of a request.

    Args:
        body: JSON in UTF-8.
        api: which API it was sent to.
        strict: whether to refuse parameters that would be ignored.

    Raises:
        Invalid: the request cannot be answered; the error names the parameter.
    """
    try:
        fields = {name: value for name, value in read_object(body).items() if value is not None}
    except Refusal as refusal:
        raise Invalid(refusal.message, None, "invalid_json", refusal.status) from None
    ignored = Ignored()
    refuse_unsupported(fields)
    for name, value in as_object(fields.get("stream_options", {}), "stream_options").items():
        if name != "include_usage":
            # False asks for nothing.
            ignored.add(name, value or None, "stream_options.")
    if api == "responses":
        read_text_format(fields, ignored)
    for name, value in fields.items():
        if name not in UNDERSTOOD[api] and name not in NEUTRAL:
            ignored.add(name, value)
    messages = read_chat(fields, ignored) if api == "chat" else read_input(fields, ignored)
    if strict and ignored.names:
        raise unsupported(
            min(ignored.names), "this gateway is strict, and the service ignores this parameter"
        )
    return Asked(
        api,
        read_model(fields),
        messages,
        read_boolean(fields, "stream"),
        read_stop(fields.get("stop")),
        tuple(sorted(ignored.names)),
    )


class Ignored:
    """Collects the names of parameters that change nothing."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def add(self, name: str, value: object, prefix: str = "") -> None:
        """Take note of a parameter, unless it asks for nothing.

        Raises:
            Invalid: the name cannot be repeated in a header, or there are too many.
        """
        if value in NOTHING:
            return
        if not NAME.fullmatch(name):
            raise Invalid("a parameter's name is malformed", None, "unknown_parameter")
        self.names.add(prefix + name)
        if len(self.names) > MAX_IGNORED:
            raise Invalid("too many unknown parameters", prefix + name, "unknown_parameter")


def unsupported(param: str, why: str) -> Invalid:
    return Invalid(f"{param}: {why}", param, "unsupported_parameter")


def wrong_type(param: str, wanted: str) -> Invalid:
    return Invalid(f"{param} must be {wanted}", param, "invalid_type")


def missing(param: str) -> Invalid:
    return Invalid(f"{param} is required", param, "missing_required_parameter")


def is_same_value(value: object, other: object) -> bool:
    # In Python, True == 1, also within a list.
    return type(value) is type(other) and value == other


def refuse_unsupported(fields: Fields) -> None:
    for name, value in fields.items():
        if not any(is_same_value(value, each) for each in NEUTRAL.get(name, (value,))):
            raise unsupported(
                name,
                "the service behind this gateway takes text, returns one text and stores nothing",
            )


def read_text_format(fields: Fields, ignored: Ignored) -> None:
    text = as_object(fields.get("text", {}), "text")
    if text.get("format") not in (None, {"type": "text"}):
        raise unsupported("text.format", "the service returns plain text only")
    for name, value in text.items():
        if name != "format":
            ignored.add(name, value, "text.")


def read_model(fields: Fields) -> str:
    if "model" not in fields:
        raise missing("model")
    model = fields["model"]
    if not isinstance(model, str):
        raise wrong_type("model", "a string")
    return model


def read_boolean(fields: Fields, name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise wrong_type(name, "true or false")
    return value


def read_stop(stop: object) -> tuple[str, ...]:
    if stop is None:
        return ()
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(
        isinstance(each, str) for each in cast("list[object]", stops)
    ):
        raise wrong_type("stop", "a string or a list of strings")
    texts = cast("list[str]", stops)
    if len(texts) > MAX_STOPS or not all(0 < len(each) <= MAX_STOP_LENGTH for each in texts):
        raise Invalid(
            f"stop may have {MAX_STOPS} sequences of 1 to {MAX_STOP_LENGTH} characters", "stop"
        )
    return tuple(texts)


def as_object(value: object, param: str) -> Fields:
    if not isinstance(value, dict):
        raise wrong_type(param, "an object")
    return cast("Fields", value)


def as_list(value: object, param: str) -> list[object]:
    if not isinstance(value, list):
        raise wrong_type(param, "a list")
    return cast("list[object]", value)


def read_chat(fields: Fields, ignored: Ignored) -> tuple[Message, ...]:
    if "messages" not in fields:
        raise missing("messages")
    items = as_list(fields["messages"], "messages")
    return checked(
        [read_item(item, f"messages[{index}]", ignored) for index, item in enumerate(items)],
        "messages",
    )


def read_input(fields: Fields, ignored: Ignored) -> tuple[Message, ...]:
    if "input" not in fields:
        raise missing("input")
    given = fields["input"]
    messages: list[Message] = []
    instructions = fields.get("instructions")
    if instructions is not None:
        if not isinstance(instructions, str):
            raise wrong_type("instructions", "a string")
        messages.append(message("system", instructions, "instructions"))
    if isinstance(given, str):
        messages.append(message("user", given, "input"))
    else:
        for index, item in enumerate(as_list(given, "input")):
            messages.append(read_item(item, f"input[{index}]", ignored))
    return checked(messages, "input")


def checked(messages: list[Message], param: str) -> tuple[Message, ...]:
    try:
        return tuple(read_messages(messages))
    except InvalidMessages as error:
        raise Invalid(str(error), param, "invalid_messages") from None


def read_item(item: object, param: str, ignored: Ignored) -> Message:
    fields = as_object(item, param)
    kind = fields.get("type", "message")
    if kind != "message":
        raise unsupported(f"{param}.type", "the service takes messages only")
    role = fields.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise Invalid("a role is one of system, developer, user and assistant", f"{param}.role")
    for name, value in fields.items():
        if name in ("tool_calls", "function_call", "audio") and value not in NOTHING:
            raise unsupported(f"{param}.{name}", "the service takes text only")
        if name not in ("type", "role", "content", "id", "status"):
            ignored.add(name, value, param.partition("[")[0] + ".")
    content = fields.get("content")
    if content is None and role != "assistant":
        raise missing(f"{param}.content")
    text = read_content(content, f"{param}.content", ignored)
    return message(ROLES[role], text, f"{param}.content")


def read_content(content: object, param: str, ignored: Ignored) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    texts: list[str] = []
    if not isinstance(content, list):
        raise wrong_type(param, "a string or a list of text parts")
    for index, part in enumerate(cast("list[object]", content)):
        place = f"{param}[{index}]"
        fields = as_object(part, place)
        kind = fields.get("type")
        # A list or an object cannot be looked up in a set.
        if not isinstance(kind, str) or kind not in PART_TYPES:
            raise unsupported(place, "the service takes text only, as parts of the type text")
        text = fields.get("text")
        if not isinstance(text, str):
            raise wrong_type(f"{place}.text", "a string")
        texts.append(text)
        for name, value in fields.items():
            if name not in ("type", "text"):
                ignored.add(name, value, param.partition("[")[0] + ".content.")
    return "".join(texts)


def message(role: Role, text: str, param: str) -> Message:
    try:
        return Message(role, text)
    except InvalidMessages as error:
        raise Invalid(str(error), param, "invalid_messages") from None
