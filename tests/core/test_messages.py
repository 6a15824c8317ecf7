"""What a caller may pass becomes messages, and these become each dialect's words on the wire."""

import copy
import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprochat_core import Conversation, Encoding, InvalidMessages, Message, Role, format_prompt
from gprochat_core.messages import ENCODINGS, encode, newest, read_messages

from .strategies import ROLES, Passed, characters, messages, passed, sendable, surrogates, texts

SYSTEM = Message("system", "Be brief.")
HELLO = Message("user", "Hello")
HI = Message("assistant", "Hi!")
BYE = Message("user", "Bye")

encodings = st.sampled_from(list(ENCODINGS))


def wire_json(said: Sequence[Message], encoding: Encoding) -> bytes:
    pieces, _ = encode(said, encoding)
    return b"".join(pieces)


# What a caller may pass


@pytest.mark.parametrize(
    ("conversation", "expected"),
    [
        pytest.param("Hello", [HELLO], id="a string"),
        pytest.param("", [Message("user", "")], id="an empty string"),
        pytest.param(HELLO, [HELLO], id="a message"),
        pytest.param({"role": "user", "content": "Hello"}, [HELLO], id="a dict"),
        pytest.param(["Hello"], [HELLO], id="a list of a string"),
        pytest.param(["Hello", "Bye"], [HELLO, BYE], id="strings"),
        pytest.param([SYSTEM, HELLO, HI, BYE], [SYSTEM, HELLO, HI, BYE], id="messages"),
        pytest.param((HELLO, HI, BYE), [HELLO, HI, BYE], id="a tuple"),
        pytest.param(
            [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Hi!"},
                {"role": "user", "content": "Bye"},
            ],
            [SYSTEM, HELLO, HI, BYE],
            id="dicts",
        ),
        pytest.param(
            [{"role": "developer", "content": "Be brief."}, "Hello"],
            [SYSTEM, HELLO],
            id="a developer for system",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "text", "text": "Hello"}]}, [HELLO], id="a part"
        ),
        pytest.param(
            {
                "role": "user",
                "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}],
            },
            [HELLO],
            id="parts with nothing between",
        ),
        pytest.param({"role": "user", "content": []}, [Message("user", "")], id="no parts"),
        pytest.param(
            {"role": "user", "content": "Hello", "name": "Ann", "id": 7}, [HELLO], id="other keys"
        ),
        pytest.param(
            [SYSTEM, {"role": "assistant", "content": "Hi!"}, "Bye"],
            [SYSTEM, HI, BYE],
            id="one of each",
        ),
    ],
)
def test_every_shape_means_its_messages(
    conversation: Conversation, expected: list[Message]
) -> None:
    assert read_messages(conversation) == expected


def test_a_generator_of_messages_is_a_conversation() -> None:
    def turns() -> Iterator[Message | str]:
        yield HELLO
        yield HI
        yield "Bye"

    assert read_messages(turns()) == [HELLO, HI, BYE]


@given(passed())
def test_a_conversation_means_the_same_in_whatever_shape_it_is_passed(given: Passed) -> None:
    assert read_messages(given.conversation) == given.messages


@given(passed())
def test_a_message_that_was_checked_is_not_made_again(given: Passed) -> None:
    read = read_messages(given.conversation)
    assert all(one is other for one, other in zip(read, read_messages(read), strict=True))


def test_a_message_does_not_change() -> None:
    with pytest.raises(AttributeError):
        HELLO.text = "Goodbye"  # type: ignore[misc]
    assert replace(HELLO, role="assistant") != HELLO
    assert replace(HELLO, text="Goodbye") == Message("user", "Goodbye")


def test_a_message_is_matched_by_its_role_and_text() -> None:
    match HELLO:
        case Message(role, text):
            assert (role, text) == ("user", "Hello")


def test_a_message_shows_its_role_and_text() -> None:
    assert repr(HELLO) == "Message(role='user', text='Hello')"


