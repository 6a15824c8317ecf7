"""One tree of errors, each of which says what it carries, and still does after a journey."""

import copy
import inspect
import pickle
from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gprochat_core
from gprochat_core import (
    AuthenticationError,
    BadRequest,
    Cause,
    ConfigurationError,
    ConnectError,
    ConnectTimeout,
    GPROChatError,
    IncompleteReply,
    InterruptedReply,
    InvalidMessages,
    NotTheService,
    PasswordRejected,
    Phase,
    RateLimited,
    ReplyTimeout,
    ReplyTooLong,
    ResponseError,
    ServiceFailed,
    SignatureRejected,
    TransportError,
    TruncatedReply,
    UsageError,
    errors,
)

from .strategies import texts

TREE: Final[dict[type[BaseException], tuple[type[BaseException], ...]]] = {
    GPROChatError: (Exception,),
    ConfigurationError: (GPROChatError, ValueError),
    UsageError: (GPROChatError, RuntimeError),
    InvalidMessages: (GPROChatError, ValueError),
    ConnectError: (GPROChatError,),
    ConnectTimeout: (ConnectError,),
    ResponseError: (GPROChatError,),
    BadRequest: (ResponseError,),
    AuthenticationError: (ResponseError,),
    SignatureRejected: (AuthenticationError,),
    PasswordRejected: (AuthenticationError,),
    RateLimited: (ResponseError,),
    ServiceFailed: (ResponseError,),
    NotTheService: (ResponseError,),
    IncompleteReply: (GPROChatError,),
    ReplyTimeout: (IncompleteReply,),
    TruncatedReply: (IncompleteReply,),
    InterruptedReply: (IncompleteReply,),
    ReplyTooLong: (IncompleteReply,),
}

CARRIED: Final[dict[str, st.SearchStrategy[object]]] = {
    "index": st.integers(0),
    "position": st.integers(0),
    "seconds": st.floats(0, 1e9),
    "status": st.integers(100, 599),
    "message": texts,
    "code": texts,
    "clock_skew": st.floats(-1e9, 1e9),
    "retry_after": st.floats(0, 1e9),
    "location": texts,
    "permanent": st.booleans(),
    "text": texts,
    "limit": st.sampled_from(["first_byte", "idle", "total"]),
}
"""What errors carry, by attribute."""


def descendants(error: type[GPROChatError]) -> Iterator[type[GPROChatError]]:
    """An error and all the library's that descend from it."""
    yield error
    for each in error.__subclasses__():
        if each.__module__.startswith("gprochat_core."):
            yield from descendants(each)


RESPONSE: Final = {
    "status",
    "message",
    "code",
    "retry_after",
    "clock_skew",
    "location",
    "permanent",
}

ERRORS: Final = sorted(set(descendants(GPROChatError)), key=lambda error: error.__name__)


def attributes(error: type[BaseException]) -> dict[str, inspect.Parameter]:
    """What an error carries: the keywords that it is made with."""
    parameters = inspect.signature(error.__init__).parameters.values()
    return {one.name: one for one in parameters if one.kind is one.KEYWORD_ONLY}


def test_the_tree_has_the_documented_errors_and_no_others() -> None:
    assert {error: error.__bases__ for error in ERRORS} == TREE


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_can_be_imported_from_the_package(error: type[GPROChatError]) -> None:
    assert getattr(gprochat_core, error.__name__) is error
    assert error.__name__ in gprochat_core.__all__
    assert error.__name__ in errors.__all__


@pytest.mark.parametrize(
    ("error", "carried"),
    [
        (GPROChatError, set[str]()),
        (ConfigurationError, set[str]()),
        (UsageError, set[str]()),
        (InvalidMessages, {"index", "position"}),
        (ConnectError, set[str]()),
        (ConnectTimeout, {"seconds"}),
        *[(error, RESPONSE) for error in descendants(ResponseError)],
        (IncompleteReply, {"text"}),
        (ReplyTimeout, {"text", "limit", "seconds"}),
        (TruncatedReply, {"text"}),
        (InterruptedReply, {"text"}),
        (ReplyTooLong, {"text"}),
    ],
)
def test_an_error_carries_what_a_program_needs_to_decide(
    error: type[GPROChatError], carried: set[str]
) -> None:
    assert set(attributes(error)) == carried
    assert set(vars(error("what happened"))) == carried


@pytest.mark.parametrize("error", ERRORS)
def test_what_an_error_was_not_told_is_none_or_empty(error: type[GPROChatError]) -> None:
    made = vars(error("what happened"))
    assert made == {name: one.default for name, one in attributes(error).items()}
    assert all(not value for name, value in made.items() if name != "limit")


