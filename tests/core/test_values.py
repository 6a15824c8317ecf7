"""Frozen values: equality, immutability, copies, and what is never shown."""

import copy
import pickle
from typing import Final

import pytest

from gprochat_core import Limits, Message, Request, RetryPolicy, Service, Timeouts
from gprochat_core.values import Value

VALUES: Final[list[Value]] = [
    Message("user", "Hello"),
    Service("https://chat.example/a/", "key", "password", "content", 3),
    Timeouts(connect=1, first_byte=2, idle=3, total=4),
    RetryPolicy(max_attempts=4, base_delay=1, max_delay=2, max_retry_after=3),
    Limits(max_reply_bytes=1, max_head_bytes=2, max_connections=3),
    Request("POST", "https://chat.example", (("accept", "*/*"),), b"{}"),
]

each_value = pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)


@each_value
def test_a_value_equals_and_hashes_as_one_made_of_equals(value: Value) -> None:
    other = value.replace()
    assert other is not value
    assert other == value
    assert {other: "found"}[value] == "found"


@each_value
def test_a_value_with_one_argument_changed_is_another(value: Value) -> None:
    others = {
        "role": "assistant",
        "url": "https://other.example",
        "encoding": "native",
        "headers": (),
    }
    for name in value.__match_args__:
        was = getattr(value, name)
        changed = was + 1 if isinstance(was, int) else others.get(name, was + was)
        other = value.replace(**{name: changed})
        assert other != value, name
        assert hash(other) != hash(value), name


def test_values_of_two_classes_are_never_equal() -> None:
    class Place(Value):
        __slots__ = ()

    class Other(Value):
        __slots__ = ()

    assert Place() == Place()
    assert Place() != Other()
    assert Place() != ()


@each_value
def test_a_value_does_not_change(value: Value) -> None:
    name = value.__match_args__[0]
    before = getattr(value, name)
    with pytest.raises(AttributeError, match=r"does not change.*replace"):
        setattr(value, name, before)
    with pytest.raises(AttributeError, match=r"does not change.*replace"):
        delattr(value, name)
    assert not hasattr(value, "__dict__")
    assert getattr(value, name) == before


@each_value
def test_a_value_is_the_same_after_pickling_and_copying(value: Value) -> None:
    journeys = [pickle.loads(pickle.dumps(value, protocol)) for protocol in range(6)]
    for arrived in [*journeys, copy.copy(value), copy.deepcopy(value)]:
        assert type(arrived) is type(value)
        assert arrived == value


@each_value
def test_a_value_shows_its_arguments_but_not_its_secrets(value: Value) -> None:
    shown = repr(value)
    assert shown.startswith(f"{type(value).__name__}(")
    for name in value.__match_args__:
        told = f"{name}={getattr(value, name)!r}"
        assert (told in shown) is (name not in value.SECRETS), name


def test_replacing_takes_no_unknown_argument_and_checks_as_making_does() -> None:
    with pytest.raises(TypeError):
        Timeouts().replace(patience=3)
    with pytest.raises(ValueError, match="connect"):
        Timeouts().replace(connect=-1)


def test_a_value_is_taken_apart_by_its_arguments_in_order() -> None:
    match Message("user", "Hello"):
        case Message(role, text):
            assert (role, text) == ("user", "Hello")