@given(messages)
def test_a_message_is_the_same_after_pickling_and_copying(message: Message) -> None:
    for other in (pickle.loads(pickle.dumps(message)), copy.deepcopy(message)):
        assert other == message
        assert hash(other) == hash(message)
        assert encode([other], "content") == encode([message], "content")


# What is refused, and where

REFUSED = [
    # conversation, index, position, what the error says
    pytest.param([], None, None, "there is no message", id="no message"),
    pytest.param(iter(()), None, None, "there is no message", id="nothing to iterate over"),
    pytest.param(None, None, None, "not NoneType", id="None"),
    pytest.param(7, None, None, "not int", id="a number"),
    pytest.param(b"Hello", None, None, "not bytes", id="bytes"),
    pytest.param(bytearray(b"Hello"), None, None, "not bytearray", id="a bytearray"),
    pytest.param([HELLO, b"Hello"], 1, None, "message 1: .*not bytes", id="bytes among messages"),
    pytest.param([HELLO, None], 1, None, "message 1: .*not NoneType", id="None among messages"),
    pytest.param([[HELLO]], 0, None, "message 0: .*not list", id="a list in a list"),
    pytest.param([("user", "Hello")], 0, None, "message 0: .*not tuple", id="a pair"),
    pytest.param({}, 0, None, "message 0: .*'role'", id="an empty dict"),
    pytest.param({"content": "Hello"}, 0, None, "message 0: .*'role'", id="no role"),
    pytest.param([HELLO, {"role": "user"}], 1, None, "message 1: .*'content'", id="no content"),
    pytest.param(
        [{"role": "model", "content": "Hi!"}, HELLO], 0, None, "0: unknown role 'model'", id="model"
    ),
    pytest.param(
        [HELLO, {"role": "tool", "content": ""}], 1, None, "1: unknown role 'tool'", id="tool"
    ),
    pytest.param({"role": "User", "content": ""}, 0, None, "0: unknown role 'User'", id="User"),
    pytest.param({"role": None, "content": ""}, 0, None, "0: unknown role None", id="role None"),
    pytest.param({"role": [], "content": ""}, 0, None, r"0: unknown role \[\]", id="role list"),
    pytest.param({"role": "user", "content": None}, 0, None, "not NoneType", id="content None"),
    pytest.param({"role": "user", "content": 7}, 0, None, "not int", id="content number"),
    pytest.param({"role": "user", "content": b""}, 0, None, "not bytes", id="content bytes"),
    pytest.param({"role": "user", "content": {}}, 0, None, "not dict", id="content dict"),
    pytest.param(
        {"role": "user", "content": ["Hello"]}, 0, 0, "0: part 0 .* not text", id="part str"
    ),
    pytest.param(
        {"role": "user", "content": [{"type": "text", "text": "Hello"}, {}]},
        0,
        5,
        "0: part 1 .* not text",
        id="empty part",
    ),
    pytest.param(
        [
            HELLO,
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look: "},
                    {"type": "image_url", "image_url": {"url": "https://chat.example/a.png"}},
                ],
            },
        ],
        1,
        6,
        "1: part 1 .* not text",
        id="an image",
    ),
    pytest.param(
        {"role": "user", "content": [{"text": "Hello"}]}, 0, 0, "part 0", id="part without type"
    ),
    pytest.param(
        {"role": "user", "content": [{"type": "text"}]}, 0, 0, "part 0", id="part without text"
    ),
    pytest.param(
        {"role": "user", "content": [{"type": "text", "text": 7}]}, 0, 0, "part 0", id="text number"
    ),
    pytest.param(
        {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
        0,
        0,
        "part 0",
        id="type",
    ),
    pytest.param("ab\ud800", 0, 2, r"0: .*U\+D800\) at position 2", id="surrogate in a string"),
    pytest.param(
        [HELLO, {"role": "assistant", "content": "\udfff"}, BYE],
        1,
        0,
        r"1: .*U\+DFFF\) at position 0",
        id="surrogate in a dict",
    ),
    pytest.param(
        {
            "role": "user",
            "content": [{"type": "text", "text": "ab"}, {"type": "text", "text": "c\udc00"}],
        },
        0,
        3,
        r"0: .*U\+DC00\) at position 3",
        id="surrogate in a part",
    ),
    pytest.param(
        {
            "role": "user",
            "content": [{"type": "text", "text": "\ud83d"}, {"type": "text", "text": "\ude42"}],
        },
        0,
        0,
        r"0: .*U\+D83D\) at position 0",
        id="a pair cut into parts",
    ),
    pytest.param(
        {"role": "user", "content": [*[{"type": "text", "text": "ab"}] * 2, {"type": "image"}]},
        0,
        4,
        r"0: part 2 of the content .* \{'type': 'text', 'text': '...'\} parts$",
        id="an image after two parts",
    ),
    pytest.param([HELLO, HI], 1, None, "message 1: the last .*assistant", id="last assistant"),
    pytest.param(HI, 0, None, "message 0: the last .*assistant", id="only assistant"),
    pytest.param([HELLO, SYSTEM], 1, None, "message 1: the last .*system", id="last system"),
    pytest.param(SYSTEM, 0, None, "message 0: the last .*system", id="only system"),
]


