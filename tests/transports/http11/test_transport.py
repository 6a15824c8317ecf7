"""Requests over a pool's connections, on a network without sockets."""

from collections.abc import Callable
from dataclasses import replace
from ssl import CERT_REQUIRED, SSLError, create_default_context

import h11
import pytest

from gprochat_core import Cause, Limits, Phase, TransportError
from gprochat_transports.http11.transport import Http11Response, Http11Transport, system_context
from gprochat_transports.options import Settings
from gprochat_transports.sync import run
from tests.peers.wire import chunk, chunked, head
from tests.transports.http11.fake import LIMITS, REQUEST, FakeNetwork, FakeStream

HTTPS = replace(REQUEST, url="https://chat.example/api/generate")

PROXY = "http://user:made%20up@proxy.example:3128"

CREDENTIALS = "Proxy-Authorization: Basic dXNlcjptYWRlIHVw"


class OwnError(Exception):
    """An exception that is none of the network's."""


def make_transport(
    network: FakeNetwork, *, proxy: str | None = None, max_connections: int = 1
) -> Http11Transport:
    limits = Limits(max_connections=max_connections)
    return Http11Transport(network, Settings(limits=limits), proxy)


async def read_all(response: Http11Response) -> bytes:
    body = b""
    while data := await response.read(None):
        body += data
    await response.aclose()
    return body


def ask(transport: Http11Transport) -> bytes:
    """Make a whole call, and return the reply."""
    return run(read_all(run(transport.send(REQUEST, LIMITS))))


def fail(transport: Http11Transport, url: str = REQUEST.url) -> tuple[Cause, Phase, bool, str]:
    """Make a call that fails, and return what is reported."""
    with pytest.raises(TransportError) as caught:
        run(transport.send(replace(REQUEST, url=url), LIMITS))
    error = caught.value
    assert error.__cause__ is not None
    return error.cause, error.phase, error.reused, error.detail


def test_a_response_has_a_head_and_a_body() -> None:
    stream = FakeStream(head(201, "X-Thing: 1", "content-length: 4"), b"fine")
    response = run(make_transport(FakeNetwork(stream)).send(REQUEST, LIMITS))
    assert response.status == 201
    assert list(response.headers) == [(b"x-thing", b"1"), (b"content-length", b"4")]
    assert response.sent_at > 0
    assert run(read_all(response)) == b"fine"


def test_a_connection_whose_reply_was_read_to_its_end_is_used_again() -> None:
    network = FakeNetwork(FakeStream(chunked("one"), chunked("two")))
    transport = make_transport(network)
    assert [ask(transport), ask(transport)] == [b"one", b"two"]
    assert network.connected_to == [("chat.example", 8000, None)]


def test_a_connection_whose_reply_was_not_read_to_its_end_is_closed() -> None:
    first = FakeStream(head(200, "transfer-encoding: chunked") + chunk("a"))
    transport = make_transport(FakeNetwork(first, FakeStream(chunked("two"))))
    response = run(transport.send(REQUEST, LIMITS))
    assert run(response.read(None)) == b"a"
    run(response.aclose())
    assert first.closed == 1
    assert ask(transport) == b"two"


def test_a_connection_on_which_something_arrived_is_not_used_again() -> None:
    first = FakeStream(chunked("one"))
    transport = make_transport(FakeNetwork(first, FakeStream(chunked("two"))))
    assert ask(transport) == b"one"
    first.readable = True
    assert ask(transport) == b"two"
    assert first.closed == 1


def test_coming_to_a_connection_is_within_one_time_limit() -> None:
    network = FakeNetwork(FakeStream(chunked("fine")))
    ask(make_transport(network))
    assert network.time_limits == [LIMITS.connect]


@pytest.mark.parametrize(
    ("url", "connected_to"),
    [
        ("http://chat.example/x", ("chat.example", 80, None)),
        ("https://chat.example/x", ("chat.example", 443, None)),
        ("https://chat.example:8443/x", ("chat.example", 8443, None)),
        ("http://[::1]:8000/x", ("::1", 8000, None)),
    ],
)
def test_the_url_says_where_to_connect(url: str, connected_to: tuple[str, int, None]) -> None:
    network = FakeNetwork(FakeStream(chunked("fine")))
    run(make_transport(network).send(replace(REQUEST, url=url), LIMITS))
    assert network.connected_to == [connected_to]


def test_https_begins_with_a_handshake_that_names_the_host() -> None:
    stream, context = FakeStream(chunked("fine")), create_default_context()
    transport = Http11Transport(FakeNetwork(stream), Settings(ssl_context=context), None)
    run(transport.send(HTTPS, LIMITS))
    assert stream.tls == [(context, "chat.example")]


def test_certificates_are_verified_against_the_systems_by_default() -> None:
    stream = FakeStream(chunked("fine"))
    run(make_transport(FakeNetwork(stream)).send(HTTPS, LIMITS))
    context = stream.tls[0][0]
    assert (context.verify_mode, context.check_hostname) == (CERT_REQUIRED, True)
    assert context is system_context()


