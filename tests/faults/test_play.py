"""Playing a row fails where the row does not hold."""

from dataclasses import replace

import pytest

from gprochat_core import ConnectError, ServiceFailed, TruncatedReply
from tests.contract.adapters import ADAPTERS, Adapter
from tests.faults.fault import Case, Expected, Fault
from tests.faults.peer import hang_up
from tests.faults.play import play
from tests.peers.scripted import send
from tests.peers.wire import answer, chunk, head

BREAKS_OFF = Fault(
    "breaks off",
    [
        Case(
            "",
            [[send(head(200, "transfer-encoding: chunked") + chunk("abc")), hang_up]],
            Expected(TruncatedReply, "abc"),
        )
    ],
)


@pytest.fixture
def adapter() -> Adapter:
    return next(adapter for adapter in ADAPTERS if adapter.name == "trio@trio")


def expecting(expected: Expected) -> Fault:
    return replace(BREAKS_OFF, cases=[replace(BREAKS_OFF.cases[0], expected=expected)])


def test_a_row_that_holds_is_played_through(adapter: Adapter) -> None:
    play(BREAKS_OFF, adapter)


@pytest.mark.parametrize(
    "expected",
    [
        pytest.param(Expected(None, "abc"), id="no-error"),
        pytest.param(Expected(ConnectError, "abc"), id="another-error"),
        pytest.param(Expected(TruncatedReply, "ab"), id="another-text"),
        pytest.param(Expected(TruncatedReply, "abc", attempts=2), id="more-attempts"),
        pytest.param(Expected(TruncatedReply, "abc", seen=2), id="more-attempts-seen"),
        pytest.param(Expected(TruncatedReply, "abc", attributes={"text": "x"}), id="attribute"),
        pytest.param(Expected(TruncatedReply, "abc", seconds=5.0), id="another-time"),
    ],
)
def test_a_row_that_does_not_hold_is_noticed(adapter: Adapter, expected: Expected) -> None:
    with pytest.raises(AssertionError):
        play(expecting(expected), adapter)


def test_an_exception_takes_the_place_of_what_is_expected_elsewhere(adapter: Adapter) -> None:
    wrong, right = Expected(None, "abc"), Expected(TruncatedReply, "abc")
    case = replace(
        BREAKS_OFF.cases[0], expected=wrong, exceptions={adapter.name: (right, "for a reason")}
    )
    play(replace(BREAKS_OFF, cases=[case]), adapter)


def test_a_connection_that_must_not_be_kept_is_noticed(
    adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Expected(ServiceFailed, attributes={"status": 501})
    kept = Fault("501", [Case("", [[send(answer(501))]], expected)])
    play(kept, adapter)
    monkeypatch.setattr("tests.faults.play.is_final", lambda error: True)
    monkeypatch.setattr("tests.faults.play.SOON", 0.05)
    with pytest.raises(AssertionError, match="left open"):
        play(kept, adapter)
