"""Calls over clients of httpx and httpx2 that the caller made."""

import gzip
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any, Final

import anyio
import httpx
import httpx2
import pytest

from gprochat_core import (
    AuthenticationError,
    Cause,
    ConnectError,
    ConnectTimeout,
    GPROChatError,
    Phase,
    ReplyTimeout,
    Request,
    RetryPolicy,
    SendLimits,
    Service,
    Timeouts,
    TransportError,
)
from gprochat_transports import Response, Transport
from gprochat_transports.httpx import Client, SyncClient
from tests.faults.certificates import CERTIFICATES
from tests.peers.scripted import (
    Script,
    ScriptedPeer,
    close,
    closed_port,
    deaf_port,
    pause,
    receive,
    repeat,
    reset,
    send,
    until_client_closes,
)
from tests.peers.wire import answer, chunk, chunked, head
from tests.transports.httpx.clients import KINDS, make_request
from tests.transports.loops import RUN

SHORT: Final = 0.1

SLACK: Final = 5.0

LONG: Final = SendLimits(connect=SLACK, first_byte=SLACK)

HEAD: Final = head(200, "transfer-encoding: chunked")

every_kind = pytest.mark.parametrize("kind", KINDS)

with_a_loop = pytest.mark.parametrize("kind", [name for name in KINDS if "blocking" not in name])


async def read_all(response: Response, timeout: float = SLACK) -> bytes:
    body = b""
    while data := await response.read(timeout):
        body += data
    return body


async def call(
    transport: Transport, request: Request, limits: SendLimits = LONG, idle: float = SLACK
) -> bytes:
    """Make a whole call; return the body."""
    response = await transport.send(request, limits)
    try:
        return await read_all(response, idle)
    finally:
        await response.aclose()


async def fail(
    transport: Transport, request: Request, limits: SendLimits = LONG, idle: float = SLACK
) -> tuple[Cause, Phase, bool]:
    """Make a call that fails; return the facts that are reported."""
    with pytest.raises(TransportError) as caught:
        await call(transport, request, limits, idle)
    assert caught.value.__cause__ is not None
    assert caught.value.detail
    return caught.value.cause, caught.value.phase, caught.value.reused


@every_kind
def test_a_response_has_a_head_and_a_body_as_on_the_wire(kind: str) -> None:
    async def main() -> None:
        async with KINDS[kind].open() as (_, transport):
            before = monotonic()
            response = await transport.send(make_request(peer.url), LONG)
            assert before <= response.sent_at <= monotonic()
            assert response.status == 201
            assert (b"X-Thing", b"1") in list(response.headers)
            # Content codings are the core's to undo.
            assert await read_all(response) == b"not gzip"
            await response.aclose()

    script = [receive, send(answer(201, b"not gzip", "X-Thing: 1", "content-encoding: gzip"))]
    with ScriptedPeer(script) as peer:
        KINDS[kind].run(main)


@every_kind
def test_the_request_was_sent_when_its_last_byte_was(kind: str) -> None:
    def hook(request: Any) -> None:
        time.sleep(SHORT)

    async def async_hook(request: Any) -> None:
        await anyio.sleep(SHORT)

    async def main() -> None:
        hooks = {"request": [hook if KINDS[kind].blocking else async_hook]}
        async with KINDS[kind].open(event_hooks=hooks) as (_, transport):
            begun = monotonic()
            response = await transport.send(make_request(peer.url), LONG)
            assert begun + SHORT * 0.9 <= response.sent_at <= monotonic() - SHORT * 0.9
            await response.aclose()

    with ScriptedPeer([receive, pause(SHORT), send(answer(200, b"fine"))]) as peer:
        KINDS[kind].run(main)