def test_plain_http_has_no_handshake() -> None:
    stream = FakeStream(chunked("fine"))
    run(make_transport(FakeNetwork(stream)).send(REQUEST, LIMITS))
    assert stream.tls == []


def test_an_http_proxy_forwards_a_request_in_plain_http() -> None:
    stream = FakeStream(chunked("one"), chunked("two"))
    network = FakeNetwork(stream)
    transport = make_transport(network, proxy=PROXY)
    ask(transport)
    ask(transport)
    assert network.connected_to == [("proxy.example", 3128, None)]
    for each in stream.heads:
        assert each.startswith(f"POST {REQUEST.url} HTTP/1.1\r\nhost: chat.example:8000\r\n")
        assert CREDENTIALS in each


@pytest.mark.parametrize(
    ("url", "authority", "host"),
    [
        ("https://chat.example/x", "chat.example:443", "chat.example"),
        ("https://[::1]:8443/x", "[::1]:8443", "::1"),
    ],
)
def test_to_https_an_http_proxy_opens_a_tunnel(url: str, authority: str, host: str) -> None:
    stream = FakeStream(head(200), chunked("fine"))
    network = FakeNetwork(stream)
    run(make_transport(network, proxy=PROXY).send(replace(REQUEST, url=url), LIMITS))
    assert network.connected_to == [("proxy.example", 3128, None)]
    connect, post = stream.heads
    assert connect.startswith(f"CONNECT {authority} HTTP/1.1\r\n")
    assert CREDENTIALS in connect
    assert post.startswith("POST /x HTTP/1.1\r\n")
    # The password is the proxy's, and not for the service to see.
    assert CREDENTIALS not in post
    assert [name for _, name in stream.tls] == [host]


@pytest.mark.parametrize("url", [REQUEST.url, HTTPS.url])
def test_a_proxy_without_a_password_is_told_none(url: str) -> None:
    stream = FakeStream(*[head(200)] * url.startswith("https"), chunked("fine"))
    transport = make_transport(FakeNetwork(stream), proxy="http://proxy.example:3128")
    run(transport.send(replace(REQUEST, url=url), LIMITS))
    assert not any("authorization" in each.lower() for each in stream.heads)


def test_a_socks_proxy_is_the_networks_task() -> None:
    stream, proxy = FakeStream(chunked("fine")), "socks5://user:made-up@proxy.example:1080"
    network = FakeNetwork(stream)
    assert ask(make_transport(network, proxy=proxy)) == b"fine"
    assert network.connected_to == [("chat.example", 8000, proxy)]
    assert stream.heads[0].startswith("POST /api/generate HTTP/1.1\r\n")
    assert "made-up" not in stream.heads[0]


def test_a_socks_proxys_failure_is_reported_whatever_its_class() -> None:
    transport = make_transport(FakeNetwork(OwnError("refused")), proxy="socks5://proxy.example:1")
    assert fail(transport) == (Cause.LOST, Phase.CONNECTING, False, "proxy: refused")


def test_without_a_proxy_an_unknown_exception_is_a_mistake_and_passes_through() -> None:
    transport = make_transport(FakeNetwork(OwnError(), FakeStream(chunked("fine"))))
    with pytest.raises(OwnError):
        run(transport.send(REQUEST, LIMITS))
    assert ask(transport) == b"fine"


@pytest.mark.parametrize(
    ("failure", "cause"),
    [
        (ConnectionRefusedError("made up"), Cause.LOST),
        (TimeoutError("made up"), Cause.TIMED_OUT),
        (UnicodeError("made up"), Cause.LOST),
    ],
)
@pytest.mark.parametrize("proxy", [None, "socks5://proxy.example:1080"])
def test_a_failure_to_connect_is_reported_and_gives_the_slot_back(
    failure: Exception, cause: Cause, proxy: str | None
) -> None:
    transport = make_transport(FakeNetwork(failure, FakeStream(chunked("fine"))), proxy=proxy)
    assert fail(transport) == (cause, Phase.CONNECTING, False, "made up")
    assert ask(transport) == b"fine"


@pytest.mark.parametrize(
    ("stream", "cause", "detail"),
    [
        (lambda: FakeStream(head(407, "x: 1")), Cause.LOST, "the proxy answered 407 Whatever"),
        (lambda: FakeStream(), Cause.LOST, "closed without an answer"),
        (lambda: FakeStream(b"nonsense\r\n\r\n"), Cause.MALFORMED, "illegal status line"),
        (lambda: FakeStream(TimeoutError("made up")), Cause.TIMED_OUT, "made up"),
    ],
    ids=["refused", "closed", "no HTTP", "time limit"],
)
def test_a_tunnel_that_does_not_come_about_is_a_failure_to_connect(
    stream: Callable[[], FakeStream], cause: Cause, detail: str
) -> None:
    failing = stream()
    network = FakeNetwork(failing, FakeStream(head(200), chunked("fine")))
    transport = make_transport(network, proxy=PROXY)
    reported = fail(transport, HTTPS.url)
    assert reported[:3] == (cause, Phase.CONNECTING, False)
    assert detail in reported[3]
    assert failing.closed == 1
    run(transport.send(HTTPS, LIMITS))


