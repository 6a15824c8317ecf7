"""One HTTP/1.1 connection over a stream without a socket."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf
from ssl import create_default_context

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprochat_core import Cause, Phase, SendLimits, TransportError
from gprochat_transports.http11.connection import Connection
from gprochat_transports.http11.network import WRITE_SIZE
from gprochat_transports.sync import run
from tests.peers.wire import answer, chunk, chunked, head
from tests.transports.http11.fake import (
    CAUSES,
    LIMITS,
    REQUEST,
    FakeStream,
    FakeWatchdog,
    Incoming,
)

MAX_HEAD = 1000


def connect(stream: FakeStream, watchdog: FakeWatchdog | None = None) -> Connection:
    return Connection(stream, watchdog or FakeWatchdog(), CAUSES, MAX_HEAD)


async def read_all(connection: Connection) -> bytes:
    body = b""
    while data := await connection.read(None):
        body += data
    return body


async def call(connection: Connection) -> bytes:
    await connection.send(REQUEST, LIMITS)
    return await read_all(connection)


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    """Cut bytes at these places, as far as they have them."""
    places = [0, *sorted({place for place in at if 0 < place < len(data)}), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=30), max_size=4),
    framing=st.sampled_from(["chunked", "content-length", "until closed"]),
    at=st.lists(st.integers(1, 300), max_size=20),
)
def test_an_answer_is_the_same_however_it_is_cut(
    pieces: list[bytes], framing: str, at: list[int]
) -> None:
    body = b"".join(pieces)
    wire = {
        "chunked": chunked(*pieces),
        "content-length": answer(200, body),
        "until closed": head(200, "connection: close") + body,
    }[framing]
    connection = connect(FakeStream(*cut(wire, at)))
    response, _ = run(connection.send(REQUEST, LIMITS))
    assert response.status_code == 200
    assert run(read_all(connection)) == body
    assert connection.renew() is (framing != "until closed")


def test_a_request_has_the_host_its_own_headers_and_its_length() -> None:
    stream = FakeStream(chunked("fine"))
    run(connect(stream).send(REQUEST, LIMITS))
    assert b"".join(stream.sent) == (
        b"POST /api/generate HTTP/1.1\r\n"
        b"host: chat.example:8000\r\naccept: */*\r\ncontent-length: 8\r\n\r\n"
        b"the body"
    )


def test_a_proxy_that_forwards_gets_the_whole_url_and_its_password() -> None:
    stream = FakeStream(chunked("fine"))
    connection = connect(stream)
    connection.forward_headers = [("Proxy-Authorization", "Basic made-up")]
    run(connection.send(REQUEST, LIMITS))
    line, *fields = stream.heads[0].split("\r\n")
    assert line == f"POST {REQUEST.url} HTTP/1.1"
    assert fields[:1] == ["host: chat.example:8000"]
    assert "Proxy-Authorization: Basic made-up" in fields


def test_the_response_comes_with_the_time_when_the_last_byte_was_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter(range(100))
    monkeypatch.setattr(
        "gprochat_transports.http11.connection.monotonic", lambda: float(next(times))
    )
    stream = FakeStream(lambda: chunked(str(next(times))))
    _, sent_at = run(connect(stream).send(REQUEST, LIMITS))
    # Before the first byte of the answer, and after the one part of the request.
    assert sent_at == 1


def test_a_long_request_is_sent_in_parts_each_within_a_time_limit_of_its_own() -> None:
    request = replace(REQUEST, body=bytes(3 * WRITE_SIZE))
    stream, watchdog = FakeStream(chunked("fine")), FakeWatchdog()
    connection = connect(stream, watchdog)
    run(connection.send(request, LIMITS))
    assert [len(data) for data in stream.sent[:-1]] == [WRITE_SIZE] * 3
    assert b"".join(stream.sent).partition(b"\r\n\r\n")[2] == request.body
    # And one for the head.
    assert watchdog.limits == [7.0] * (len(stream.sent) + 1)
    assert connection.deadline == inf


def test_all_parts_together_are_within_the_limit_of_the_whole_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr("gprochat_transports.http11.connection.monotonic", lambda: next(times))
    watchdog = FakeWatchdog()
    connection = connect(FakeStream(chunked("fine")), watchdog)
    limits = SendLimits(connect=None, first_byte=7.0, deadline=9.0)
    run(connection.send(replace(REQUEST, body=bytes(2 * WRITE_SIZE)), limits))
    assert watchdog.limits == [7.0, 7.0, 6.0, 5.0]


def test_each_read_has_the_time_limit_that_it_was_given() -> None:
    watchdog = FakeWatchdog()
    connection = connect(FakeStream(head(200, "content-length: 2"), b"a", b"b"), watchdog)
    run(connection.send(REQUEST, LIMITS))
    watchdog.limits.clear()
    assert [run(connection.read(seconds)) for seconds in (1.0, None, 3.0)] == [b"a", b"b", b""]
    assert watchdog.limits == [1.0, None, 3.0]
    assert connection.deadline == inf


def test_informational_responses_are_passed_over() -> None:
    stream = FakeStream(head(100), head(103, "link: </style.css>"), chunked("fine"))
    connection = connect(stream)
    response, _ = run(connection.send(REQUEST, LIMITS))
    assert response.status_code == 200
    assert run(read_all(connection)) == b"fine"


def test_a_second_request_follows_a_whole_answer() -> None:
    stream = FakeStream(chunked("one"), chunked("two"))
    connection = connect(stream)
    for body in (b"one", b"two"):
        run(connection.send(REQUEST, LIMITS))
        assert run(read_all(connection)) == body
        assert connection.renew()
        assert connection.reused
    assert len(stream.sent) == 2


@pytest.mark.parametrize(
    ("incoming", "reads"),
    [
        ([chunked("fine") + b"H"], 2),
        ([chunked("fine") + chunked("unsolicited")], 2),
        ([chunked("fine", fields=("connection: close",))], 2),
        ([chunked("fine").replace(b"HTTP/1.1", b"HTTP/1.0")], 2),
        ([head(200, "transfer-encoding: chunked") + chunk("fine")], 1),
        ([chunked("fine")], 0),
    ],
    ids=["bytes behind", "answer behind", "close", "HTTP/1.0", "half a body", "unread body"],
)
def test_no_request_follows_an_answer_that_is_not_whole_or_not_the_last_that_came(
    incoming: list[bytes], reads: int
) -> None:
    connection = connect(FakeStream(*incoming))
    run(connection.send(REQUEST, LIMITS))
    for _ in range(reads):
        run(connection.read(None))
    assert not connection.renew()
    assert not connection.reused


def test_no_request_follows_one_that_failed() -> None:
    connection = connect(FakeStream())
    with pytest.raises(TransportError):
        run(connection.send(REQUEST, LIMITS))
    assert not connection.renew()


def test_a_connection_is_silent_while_nothing_arrives() -> None:
    stream = FakeStream()
    connection = connect(stream)
    assert connection.is_silent()
    stream.readable = True
    assert not connection.is_silent()


HEAD = head(200, "transfer-encoding: chunked")

FAILURES: dict[str, tuple[list[Incoming], bool, Phase, Cause]] = {
    # What arrives, whether sending fails, and what is reported.
    "reset while sending": ([], True, Phase.SENDING, Cause.LOST),
    "reset": ([ConnectionResetError()], False, Phase.AWAITING_HEAD, Cause.LOST),
    "time limit": ([TimeoutError()], False, Phase.AWAITING_HEAD, Cause.TIMED_OUT),
    "closed": ([b""], False, Phase.AWAITING_HEAD, Cause.LOST),
    "closed in the head": ([HEAD[:20], b""], False, Phase.AWAITING_HEAD, Cause.LOST),
    "closed after a 103": ([head(103), b""], False, Phase.AWAITING_HEAD, Cause.LOST),
    "no HTTP": ([b"220 mail ESMTP\r\n\r\n"], False, Phase.AWAITING_HEAD, Cause.MALFORMED),
    "long head": ([b"HTTP/1.1 2", b"0" * MAX_HEAD], False, Phase.AWAITING_HEAD, Cause.MALFORMED),
    "reset in the body": (
        [HEAD + chunk("a"), ConnectionResetError()],
        False,
        Phase.READING,
        Cause.LOST,
    ),
    "time limit in the body": (
        [HEAD + chunk("a"), TimeoutError()],
        False,
        Phase.READING,
        Cause.TIMED_OUT,
    ),
    "closed in the body": ([HEAD + chunk("a"), b""], False, Phase.READING, Cause.LOST),
    "closed before the length": (
        [head(200, "content-length: 2") + b"a", b""],
        False,
        Phase.READING,
        Cause.LOST,
    ),
    "no chunk": ([HEAD + chunk("a"), b"nonsense\r\n"], False, Phase.READING, Cause.MALFORMED),
}


@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize("name", FAILURES)
def test_each_failure_is_reported_with_its_cause_its_phase_and_whether_reused(
    name: str, reused: bool
) -> None:
    incoming, sending_fails, phase, cause = FAILURES[name]
    sending = [None] * reused + [fail] * sending_fails
    stream = FakeStream(*[chunked("fine")] * reused, *incoming, sending=sending)
    connection = connect(stream)
    if reused:
        run(call(connection))
        assert connection.renew()
    with pytest.raises(TransportError) as caught:
        run(call(connection))
    error = caught.value
    assert (error.cause, error.phase, error.reused) == (cause, phase, reused)
    assert isinstance(error.__cause__, tuple(CAUSES))
    assert error.detail
    assert connection.deadline == inf


def fail() -> None:
    raise BrokenPipeError("made up")


def test_a_peer_that_closes_without_an_answer_is_said_to_have_done_so() -> None:
    with pytest.raises(TransportError, match="closed without an answer"):
        run(connect(FakeStream()).send(REQUEST, LIMITS))


@pytest.mark.parametrize("phase", [Phase.SENDING, Phase.AWAITING_HEAD, Phase.READING])
def test_what_the_watchdog_ended_is_reported_as_timed_out(phase: Phase) -> None:
    def expire() -> bytes:
        run(connection.expire())
        raise ConnectionAbortedError("closed here")

    steps: dict[Phase, tuple[list[Incoming], list[Callable[[], object]]]] = {
        Phase.SENDING: ([], [expire]),
        Phase.AWAITING_HEAD: ([expire], []),
        Phase.READING: ([HEAD, expire], []),
    }
    incoming, sending = steps[phase]
    stream, watchdog = FakeStream(*incoming, sending=sending), FakeWatchdog()
    connection = connect(stream, watchdog)
    with pytest.raises(TransportError) as caught:
        run(call(connection))
    assert (caught.value.cause, caught.value.phase) == (Cause.TIMED_OUT, phase)
    assert stream.closed == 1
    assert watchdog.waits == set()


def test_a_connection_that_was_ended_sets_no_further_deadline() -> None:
    """The send under way may still succeed, and the next part must not wake the watchdog."""
    stream = FakeStream(chunked("fine"), sending=[lambda: run(connection.expire())])
    connection = connect(stream)
    run(connection.send(replace(REQUEST, body=bytes(2 * WRITE_SIZE)), LIMITS))
    assert connection.deadline == inf
    assert connection.timed_out


def test_the_watchdog_watches_a_connection_until_it_is_closed() -> None:
    stream, watchdog = FakeStream(), FakeWatchdog()
    connection = connect(stream, watchdog)
    assert watchdog.waits == {connection}
    run(connection.aclose())
    assert watchdog.waits == set()
    assert stream.closed == 1


def test_through_a_tunnel_the_connection_begins_anew() -> None:
    stream = FakeStream(head(200), chunked("fine"))
    connection = connect(stream)
    run(connection.open_tunnel("chat.example:443", "http://user:made-up@proxy.example"))
    context = create_default_context()
    run(connection.start_tls(context, "chat.example"))
    run(connection.send(REQUEST, LIMITS))
    assert stream.tls == [(context, "chat.example")]
    connect_head, post_head = stream.heads
    assert connect_head == (
        "CONNECT chat.example:443 HTTP/1.1\r\nhost: chat.example:443\r\n"
        "Proxy-Authorization: Basic dXNlcjptYWRlLXVw"
    )
    assert post_head.startswith("POST /api/generate HTTP/1.1\r\n")
    assert "Authorization" not in post_head
    assert not connection.reused


@pytest.mark.parametrize("status", [301, 403, 407, 502])
def test_a_tunnel_that_the_proxy_refuses_is_an_error_with_its_answer(status: int) -> None:
    connection = connect(FakeStream(head(status, "content-length: 0")))
    with pytest.raises(ConnectionError, match=f"the proxy answered {status} Whatever"):
        run(connection.open_tunnel("chat.example:443", "http://proxy.example"))


def test_any_success_opens_a_tunnel() -> None:
    run(connect(FakeStream(head(204))).open_tunnel("chat.example:443", "http://proxy.example"))


def test_a_proxy_that_closes_opens_no_tunnel() -> None:
    with pytest.raises(ConnectionError, match="closed without an answer"):
        run(connect(FakeStream()).open_tunnel("chat.example:443", "http://proxy.example"))