@every_kind
def test_a_request_has_the_time_limits_and_its_own_headers(kind: str) -> None:
    library, built = KINDS[kind].library, []

    def note(request: Any) -> Any:
        built.append(request)
        return library.Response(200, text="fine")

    async def main() -> None:
        mock = library.MockTransport(note)
        async with KINDS[kind].open(transport=mock, headers={"x-own": "1"}) as (_, transport):
            request = make_request("http://chat.example", ("user-agent", "made up"))
            for limits in (SendLimits(connect=3.0, first_byte=7.0), SendLimits(None, None)):
                response = await transport.send(request, limits)
                await response.aclose()
            assert (built[0].method, str(built[0].url)) == ("POST", request.url)
            assert (built[0].headers["user-agent"], built[0].headers["x-own"]) == ("made up", "1")
            assert built[0].read() == request.body

    KINDS[kind].run(main)
    timeouts = [each.extensions["timeout"] for each in built]
    assert timeouts[0] == {"pool": 3.0, "connect": 3.0, "write": 7.0, "read": 7.0}
    assert set(timeouts[1].values()) == {None}


def read_in_hook(response: Any) -> None:
    response.read()


async def aread_in_hook(response: Any) -> None:
    await response.aread()


@every_kind
@pytest.mark.parametrize("body", [b"fine", gzip.compress(b"fine"), b""], ids=["plain", "gzip", ""])
def test_a_body_that_a_hook_of_the_caller_has_read_is_given_all_the_same(
    kind: str, body: bytes
) -> None:
    async def main() -> None:
        hooks = {"response": [read_in_hook if KINDS[kind].blocking else aread_in_hook]}
        async with KINDS[kind].open(event_hooks=hooks) as (_, transport):
            for _ in range(2):
                response = await transport.send(make_request(peer.url), LONG)
                # httpx has decompressed the body.
                assert b"content-encoding" not in dict(response.headers)
                assert await read_all(response) == (body and b"fine")
                await response.aclose()

    coding = ["content-encoding: gzip"] if len(body) > 4 else []
    with ScriptedPeer([repeat(receive, send(answer(200, body, *coding)))]) as peer:
        KINDS[kind].run(main)
    assert len(peer.connections) == 1


def raise_in_hook(response: Any) -> None:
    response.raise_for_status()


async def araise_in_hook(response: Any) -> None:
    response.raise_for_status()


@every_kind
@pytest.mark.parametrize("body", [b"fine", b""], ids=["body", "empty"])
def test_the_response_of_which_a_hook_of_the_caller_has_raised_the_status_is_given(
    kind: str, body: bytes
) -> None:
    async def main() -> None:
        blocking = KINDS[kind].blocking
        read = read_in_hook if blocking else aread_in_hook
        raise_ = raise_in_hook if blocking else araise_in_hook
        for hooks in ([raise_], [read, raise_]):
            async with KINDS[kind].open(event_hooks={"response": hooks}) as (_, transport):
                response = await transport.send(make_request(peer.url), LONG)
                assert response.status == 401
                assert (b"X-Thing", b"1") in list(response.headers)
                received = b""
                # httpx has closed the response, unless it read it: only the status is certain.
                with suppress(TransportError):
                    received = await read_all(response)
                assert received == body or read not in hooks
                await response.aclose()

    with ScriptedPeer([repeat(receive, send(answer(401, body, "X-Thing: 1")))]) as peer:
        KINDS[kind].run(main)


@pytest.mark.parametrize("hooks", [[raise_in_hook], [read_in_hook, raise_in_hook]])
def test_the_error_is_that_of_the_status_that_a_hook_of_the_caller_has_raised(hooks: Any) -> None:
    with (
        ScriptedPeer([repeat(receive, send(answer(401, "Invalid password.")))]) as peer,
        httpx.Client(event_hooks={"response": hooks}, trust_env=False) as given,
        SyncClient(Service(peer.url, secret_key="k"), client=given) as client,
    ):
        for number in (1, 2):
            with pytest.raises(AuthenticationError):
                client.complete("Hello")
            # A connection that served before must not be taken for a stale one.
            assert len(peer.requests) == number


