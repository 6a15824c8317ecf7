"""How far a call over a given client is, by the events of httpx's trace extension."""

import sys
from time import monotonic
from typing import Any

import h11
import httpx
import httpx2
import pytest

from gprochat_core import Cause, ConfigurationError, Phase, SendLimits, TransportError
from gprochat_transports.http11.network import Causes
from gprochat_transports.httpx.call import Call, read_causes
from tests.transports.httpx.clients import make_request

LIBRARIES = [httpx, httpx2]

LIMITS = SendLimits(connect=3.0, first_byte=7.0)

CAUSES: Causes = {OSError: Cause.LOST, h11.RemoteProtocolError: Cause.MALFORMED}


class Sent:
    def __init__(self, method: bytes) -> None:
        self.method = method


EVENTS: list[tuple[str, dict[str, Any], Phase | None]] = [
    ("connection.connect_tcp.started", {}, Phase.CONNECTING),
    ("connection.connect_tcp.complete", {"return_value": "the stream"}, None),
    ("http11.send_request_headers.started", {"request": Sent(b"CONNECT")}, None),
    ("http11.send_request_headers.complete", {}, None),
    ("http11.send_request_body.started", {}, None),
    ("http11.send_request_body.complete", {}, None),
    ("http11.receive_response_headers.started", {}, None),
    ("connection.start_tls.started", {}, None),
    ("connection.start_tls.complete", {}, None),
    ("http11.send_request_headers.started", {"request": Sent(b"POST")}, Phase.SENDING),
    ("http11.send_request_headers.complete", {}, None),
    ("http11.send_request_body.started", {}, None),
    ("http11.send_request_body.complete", {}, Phase.AWAITING_HEAD),
    ("http11.receive_response_headers.started", {}, None),
    ("http11.receive_response_body.started", {}, Phase.READING),
    ("http11.receive_response_body.complete", {}, None),
]


def report(call: Call, error: Exception) -> TransportError:
    with pytest.raises(TransportError) as caught, call.reporting():
        raise error
    assert caught.value.__cause__ is error
    return caught.value


def test_each_event_that_begins_a_phase_is_known() -> None:
    call = Call(CAUSES, LIMITS)
    phase = Phase.WAITING
    for event, info, begun in EVENTS:
        assert call.note(event, info) is begun
        phase = begun or phase
        assert report(call, OSError()).phase is phase


def test_a_connection_that_was_made_for_the_call_is_not_a_reused_one() -> None:
    call = Call(CAUSES, LIMITS)
    assert report(call, OSError()).reused
    call.note(*EVENTS[0][:2])
    assert not report(call, OSError()).reused


def test_a_new_connection_is_remembered_until_it_is_ready_for_the_request() -> None:
    call = Call(CAUSES, LIMITS)
    remembered: list[object] = []
    for event, info, _ in EVENTS:
        call.note(event, info)
        remembered.append(call.connected)
    assert remembered == [None, *["the stream"] * 8, *[None] * 7]


def test_the_request_was_sent_when_the_last_byte_was() -> None:
    call = Call(CAUSES, LIMITS)
    call.sent_at = 0.0
    for event, info, begun in EVENTS:
        call.note(event, info)
        if begun is Phase.AWAITING_HEAD:
            break
        assert call.sent_at == 0.0
    assert 0 < call.sent_at <= monotonic()


def test_httpx_gets_the_limits_in_its_form() -> None:
    assert Call(CAUSES, LIMITS).timeouts == {
        "pool": 3.0,
        "connect": 3.0,
        "write": 7.0,
        "read": 7.0,
    }
    assert set(Call(CAUSES, SendLimits(None, None)).timeouts.values()) == {None}


@pytest.mark.parametrize("link", ["__cause__", "__context__"])
def test_what_h11_refused_is_found_behind_what_httpx_raised(link: str) -> None:
    error, behind = OSError("made up"), OSError()
    setattr(error, link, behind)
    setattr(behind, link, h11.RemoteProtocolError("no HTTP"))
    reported = report(Call(CAUSES, LIMITS), error)
    assert (reported.cause, reported.detail) == (Cause.MALFORMED, "no HTTP")


def test_an_exception_that_is_none_of_the_librarys_passes_through() -> None:
    with pytest.raises(ZeroDivisionError), Call(CAUSES, LIMITS).reporting():
        raise ZeroDivisionError


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_request_has_the_limits_and_its_own_headers(library: Any) -> None:
    call = Call(CAUSES, LIMITS)
    request = make_request("http://chat.example", ("user-agent", "made up"))
    with library.Client(headers={"user-agent": "own", "x-own": "1"}) as client:
        built = call.build(client, request, call.note)
    assert (built.method, str(built.url)) == ("POST", request.url)
    assert (built.headers["user-agent"], built.headers["x-own"]) == ("made up", "1")
    assert built.read() == request.body
    assert built.extensions == {"timeout": call.timeouts, "trace": call.note}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
def test_the_exceptions_are_those_of_the_clients_library(library: Any, kind: str) -> None:
    causes = read_causes(getattr(library, kind)(), kind)
    assert causes[library.TimeoutException] is Cause.TIMED_OUT
    assert causes[library.TransportError] is Cause.LOST
    other = LIBRARIES[library is httpx]
    assert other.TransportError not in causes


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_subclass_of_the_librarys_client_is_a_client_of_it(library: Any) -> None:
    class Own(library.Client):  # type: ignore[misc]
        pass

    assert read_causes(Own(), "Client")


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_that_was_not_imported_is_not(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = LIBRARIES[library is httpx]
    monkeypatch.delitem(sys.modules, other.__name__)
    assert read_causes(library.Client(), "Client")
    assert other.__name__ not in sys.modules


def test_socks_failures_are_known_only_where_the_library_for_socks_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def names() -> set[str]:
        return {each.__name__ for each in read_causes(httpx.Client(), "Client")}

    assert "SOCKSError" in names()
    monkeypatch.setitem(sys.modules, "socksio", None)
    assert "SOCKSError" not in names()


@pytest.mark.parametrize(
    ("client", "kind", "said"),
    [
        (httpx.Client(), "AsyncClient", "an httpx.AsyncClient, not a Client"),
        (httpx2.AsyncClient(), "Client", "an httpx.Client, not a AsyncClient"),
        ("http://chat.example", "Client", "an httpx.Client, not a str"),
    ],
)
def test_what_is_no_such_client_is_refused(client: object, kind: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read_causes(client, kind)