@pytest.mark.parametrize(("conversation", "index", "position", "what"), REFUSED)
def test_what_cannot_be_sent_is_refused_with_the_place(
    conversation: object, index: int | None, position: int | None, what: str
) -> None:
    with pytest.raises(InvalidMessages, match=what) as caught:
        read_messages(conversation)
    assert caught.value.index == index
    assert caught.value.position == position


@given(sendable, texts, surrogates, texts, sendable)
def test_a_lone_surrogate_is_found_wherever_it_is(
    before: list[Message], start: str, surrogate: str, end: str, after: list[Message]
) -> None:
    with pytest.raises(InvalidMessages) as caught:
        read_messages([*before, {"role": "user", "content": start + surrogate + end}, *after])
    assert caught.value.index == len(before)
    assert caught.value.position == len(start)


anything = st.recursive(
    st.none()
    | st.integers()
    | st.text(characters | surrogates, max_size=5)
    | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "parts"]), inner, max_size=4
        )
        | st.fixed_dictionaries(
            {"role": st.sampled_from([*ROLES, "model", "developer"]), "content": inner}
        )
        | st.fixed_dictionaries({"type": st.just("text"), "text": inner})
    ),
    max_leaves=12,
)


@given(anything)
def test_whatever_is_passed_is_a_conversation_or_invalid_messages(conversation: object) -> None:
    try:
        read = read_messages(conversation)
    except InvalidMessages:
        return
    assert read[-1].role == "user"


@pytest.mark.parametrize("role", ["model", "tool", "", "SYSTEM", None, 1, [], {}], ids=repr)
def test_a_message_with_an_unknown_role_is_refused(role: object) -> None:
    with pytest.raises(InvalidMessages, match="use 'system', 'user' or 'assistant'"):
        Message(cast("Role", role), "Hello")


@pytest.mark.parametrize("text", [None, 7, b"Hello", ["Hello"]], ids=repr)
def test_a_message_whose_text_is_not_a_string_is_refused(text: object) -> None:
    with pytest.raises(InvalidMessages, match=f"not {type(text).__name__}"):
        Message("user", cast("str", text))


def test_a_message_with_a_lone_surrogate_is_refused_with_its_position() -> None:
    with pytest.raises(InvalidMessages) as caught:
        Message("user", "ab\udfffc")
    assert caught.value.position == 2
    assert caught.value.index is None


def test_a_message_by_a_developer_is_a_systems() -> None:
    assert Message(cast("Role", "developer"), "Be brief.") == SYSTEM


# The newest of a conversation