def test_what_another_exception_calls_a_response_is_none() -> None:
    class Other(Exception):
        response = "of another library"

    def hook(response: Any) -> None:
        raise Other

    async def main() -> None:
        mock = httpx.MockTransport(lambda request: httpx.Response(200, text="fine"))
        async with KINDS["httpx blocking"].open(
            transport=mock, event_hooks={"response": [hook]}
        ) as (_, transport):
            with pytest.raises(Other):
                await transport.send(make_request("http://chat.example"), LONG)

    RUN["blocking"](main)


@every_kind
def test_a_redirect_is_a_response_like_any_other(kind: str) -> None:
    async def main() -> None:
        async with KINDS[kind].open(follow_redirects=True) as (_, transport):
            response = await transport.send(make_request(peer.url), LONG)
            assert response.status == 307
            await response.aclose()

    with ScriptedPeer([receive, send(answer(307, b"", "location: /x"))]) as peer:
        KINDS[kind].run(main)
    assert len(peer.requests) == 1


FAILURES: Final[dict[str, tuple[Script, Cause, Phase]]] = {
    "closed": ([receive, close], Cause.LOST, Phase.AWAITING_HEAD),
    "reset": ([receive, reset], Cause.LOST, Phase.AWAITING_HEAD),
    "no HTTP": ([receive, send(b"nonsense\r\n\r\n")], Cause.MALFORMED, Phase.AWAITING_HEAD),
    "silent": ([receive, until_client_closes], Cause.TIMED_OUT, Phase.AWAITING_HEAD),
    "a head that trickles": (
        [receive, send(*[b"HTTP/1.1 200 OK\r\n", *[b"x: 1\r\n"] * 40], every=SHORT / 4)],
        Cause.TIMED_OUT,
        Phase.AWAITING_HEAD,
    ),
    "closed in the body": (
        [receive, send(HEAD + chunk("a")), close],
        Cause.MALFORMED,
        Phase.READING,
    ),
    "reset in the body": (
        [receive, send(HEAD + chunk("a")), pause(SHORT / 4), reset],
        Cause.LOST,
        Phase.READING,
    ),
    "no chunk": ([receive, send(HEAD + b"nonsense\r\n")], Cause.MALFORMED, Phase.READING),
    "silent in the body": (
        [receive, send(HEAD + chunk("a")), until_client_closes],
        Cause.TIMED_OUT,
        Phase.READING,
    ),
}


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (httpx.ReadTimeout, ReplyTimeout),
        (httpx.ReadError, ConnectError),
        (httpx.RemoteProtocolError, ConnectError),
        (httpx.ConnectTimeout, ConnectTimeout),
    ],
)
def test_what_a_mock_raises_means_what_a_server_would_cause(
    raised: type[httpx.TransportError], expected: type[GPROChatError]
) -> None:
    attempts: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        attempts.append(request)
        raise raised("mocked", request=request)

    with httpx.Client(transport=httpx.MockTransport(answer)) as given:
        service = Service("http://localhost", secret_key="made up")
        retry = RetryPolicy(max_attempts=2, base_delay=0.0)
        with (
            SyncClient(service, client=given, retry=retry) as client,
            pytest.raises(GPROChatError) as caught,
        ):
            client.complete("Hello")
    assert type(caught.value) is expected
    assert len(attempts) == (1 if expected is ReplyTimeout else 2)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs sockets of Unix")
def test_a_connection_over_a_socket_of_unix_is_new_at_first(tmp_path: Path) -> None:
    """Otherwise each failure of it would be taken for a stale connection's, and retried freely."""
    path = str(tmp_path / "socket")
    accepted: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                accepted.append(listener.accept()[0])
                accepted[-1].close()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        Thread(target=accept, daemon=True).start()
        with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as given:
            service = Service("http://localhost", secret_key="made up")
            retry = RetryPolicy(max_attempts=2, base_delay=0.0)
            with (
                SyncClient(service, client=given, retry=retry) as client,
                pytest.raises(ConnectError),
            ):
                client.complete("Hello")
        listener.shutdown(socket.SHUT_RDWR)
    assert len(accepted) == 2