def test_a_handshake_that_fails_is_a_failure_to_connect() -> None:
    failing = FakeStream()
    failing.tls_failure = SSLError("made up")
    network = FakeNetwork(failing, FakeStream(chunked("fine")))
    transport = make_transport(network)
    cause, phase, _, detail = fail(transport, HTTPS.url)
    assert (cause, phase) == (Cause.LOST, Phase.CONNECTING)
    assert "made up" in detail
    assert failing.closed == 1
    assert network.watchdog.waits.isdisjoint({failing})
    run(transport.send(HTTPS, LIMITS))


def test_where_all_slots_are_in_use_for_too_long_the_call_was_waiting() -> None:
    network = FakeNetwork(FakeStream(chunked("fine")))
    transport = make_transport(network)
    response = run(transport.send(REQUEST, LIMITS))
    assert fail(transport)[:3] == (Cause.TIMED_OUT, Phase.WAITING, False)
    assert run(read_all(response)) == b"fine"


@pytest.mark.parametrize("failure", [ConnectionResetError(), KeyboardInterrupt(), OwnError()])
def test_a_request_that_fails_closes_its_connection_and_gives_the_slot_back(
    failure: BaseException,
) -> None:
    failing = FakeStream(failure)
    transport = make_transport(FakeNetwork(failing, FakeStream(chunked("fine"))))
    with pytest.raises((TransportError, KeyboardInterrupt, OwnError)):
        run(transport.send(REQUEST, LIMITS))
    assert failing.closed == 1
    assert ask(transport) == b"fine"


def test_a_reused_connection_that_fails_is_reported_as_such() -> None:
    transport = make_transport(FakeNetwork(FakeStream(chunked("fine"))))
    ask(transport)
    assert fail(transport) == (
        Cause.LOST,
        Phase.AWAITING_HEAD,
        True,
        "closed without an answer",
    )


def test_closing_while_a_connection_is_opened_closes_that_one_too() -> None:
    def close_meanwhile() -> FakeStream:
        run(transport.aclose())
        return stream

    stream = FakeStream(chunked("fine"))
    network = FakeNetwork(close_meanwhile)
    transport = make_transport(network)
    with pytest.raises(TransportError, match="the client was closed") as caught:
        run(transport.send(REQUEST, LIMITS))
    assert caught.value.cause is Cause.LOST
    assert stream.closed == 1
    assert stream.sent == []


def test_closing_closes_the_connections_and_the_watchdog() -> None:
    idle, in_use = FakeStream(chunked("fine")), FakeStream(chunked("fine"))
    network = FakeNetwork(idle, in_use)
    transport = make_transport(network, max_connections=2)
    responses = [run(transport.send(REQUEST, LIMITS)) for _ in range(2)]
    run(read_all(responses[0]))
    run(transport.aclose())
    assert (idle.closed, in_use.closed) == (1, 1)
    assert network.watchdog.closed
    run(responses[1].aclose())


def test_closing_closes_the_watchdog_even_if_a_connection_fails_to_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail_to_close(stream: FakeStream) -> None:
        raise OwnError

    network = FakeNetwork(FakeStream(chunked("fine")))
    transport = make_transport(network)
    ask(transport)
    monkeypatch.setattr(FakeStream, "aclose", fail_to_close)
    with pytest.raises(OwnError):
        run(transport.aclose())
    assert network.watchdog.closed


def test_a_head_longer_than_the_limit_is_malformed() -> None:
    limits = Limits(max_head_bytes=100)
    stream = FakeStream(b"HTTP/1.1 2", b"0" * 100)
    transport = Http11Transport(FakeNetwork(stream), Settings(limits=limits), None)
    assert fail(transport)[:2] == (Cause.MALFORMED, Phase.AWAITING_HEAD)


def test_a_malformed_answer_is_reported_with_the_words_of_h11() -> None:
    transport = make_transport(FakeNetwork(FakeStream(b"nonsense\r\n\r\n")))
    with pytest.raises(TransportError, match="illegal status line") as caught:
        run(transport.send(REQUEST, LIMITS))
    assert isinstance(caught.value.__cause__, h11.RemoteProtocolError)


def test_the_loop_and_its_pauses_are_the_networks() -> None:
    network = FakeNetwork()
    transport = make_transport(network)
    assert transport.current_loop() == "the loop"
    run(transport.sleep(3.0))
    assert network.pauses == [3.0]
