"""What hypothesis draws: texts, keys, messages, and conversations as a caller may pass them."""

from collections import deque
from collections.abc import Callable
from types import MappingProxyType
from typing import Final, NamedTuple

from hypothesis import strategies as st

from gprochat_core import Message, Role

ROLES: Final[tuple[Role, ...]] = ("system", "user", "assistant")

TELLING: Final = (
    "\0\b\t\n\v\f\r\x1b\x1f \x7f\x85\xa0\xad"  # control characters and odd spaces
    '"\\/:<>&'  # what JSON, a signature's fields and HTML care about
    "eé\u0301ﬁЖщ中文ひ한ש"  # Latin composed and not, Cyrillic, CJK, Hebrew
    "\u2028\u2029\u200b\u200d\ufeff\ufffd\uffff"  # line separators, invisible ones, noncharacters
    "🙂👩🏽\U0010ffff"  # beyond the basic plane
)

characters: Final = st.sampled_from(TELLING) | st.characters(exclude_categories=["Cs"])
"""Every character but the surrogates, those more often on which something may turn."""

surrogates: Final = st.characters(categories=["Cs"])

texts: Final = st.text(characters, max_size=30)

keys: Final = st.just("") | texts
"""Secret keys."""

times: Final = st.integers(-(2**63), 2**63)
"""Unix times in milliseconds, and integers far from any."""

messages: Final = st.builds(Message, st.sampled_from(ROLES), texts)

sendable: Final = st.builds(
    lambda earlier, last: [*earlier, Message("user", last)], st.lists(messages, max_size=8), texts
)
"""Conversations that may be sent: the last message is the user's."""


class Passed(NamedTuple):
    """A conversation as a caller passes it, and the messages that it means."""

    conversation: object
    messages: list[Message]


@st.composite
def cut(draw: st.DrawFn, text: str) -> list[str]:
    """A text as the parts of a content, empty ones among them."""
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@st.composite
def contents(draw: st.DrawFn, text: str) -> object:
    """A content that says a text."""
    if draw(st.booleans()):
        return text
    parts = [{"type": "text", "text": piece} for piece in draw(cut(text))]
    if not text and draw(st.booleans()):
        parts = []
    return tuple(parts) if draw(st.booleans()) else parts


@st.composite
def items(draw: st.DrawFn, message: Message) -> object:
    """One message in any of the forms that a caller may give it."""
    forms = ["Message", "dict", "mapping"]
    if message.role == "user":
        forms.append("str")
    form = draw(st.sampled_from(forms))
    if form == "Message":
        return message
    if form == "str":
        return message.text
    role: str = message.role
    if role == "system":
        role = draw(st.sampled_from(["system", "developer"]))
    fields: dict[str, object] = {"role": role, "content": draw(contents(message.text))}
    if draw(st.booleans()):
        fields["name"] = "other keys are not sent"
    return fields if form == "dict" else MappingProxyType(fields)


COLLECTIONS: Final[tuple[Callable[[list[object]], object], ...]] = (list, tuple, deque, iter)


@st.composite
def passed(draw: st.DrawFn) -> Passed:
    """A conversation in any of the shapes that a caller may pass."""
    said = draw(sendable)
    given = [draw(items(message)) for message in said]
    if len(given) == 1 and draw(st.booleans()):
        return Passed(given[0], said)
    return Passed(draw(st.sampled_from(COLLECTIONS))(given), said)