# Of a client that blocks, httpx limits each of its reads, and there is no way to limit them all.
CASES: Final = [
    (kind, failure)
    for kind in KINDS
    for failure in FAILURES
    if not (KINDS[kind].blocking and failure == "a head that trickles")
]


@pytest.mark.parametrize(("kind", "failure"), CASES)
@pytest.mark.parametrize("reused", [False, True])
def test_each_failure_is_reported_with_its_cause_its_phase_and_whether_reused(
    kind: str, failure: str, reused: bool
) -> None:
    script, cause, phase = FAILURES[failure]
    limit = SHORT if cause is Cause.TIMED_OUT else SLACK

    async def main() -> None:
        limits = SendLimits(connect=SLACK, first_byte=limit)
        async with KINDS[kind].open() as (_, transport):
            request = make_request(peer.url)
            if reused:
                await call(transport, request)
            assert await fail(transport, request, limits, limit) == (cause, phase, reused)

    before: Script = [receive, send(chunked("fine"))] if reused else []
    with ScriptedPeer([*before, *script]) as peer:
        KINDS[kind].run(main)
        assert peer.connection(0).ended.wait(SLACK)
    assert len(peer.connections) == 1


@with_a_loop
def test_a_body_of_which_a_read_was_cancelled_does_not_end_properly(kind: str) -> None:
    async def main() -> None:
        async with KINDS[kind].open() as (_, transport):
            response = await transport.send(make_request(peer.url), LONG)
            assert await response.read(SLACK) == b"a"
            with anyio.move_on_after(SHORT):
                await response.read(SLACK)
            for _ in range(2):
                with pytest.raises(TransportError, match="cancelled") as caught:
                    await response.read(SLACK)
                assert (caught.value.cause, caught.value.phase) == (Cause.LOST, Phase.READING)
            await response.aclose()

    with ScriptedPeer([receive, send(HEAD + chunk("a")), until_client_closes]) as peer:
        KINDS[kind].run(main)


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_body_of_which_a_read_was_interrupted_does_not_end_properly(library: Any) -> None:
    class Interrupted(library.SyncByteStream):  # type: ignore[misc]
        """A body that Ctrl-C interrupts."""

        def __iter__(self) -> Iterator[bytes]:
            yield b"a"
            raise KeyboardInterrupt

    async def main() -> None:
        mock = library.MockTransport(lambda request: library.Response(200, stream=Interrupted()))
        async with KINDS[f"{library.__name__} blocking"].open(transport=mock) as (_, transport):
            response = await transport.send(make_request("http://chat.example"), LONG)
            assert await response.read(SLACK) == b"a"
            with pytest.raises(KeyboardInterrupt):
                await response.read(SLACK)
            with pytest.raises(TransportError, match="cancelled"):
                await response.read(SLACK)
            await response.aclose()

    RUN["blocking"](main)


@every_kind
def test_a_failure_is_not_taken_for_an_exception_that_the_caller_is_handling(kind: str) -> None:
    async def main() -> None:
        async with KINDS[kind].open() as (_, transport):
            try:
                raise ValueError("the caller's")
            except ValueError:
                failure = await fail(transport, make_request(peer.url))
            assert failure == (Cause.LOST, Phase.AWAITING_HEAD, False)

    with ScriptedPeer([receive, close]) as peer:
        KINDS[kind].run(main)


@every_kind
def test_an_exception_that_is_none_of_the_librarys_passes_through(kind: str) -> None:
    library = KINDS[kind].library

    async def main() -> None:
        mock = library.MockTransport(lambda request: 1 / 0)
        async with KINDS[kind].open(transport=mock) as (_, transport):
            with pytest.raises(ZeroDivisionError):
                await transport.send(make_request("http://chat.example"), LONG)

    KINDS[kind].run(main)