@given(sendable)
def test_a_history_without_a_limit_is_all_of_it(said: list[Message]) -> None:
    assert list(newest(said, None)) == said


@given(sendable, st.integers(1, 10))
def test_a_limited_history_is_the_newest_from_a_users_message_on(
    said: list[Message], max_history: int
) -> None:
    kept = list(newest(said, max_history))
    spoken = [message for message in said if message.role != "system"]
    spoken_kept = [message for message in kept if message.role != "system"]
    assert 1 <= len(spoken_kept) <= max_history
    assert spoken_kept[0].role == "user"
    assert spoken_kept == spoken[-len(spoken_kept) :]
    # No more than needed is left out: what comes before is too much, or the assistant's.
    reachable = spoken[-max_history : -len(spoken_kept)]
    assert all(message.role == "assistant" for message in reachable)
    assert [m for m in kept if m.role == "system"] == [m for m in said if m.role == "system"]


@given(sendable, st.integers(1, 10))
def test_a_limited_history_keeps_the_order(said: list[Message], max_history: int) -> None:
    rest = iter(said)
    assert all(any(one is other for other in rest) for one in newest(said, max_history))


@pytest.mark.parametrize(
    ("said", "max_history", "kept"),
    [
        pytest.param([HELLO, HI, BYE], 3, [HELLO, HI, BYE], id="all fits"),
        pytest.param([HELLO, HI, BYE], 2, [BYE], id="not from the assistant's on"),
        pytest.param([HELLO, HI, BYE], 1, [BYE], id="one"),
        pytest.param([SYSTEM, HELLO, HI, BYE], 1, [SYSTEM, BYE], id="system is not counted"),
        pytest.param([HI, BYE], 2, [BYE], id="begins with the assistant and fits"),
        pytest.param([HELLO, HI, HI, HI, BYE], 4, [BYE], id="several of the assistant's"),
        pytest.param(
            [HELLO, HI, HELLO, SYSTEM, HI, BYE], 3, [HELLO, SYSTEM, HI, BYE], id="system in between"
        ),
    ],
)
def test_a_limited_history(said: list[Message], max_history: int, kept: list[Message]) -> None:
    assert list(newest(said, max_history)) == kept


# The dialects


def oracle_native(said: Sequence[Message]) -> list[dict[str, object]]:
    """The rule of docs/protocol.md, read aloud."""
    system = [message.text for message in said if message.role == "system"]
    wire: list[dict[str, object]] = []
    spoken = [message for message in said if message.role != "system"]
    for role, neighbours in groupby(spoken, key=lambda message: message.role):
        turn = [message.text for message in neighbours]
        if role == "user":
            turn, system = system + turn, []
        text = "\n\n".join(text for text in turn if text != "")
        wire.append({"role": {"assistant": "model"}.get(role, role), "parts": [{"text": text}]})
    return wire


def oracle_prompt(said: Sequence[Message]) -> str:
    """The flattened rule, read aloud."""
    if len(said) == 1:
        return said[0].text
    names = {"system": "System", "user": "User", "assistant": "Assistant"}
    prompt = ""
    for message in said:
        prompt += names[message.role] + ": " + message.text + "\n"
    return prompt + "Assistant:"


def oracle(said: Sequence[Message], encoding: Encoding) -> list[dict[str, object]]:
    if encoding == "content":
        return [{"role": message.role, "content": message.text} for message in said]
    if encoding == "flattened":
        return [{"role": "user", "parts": [{"text": oracle_prompt(said)}]}]
    return oracle_native(said)


def wire_text(message: Mapping[str, object]) -> str:
    """A wire message's text, of either dialect."""
    if "content" in message:
        return cast("str", message["content"])
    return "".join(part["text"] for part in cast("list[dict[str, str]]", message["parts"]))


@given(sendable, encodings)
def test_a_conversation_is_written_by_its_dialects_rule(
    said: list[Message], encoding: Encoding
) -> None:
    assert json.loads(wire_json(said, encoding)) == oracle(said, encoding)