# All errors share the code that this tests, so each draws only a part of the examples.
@pytest.mark.parametrize("error", ERRORS)
@settings(max_examples=max(5, settings().max_examples // 5))
@given(data=st.data())
def test_an_error_is_the_same_after_pickling_and_copying(
    error: type[GPROChatError], data: st.DataObject
) -> None:
    carried = {name: data.draw(CARRIED[name], name) for name in attributes(error)}
    what = data.draw(texts, "what")
    made = error(what, **carried)
    assert vars(made) == carried
    assert str(made) == what
    journeys = [pickle.loads(pickle.dumps(made, protocol)) for protocol in range(2, 6)]
    for arrived in [*journeys, copy.copy(made), copy.deepcopy(made)]:
        assert type(arrived) is error
        assert str(arrived) == what
        assert arrived.args == (what,)
        assert vars(arrived) == carried


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_says_what_it_is_and_describes_itself(error: type[GPROChatError]) -> None:
    assert repr(error("what happened")) == f"{error.__name__}('what happened')"
    assert error.__doc__


@pytest.mark.parametrize("error", ERRORS)
def test_an_attribute_is_described_where_it_is_introduced(error: type[GPROChatError]) -> None:
    inherited = {name for base in error.__bases__ for name in attributes(base)}
    described = inspect.getdoc(error) or ""
    introduced = attributes(error).keys() - inherited
    assert {name for name in introduced if f"\n    {name}: " in described} == introduced


@pytest.mark.parametrize("error", [InvalidMessages, ConfigurationError])
def test_a_wrong_argument_is_a_value_error(error: type[GPROChatError]) -> None:
    assert issubclass(error, ValueError)


def test_a_transports_failure_is_not_part_of_the_tree() -> None:
    assert not issubclass(TransportError, GPROChatError)


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("phase", Phase)
def test_a_transports_error_is_the_same_after_pickling_and_copying(
    cause: Cause, phase: Phase
) -> None:
    made = TransportError(cause, phase, reused=True, detail="connection reset")
    for arrived in (pickle.loads(pickle.dumps(made)), copy.copy(made), copy.deepcopy(made)):
        assert type(arrived) is TransportError
        assert vars(arrived) == vars(made)
        assert str(arrived) == str(made)


def test_a_transports_error_says_what_failed_and_when() -> None:
    error = TransportError(Cause.LOST, Phase.SENDING)
    assert (error.reused, error.detail) == (False, "")
    assert str(error) == "connection lost while sending the request"
    error.detail = "reset by peer"
    assert str(error) == "connection lost while sending the request: reset by peer"


class LibraryError(Exception):
    """The base of a library's exceptions."""


class LibraryTimeout(LibraryError, TimeoutError):
    """An exception with two bases that a table names."""


CAUSES: Final[dict[type[Exception], Cause]] = {
    Exception: Cause.UNSOLICITED,
    OSError: Cause.LOST,
    LibraryError: Cause.MALFORMED,
    TimeoutError: Cause.TIMED_OUT,
}


@pytest.mark.parametrize("causes", [CAUSES, dict(reversed(CAUSES.items()))])
@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError("words"), Cause.LOST),
        (ConnectionResetError("words"), Cause.LOST),
        (TimeoutError("words"), Cause.TIMED_OUT),
        (LibraryError("words"), Cause.MALFORMED),
        (LibraryTimeout("words"), Cause.MALFORMED),
        (ValueError("words"), Cause.UNSOLICITED),
    ],
)
def test_a_librarys_exception_has_the_cause_of_its_nearest_class_in_the_table(
    error: Exception, cause: Cause, causes: dict[type[Exception], Cause]
) -> None:
    wrapped = TransportError.wrap(error, causes, Phase.SENDING, reused=True)
    assert vars(wrapped) == {
        "cause": cause,
        "phase": Phase.SENDING,
        "reused": True,
        "detail": "words",
    }


def test_a_connection_counts_as_new_unless_it_is_told_to_be_reused() -> None:
    assert not TransportError.wrap(LibraryError(), CAUSES, Phase.SENDING).reused
    assert not TransportError(Cause.LOST, Phase.SENDING).reused


def test_an_exception_without_words_has_those_of_what_caused_it_or_its_name() -> None:
    caused, in_context, alone = LibraryError(), LibraryError(), LibraryError()
    caused.__cause__ = OSError()
    caused.__cause__.__context__ = OSError("reset by peer")
    in_context.__context__ = OSError("reset by peer")
    details = [
        TransportError.wrap(error, CAUSES, Phase.SENDING).detail
        for error in (caused, in_context, alone)
    ]
    assert details == ["reset by peer", "reset by peer", "LibraryError"]


def test_everything_listed_exists() -> None:
    for module in (gprochat_core, errors):
        assert len(module.__all__) == len(set(module.__all__))
        assert all(hasattr(module, name) for name in module.__all__)