@every_kind
def test_a_refused_connection_was_connecting(kind: str) -> None:
    async def main() -> None:
        async with KINDS[kind].open() as (_, transport):
            request = make_request(f"http://127.0.0.1:{port}")
            assert await fail(transport, request) == (Cause.LOST, Phase.CONNECTING, False)

    with closed_port() as port:
        KINDS[kind].run(main)


@every_kind
def test_connecting_takes_no_longer_than_its_limit(kind: str) -> None:
    async def main() -> None:
        async with KINDS[kind].open() as (_, transport):
            request = make_request(f"http://127.0.0.1:{port}")
            begun = monotonic()
            assert await fail(transport, request, SendLimits(SHORT, SLACK)) == (
                Cause.TIMED_OUT,
                Phase.CONNECTING,
                False,
            )
            assert SHORT * 0.9 <= monotonic() - begun < SLACK

    with deaf_port() as port:
        KINDS[kind].run(main)


@every_kind
@pytest.mark.parametrize("certificate", ["unknown authority", None])
def test_a_handshake_that_fails_was_connecting(kind: str, certificate: str | None) -> None:
    cause = Cause.LOST if certificate else Cause.TIMED_OUT

    async def main() -> None:
        async with KINDS[kind].open() as (_, transport):
            request = make_request(f"https://127.0.0.1:{peer.port}")
            limits = SendLimits(SLACK if certificate else SHORT, SLACK)
            assert await fail(transport, request, limits) == (cause, Phase.CONNECTING, False)

    context = CERTIFICATES[certificate]() if certificate else None
    with ScriptedPeer([until_client_closes], ssl_context=context) as peer:
        KINDS[kind].run(main)
        assert peer.connection(0).ended.wait(SLACK)


@every_kind
def test_a_call_that_got_no_connection_of_the_clients_pool_was_waiting(kind: str) -> None:
    async def main() -> None:
        library = KINDS[kind].library
        settings: dict[str, Any] = {"limits": library.Limits(max_connections=1)}
        async with KINDS[kind].open(**settings) as (_, transport), AsyncExitStack() as stack:
            request = make_request(peer.url)
            response = await transport.send(request, LONG)
            stack.push_async_callback(response.aclose)
            begun = monotonic()
            cause, phase, _ = await fail(transport, request, SendLimits(SHORT, SLACK))
            assert (cause, phase) == (Cause.TIMED_OUT, Phase.WAITING)
            assert SHORT * 0.9 <= monotonic() - begun < SLACK

    with ScriptedPeer([receive, send(HEAD), until_client_closes]) as peer:
        KINDS[kind].run(main)


@every_kind
def test_through_a_proxys_tunnel_sending_begins_with_the_request_itself(kind: str) -> None:
    async def main() -> None:
        settings: dict[str, Any] = {"proxy": f"http://127.0.0.1:{peer.port}"}
        async with KINDS[kind].open(**settings) as (_, transport):
            request = make_request("https://chat.example")
            assert await fail(transport, request) == (Cause.LOST, Phase.CONNECTING, False)

    with ScriptedPeer([receive, send(answer(403))]) as peer:
        KINDS[kind].run(main)
    assert peer.requests[0].line == "CONNECT chat.example:443 HTTP/1.1"


# httpx's client that blocks sets a SOCKS proxy no time limit.
@pytest.mark.parametrize("kind", [name for name in KINDS if name != "httpx blocking"])
def test_a_socks_proxy_that_does_not_answer_leaves_no_connection_open(kind: str) -> None:
    async def main() -> None:
        settings: dict[str, Any] = {"proxy": f"socks5://127.0.0.1:{peer.port}"}
        async with KINDS[kind].open(**settings) as (_, transport):
            request = make_request("http://chat.example")
            cause, phase, _ = await fail(transport, request, SendLimits(SHORT, SHORT))
            assert (cause, phase) == (Cause.TIMED_OUT, Phase.CONNECTING)

    with ScriptedPeer([until_client_closes]) as peer:
        KINDS[kind].run(main)
        assert peer.connection(0).client_closed.wait(SLACK)