@given(sendable, encodings)
def test_the_signed_text_is_that_of_the_last_message_on_the_wire(
    said: list[Message], encoding: Encoding
) -> None:
    pieces, signed_text = encode(said, encoding)
    last = json.loads(b"".join(pieces))[-1]
    assert last["role"] == "user"
    assert signed_text == wire_text(last)


@given(sendable)
def test_native_roles_take_turns(said: list[Message]) -> None:
    roles = [message["role"] for message in json.loads(wire_json(said, "native"))]
    assert set(roles) <= {"user", "model"}
    assert all(one != other for one, other in pairwise(roles))


@given(sendable, encodings)
def test_nothing_of_a_conversation_is_lost(said: list[Message], encoding: Encoding) -> None:
    wire = json.loads(wire_json(said, encoding))
    written = "\n\n".join(wire_text(message) for message in wire)
    # Each kind in its order: the native dialect puts system text elsewhere.
    for is_system in (True, False):
        at = 0
        for message in said:
            if (message.role == "system") is is_system:
                assert message.text in written[at:]
                at = written.index(message.text, at) + len(message.text)


@given(sendable, encodings)
def test_the_json_has_no_needless_byte(said: list[Message], encoding: Encoding) -> None:
    compact = json.dumps(oracle(said, encoding), ensure_ascii=False, separators=(",", ":"))
    assert wire_json(said, encoding) == compact.encode()


@pytest.mark.parametrize(
    ("said", "wire"),
    [
        pytest.param([HELLO], [("user", "Hello")], id="one message"),
        pytest.param(
            [HELLO, HI, BYE], [("user", "Hello"), ("model", "Hi!"), ("user", "Bye")], id="turns"
        ),
        pytest.param([HELLO, BYE], [("user", "Hello\n\nBye")], id="neighbours are merged"),
        pytest.param(
            [HELLO, HI, HI, BYE],
            [("user", "Hello"), ("model", "Hi!\n\nHi!"), ("user", "Bye")],
            id="the assistant's neighbours too",
        ),
        pytest.param([SYSTEM, HELLO], [("user", "Be brief.\n\nHello")], id="system goes in front"),
        pytest.param(
            [SYSTEM, SYSTEM, HELLO], [("user", "Be brief.\n\nBe brief.\n\nHello")], id="two systems"
        ),
        pytest.param(
            [HELLO, HI, SYSTEM, BYE],
            [("user", "Be brief.\n\nHello"), ("model", "Hi!"), ("user", "Bye")],
            id="a late system goes to the first user message",
        ),
        pytest.param(
            [HELLO, SYSTEM, BYE],
            [("user", "Be brief.\n\nHello\n\nBye")],
            id="neighbours around a system are neighbours",
        ),
        pytest.param(
            [SYSTEM, HI, BYE],
            [("model", "Hi!"), ("user", "Be brief.\n\nBye")],
            id="an assistant that begins",
        ),
        pytest.param(
            [Message("system", ""), HELLO, Message("user", "")],
            [("user", "Hello")],
            id="empty messages leave no blank lines",
        ),
        pytest.param([Message("user", "")], [("user", "")], id="an empty message"),
        pytest.param(
            [Message("user", ""), Message("user", "")], [("user", "")], id="nothing but empty ones"
        ),
        pytest.param(
            [Message("user", ""), HI, BYE],
            [("user", ""), ("model", "Hi!"), ("user", "Bye")],
            id="an empty turn stays a turn",
        ),
        pytest.param(
            [Message("user", "\n"), BYE], [("user", "\n\n\nBye")], id="white space is kept as it is"
        ),
    ],
)
def test_native(said: list[Message], wire: list[tuple[str, str]]) -> None:
    pieces, signed_text = encode(said, "native")
    assert json.loads(b"".join(pieces)) == [
        {"role": role, "parts": [{"text": text}]} for role, text in wire
    ]
    assert signed_text == wire[-1][1]