@every_kind
def test_a_client_that_is_passed_stays_as_it_was(kind: str) -> None:
    async def main() -> None:
        settings: dict[str, Any] = {"headers": {"x-own": "1", "user-agent": "own"}, "timeout": 3}
        async with KINDS[kind].open(**settings) as (client, transport):
            headers, timeout = client.headers.copy(), client.timeout
            request = make_request(peer.url, ("user-agent", "made up"))
            assert await call(transport, request) == b"fine"
            await transport.aclose()
            assert (client.headers, client.timeout) == (headers, timeout)
            assert not client.is_closed
            # The connection has gone back to the client's own pool.
            assert await call(transport, request) == b"fine"

    with ScriptedPeer([repeat(receive, send(chunked("fine")))]) as peer:
        KINDS[kind].run(main)
    assert len(peer.connections) == 1
    assert peer.requests[0].field("x-own") == "1"
    assert peer.requests[0].field("user-agent") == "made up"


@every_kind
def test_what_stands_for_the_loop_is_equal_within_it(kind: str) -> None:
    async def main() -> None:
        async with KINDS[kind].open() as (_, transport):
            assert transport.current_loop() == transport.current_loop()
            begun = monotonic()
            await transport.sleep(SHORT)
            assert SHORT * 0.9 <= monotonic() - begun < SLACK

    KINDS[kind].run(main)


@with_a_loop
def test_closing_a_response_that_is_cancelled_releases_its_connection(kind: str) -> None:
    async def main() -> None:
        async with KINDS[kind].open() as (_, transport):
            response = await transport.send(make_request(peer.url), LONG)
            with anyio.CancelScope() as scope:
                scope.cancel()
                await response.aclose()
            closed = peer.connection(0).client_closed
            assert await anyio.to_thread.run_sync(closed.wait, SLACK)

    with ScriptedPeer([receive, send(HEAD), until_client_closes]) as peer:
        KINDS[kind].run(main)


# A client whose transport has no sockets, and reports no phases.


@with_a_loop
def test_a_transport_without_sockets_is_held_to_the_time_limits_of_reading(kind: str) -> None:
    library = KINDS[kind].library

    class StandsStill(library.AsyncByteStream):  # type: ignore[name-defined,misc]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"a"
            await anyio.sleep_forever()

    def answer_with(request: Any) -> Any:
        return library.Response(200, stream=StandsStill())

    async def main() -> None:
        given = KINDS[kind].make(transport=library.MockTransport(answer_with))
        service = Service("http://chat.example", secret_key="made up")
        async with given, Client(service, client=given, timeouts=Timeouts(idle=SHORT)) as client:
            with pytest.raises(ReplyTimeout) as caught:
                await client.complete("Hello")
        assert (caught.value.limit, caught.value.text) == ("idle", "a")

    KINDS[kind].run(main)


@with_a_loop
def test_a_transport_without_sockets_may_answer_later_than_another_would_connect(
    kind: str,
) -> None:
    library = KINDS[kind].library

    async def answer_late(request: Any) -> Any:
        await anyio.sleep(SHORT)
        return library.Response(200, text="fine")

    async def main() -> None:
        given = KINDS[kind].make(transport=library.MockTransport(answer_late))
        service = Service("http://chat.example", secret_key="made up")
        timeouts = Timeouts(connect=SHORT / 4)
        async with given, Client(service, client=given, timeouts=timeouts) as client:
            assert await client.complete("Hello") == "fine"

    KINDS[kind].run(main)


@every_kind
def test_a_transport_without_sockets_that_fails_is_reported(kind: str) -> None:
    library = KINDS[kind].library

    def refuse(request: Any) -> Any:
        raise library.ConnectError("made up")

    async def main() -> None:
        mock = library.MockTransport(refuse)
        async with KINDS[kind].open(transport=mock) as (_, transport):
            cause, phase, _ = await fail(transport, make_request("http://chat.example"))
            assert (cause, phase) == (Cause.LOST, Phase.WAITING)

    KINDS[kind].run(main)