def test_content_leaves_each_message_as_it_is() -> None:
    pieces, signed_text = encode([SYSTEM, HELLO, HI, Message("user", ""), BYE], "content")
    assert json.loads(b"".join(pieces)) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": ""},
        {"role": "user", "content": "Bye"},
    ]
    assert signed_text == "Bye"


PROMPTS = [
    pytest.param([HELLO], "Hello", id="a single message is its text alone"),
    pytest.param([Message("user", "")], "", id="even an empty one"),
    pytest.param([HELLO, BYE], "User: Hello\nUser: Bye\nAssistant:", id="neighbours stay apart"),
    pytest.param(
        [SYSTEM, HELLO, HI, BYE],
        "System: Be brief.\nUser: Hello\nAssistant: Hi!\nUser: Bye\nAssistant:",
        id="every role",
    ),
    pytest.param(
        [HI, Message("user", "a\nb")], "Assistant: Hi!\nUser: a\nb\nAssistant:", id="line breaks"
    ),
]


@pytest.mark.parametrize(("said", "prompt"), PROMPTS)
def test_flattened(said: list[Message], prompt: str) -> None:
    pieces, signed_text = encode(said, "flattened")
    assert json.loads(b"".join(pieces)) == [{"role": "user", "parts": [{"text": prompt}]}]
    assert signed_text == prompt


@pytest.mark.parametrize(("said", "prompt"), PROMPTS)
def test_format_prompt(said: list[Message], prompt: str) -> None:
    assert format_prompt(said) == prompt


@given(passed())
def test_format_prompt_takes_what_a_client_takes(given: Passed) -> None:
    assert format_prompt(cast("Conversation", given.conversation)) == oracle_prompt(given.messages)


def test_format_prompt_refuses_what_a_client_refuses() -> None:
    with pytest.raises(InvalidMessages) as caught:
        format_prompt([HELLO, HI])
    assert caught.value.index == 1


# Text inside JSON, as a browser's JSON.stringify has it


@pytest.mark.parametrize(
    ("character", "written"),
    [
        ('"', r"\""),
        ("\\", r"\\"),
        ("\b", r"\b"),
        ("\t", r"\t"),
        ("\n", r"\n"),
        ("\f", r"\f"),
        ("\r", r"\r"),
        ("\0", r"\u0000"),
        ("\x07", r"\u0007"),
        ("\v", r"\u000b"),
        ("\x1b", r"\u001b"),
        ("\x1f", r"\u001f"),
    ],
)
def test_a_character_that_json_cannot_hold_is_escaped_as_browsers_do(
    character: str, written: str
) -> None:
    array = wire_json([Message("user", f"a{character}b")], "content")
    assert array == f'[{{"role":"user","content":"a{written}b"}}]'.encode()


@pytest.mark.parametrize(
    "character", list(" /'<>&\x7f\x80\x85\xa0\xadЖ中\u2028\u2029\ufeff\ufffe\uffff🙂\U0010ffff")
)
def test_any_other_character_is_written_as_it_is(character: str) -> None:
    array = wire_json([Message("user", f"a{character}b")], "content")
    assert array == f'[{{"role":"user","content":"a{character}b"}}]'.encode()


@given(st.characters(exclude_characters='"\\', exclude_categories=["Cs", "Cc"]), encodings)
def test_every_printable_character_is_its_own_utf8(character: str, encoding: Encoding) -> None:
    assert b'"%b"' % character.encode() in wire_json([Message("user", character)], encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_russian_prompt_does_not_triple(encoding: Encoding) -> None:
    prompt = "Широкая электрификация южных губерний. " * 100
    envelope = len(wire_json([Message("user", "")], encoding))
    assert len(wire_json([Message("user", prompt)], encoding)) == envelope + len(prompt.encode())
