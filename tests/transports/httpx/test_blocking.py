"""Connections without an event loop, between threads."""

import json
import os
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from threading import Event, Thread
from time import monotonic
from typing import Any

import pytest

from gprochat_core import (
    Cause,
    ConnectTimeout,
    GPROChatError,
    Limits,
    Phase,
    ReplyTimeout,
    RetryPolicy,
    SendLimits,
    Service,
    Timeouts,
    TransportError,
    TruncatedReply,
    UsageError,
)
from gprochat_transports.http11.transport import Http11Transport
from gprochat_transports.httpx import SyncClient
from gprochat_transports.httpx.blocking import BlockingNetwork, BlockingStream
from gprochat_transports.options import Settings
from gprochat_transports.pool import Pool
from gprochat_transports.sync import run
from tests.faults.certificates import CERTIFICATES, client_context
from tests.peers.scripted import (
    Connection,
    Script,
    ScriptedPeer,
    closed_port,
    deaf_port,
    receive,
    repeat,
    send,
    until_client_closes,
    wait_for,
)
from tests.peers.wire import LAST_CHUNK, answer, chunk, chunked, head
from tests.transports.http11.fake import REQUEST
from tests.transports.test_pool import FakeConnection

SHORT = 0.2

SLACK = 5.0

THREADS = 16

linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere 127.0.0.2 is not the machine itself"
)

STANDS_STILL: Script = [
    receive,
    send(head(200, "transfer-encoding: chunked") + chunk("a")),
    until_client_closes,
]


def start(target: Callable[[], object]) -> Thread:
    thread = Thread(target=target)
    thread.start()
    return thread


def join(*threads: Thread) -> None:
    for thread in threads:
        thread.join(SLACK)
        assert not thread.is_alive()


def make_client(peer: ScriptedPeer, **options: float) -> SyncClient:
    return SyncClient(
        Service(peer.url, secret_key="made up"),
        limits=Limits(max_connections=1),
        timeouts=Timeouts(**options),
        retry=RetryPolicy(max_attempts=1),
        ssl_context=client_context(),
        proxy=None,
    )


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("limit", [None, SLACK])
def test_closing_from_another_thread_ends_a_read_at_once(tls: bool, limit: float | None) -> None:
    begun, failures = Event(), list[BaseException]()

    def read() -> None:
        network.watchdog.limit(None, limit)
        begun.set()
        with pytest.raises(ConnectionError, match="closed here") as caught:
            run(stream.receive())
        failures.append(caught.value)

    with ScriptedPeer(
        [until_client_closes], ssl_context=CERTIFICATES["good"]() if tls else None
    ) as peer:
        network = BlockingNetwork()
        network.watchdog.limit(None, SLACK)
        stream = run(network.connect("127.0.0.1", peer.port, None))
        if tls:
            stream = run(stream.start_tls(client_context(), "127.0.0.1"))
        thread = start(read)
        begun.wait()
        # Time for the read itself to begin; without, the test passes all the same.
        thread.join(SHORT / 4)
        closed_at = monotonic()
        run(stream.aclose())
        join(thread)
        assert monotonic() - closed_at < SLACK / 2
        assert peer.connection(0).client_closed.wait(SLACK)
    assert len(failures) == 1


def test_a_descriptor_is_closed_once_and_by_the_thread_that_reads() -> None:
    """Its number may be another file's right after, which must stay open."""
    ours, theirs = socket.socketpair()
    stream = BlockingStream(ours, BlockingNetwork().watchdog)
    number = ours.fileno()
    taken: list[int] = []

    def read() -> None:
        with pytest.raises(ConnectionError):
            run(stream.receive())
        assert not is_open(number)
        taken.append(os.dup2(theirs.fileno(), number))

    with theirs:
        thread = start(read)
        thread.join(SHORT / 4)
        run(stream.aclose())
        join(thread)
        run(stream.aclose())
        with pytest.raises(ConnectionError):
            run(stream.receive())
        assert taken == [number]
        assert is_open(number)
        os.close(number)


def test_closing_a_stream_that_no_thread_uses_closes_its_descriptor() -> None:
    ours, theirs = socket.socketpair()
    stream = BlockingStream(ours, BlockingNetwork().watchdog)
    number = ours.fileno()
    run(stream.aclose())
    assert not is_open(number)
    with pytest.raises(ConnectionError, match="closed here"):
        run(stream.send(b"a"))
    theirs.close()


def test_bytes_that_arrived_as_the_stream_was_closed_are_not_given() -> None:
    """A thread between its read and its return learns of the closing from the next operation."""
    ours, theirs = socket.socketpair()
    stream = BlockingStream(ours, BlockingNetwork().watchdog)
    with theirs:
        theirs.send(b"a")
        assert run(stream.receive()) == b"a"
        theirs.send(b"b")
        run(stream.aclose())
        with pytest.raises(ConnectionError):
            run(stream.receive())


def test_each_operation_gets_what_is_left_of_the_threads_time() -> None:
    network = BlockingNetwork()
    ours, theirs = socket.socketpair()
    stream = BlockingStream(ours, network.watchdog)
    with theirs:
        begun = monotonic()
        network.watchdog.limit(None, SHORT)
        theirs.send(b"a")
        assert run(stream.receive()) == b"a"
        for _ in range(2):
            with pytest.raises(TimeoutError):
                run(stream.receive())
        assert SHORT * 0.9 <= monotonic() - begun < SHORT + SLACK
    run(stream.aclose())


def test_a_time_limit_is_the_threads_own() -> None:
    network = BlockingNetwork()
    left: list[float | None] = []
    network.watchdog.limit(None, SHORT)
    join(start(lambda: left.append(network.watchdog.left())))
    left.append(network.watchdog.left())
    assert left[0] is None
    assert left[1] is not None


def test_after_a_time_limit_has_passed_nothing_is_waited_for() -> None:
    """A socket takes 0 for "do not block", and None for "wait for ever"."""
    network = BlockingNetwork()
    network.watchdog.limit(None, 0.0)
    with pytest.raises(TimeoutError):
        network.watchdog.left()


def test_a_head_is_limited_although_there_is_always_something_to_read() -> None:
    hints = send(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)
    with ScriptedPeer([receive, repeat(hints)]) as peer:
        begun = monotonic()
        with make_client(peer, first_byte=SHORT) as client, pytest.raises(ReplyTimeout):
            client.complete("Hello")
        assert monotonic() - begun < SLACK


def test_a_stream_that_was_closed_is_of_no_use() -> None:
    """The pool asks, and another thread may have closed the client just before."""
    ours, theirs = socket.socketpair()
    stream = BlockingStream(ours, BlockingNetwork().watchdog)
    assert not stream.is_readable()
    run(stream.aclose())
    assert stream.is_readable()
    theirs.close()


@linux_only
def test_a_silent_address_leaves_time_for_the_next_one_and_for_tls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        ScriptedPeer(
            [receive, send(answer(body="Hello"))], ssl_context=CERTIFICATES["good"]()
        ) as peer,
        deaf_port("127.0.0.2", peer.port),
    ):
        resolve(monkeypatch, "127.0.0.2", "127.0.0.1")
        begun = monotonic()
        with make_client(peer, connect=SHORT * 3) as client:
            assert client.complete("Hello") == "Hello"
        assert monotonic() - begun < SHORT * 3


@linux_only
def test_all_addresses_of_a_host_are_within_one_time_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hosts = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
    with ScriptedPeer() as peer, ExitStack() as stack:
        for host in hosts:
            stack.enter_context(deaf_port(host, peer.port))
        resolve(monkeypatch, *hosts)
        begun = monotonic()
        with make_client(peer, connect=SHORT) as client, pytest.raises(ConnectTimeout):
            client.complete("Hello")
        assert monotonic() - begun < SHORT * 2


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let 127.0.0.1 be a name with these addresses."""

    def look_up(host: str, *rest: Any, **options: Any) -> list[Any]:
        found = addresses if host == "127.0.0.1" and not looked_up else (host,)
        looked_up.append(host)
        return [address for each in found for address in original(each, *rest, **options)]

    looked_up: list[str] = []
    original = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_idle_connections_do_not_change_a_calls_time_limit() -> None:
    network, left = BlockingNetwork(), list[float | None]()

    async def connect() -> FakeConnection:
        left.append(network.watchdog.left())
        return FakeConnection()

    pool: Pool[FakeConnection] = Pool(Limits(keep_alive=100), network.make_event)
    pool.watch(network.watchdog)
    idle = run(pool.acquire(connect))
    network.watchdog.limit(None, SHORT)
    run(pool.release(idle, reusable=True))
    # The pool looks at its idle connection, which is of no use, and connects.
    idle.silent = False
    run(pool.acquire(connect))
    assert left[1] is not None
    assert left[1] <= SHORT


def test_a_connection_that_another_thread_closes_is_forgotten() -> None:
    network = BlockingNetwork()
    transport = Http11Transport(network, Settings(), None)
    opened, closed = Event(), Event()
    left_over: list[set[object]] = []

    def open_one() -> None:
        run(transport.send(request, SendLimits(SLACK, SLACK)))
        opened.set()
        closed.wait(SLACK)
        left_over.append({wait for wait in network.watchdog.waits if not isinstance(wait, Pool)})

    with ScriptedPeer(STANDS_STILL) as peer:
        request = type(REQUEST)("POST", f"{peer.url}/x", (), b"")
        thread = start(open_one)
        assert opened.wait(SLACK)
        run(transport.aclose())
        closed.set()
        join(thread)
    assert left_over == [set()]


def test_connecting_is_limited() -> None:
    with deaf_port() as port:
        service = Service(f"http://127.0.0.1:{port}", secret_key="made up")
        client = SyncClient(
            service,
            timeouts=Timeouts(connect=SHORT),
            retry=RetryPolicy(max_attempts=1),
            proxy=None,
        )
        begun = monotonic()
        with client, pytest.raises(ConnectTimeout):
            client.complete("Hello")
        assert SHORT * 0.9 <= monotonic() - begun < SLACK


def test_an_address_that_refuses_is_followed_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def two(host: str, port: int, *args: Any, **options: Any) -> list[Any]:
        if host != "chat.invalid":
            return resolve(host, port, *args, **options)
        addresses = ("::1", "127.0.0.1")
        return [resolve(each, port, type=socket.SOCK_STREAM)[0] for each in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    with ScriptedPeer([until_client_closes]) as peer:
        stream = run(BlockingNetwork().connect("chat.invalid", peer.port, None))
        run(stream.aclose())
        assert peer.connection(0).client_closed.wait(SLACK)
    with closed_port() as port, pytest.raises(ConnectionRefusedError):
        run(BlockingNetwork().connect("chat.invalid", port, None))


def test_through_a_socks_proxy_there_is_no_limit_where_none_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits: list[float] = []

    def connect(proxy: object, host: str, port: int, *, timeout: float) -> socket.socket:
        limits.append(timeout)
        ours, theirs = socket.socketpair()
        theirs.close()
        # The number is one that sockets take.
        ours.settimeout(timeout)
        return ours

    monkeypatch.setattr("python_socks.sync.Proxy.connect", connect)
    network = BlockingNetwork()
    for limit in (None, SLACK):
        network.watchdog.limit(None, limit)
        run(run(network.connect("chat.example", 80, "socks5://127.0.0.1:1")).aclose())
    assert limits[0] > 24 * 3600
    assert 0 < limits[1] <= SLACK


def test_the_tls_handshake_is_limited_by_the_same() -> None:
    with ScriptedPeer([until_client_closes]) as peer:
        peer.url = peer.url.replace("http:", "https:")
        begun = monotonic()
        with make_client(peer, connect=SHORT) as client, pytest.raises(ConnectTimeout):
            client.complete("Hello")
        assert SHORT * 0.9 <= monotonic() - begun < SLACK
        assert peer.connection(0).client_closed.wait(SLACK)


def test_a_handshake_that_fails_closes_the_connection() -> None:
    context = CERTIFICATES["unknown authority"]()
    with ScriptedPeer([until_client_closes], ssl_context=context) as peer:
        with make_client(peer) as client, pytest.raises(GPROChatError, match="certificate"):
            client.complete("Hello")
        assert peer.connection(0).ended.wait(SLACK)


@pytest.mark.parametrize("tls", [False, True])
def test_a_reply_that_stands_still_ends_in_time(tls: bool) -> None:
    context = CERTIFICATES["good"]() if tls else None
    with ScriptedPeer(STANDS_STILL, ssl_context=context) as peer:
        begun = monotonic()
        with make_client(peer, idle=SHORT) as client, pytest.raises(ReplyTimeout) as caught:
            client.complete("Hello")
        assert SHORT * 0.9 <= monotonic() - begun < SLACK
        assert (caught.value.limit, caught.value.text) == ("idle", "a")


def test_a_thread_that_waits_for_a_slot_ends_in_time() -> None:
    with (
        ScriptedPeer(STANDS_STILL) as peer,
        make_client(peer, connect=SHORT) as client,
        client.stream("Hello") as reply,
    ):
        assert next(reply) == "a"
        begun = monotonic()
        with pytest.raises(ConnectTimeout):
            client.complete("Hello")
        assert SHORT * 0.9 <= monotonic() - begun < SLACK


def test_a_thread_that_waits_for_a_slot_gets_the_one_that_another_releases() -> None:
    freed, texts = Event(), list[str]()
    script = [receive, wait_for(freed), send(chunked("fine"))]
    with (
        ScriptedPeer([*script, repeat(receive, send(chunked("fine")))]) as peer,
        make_client(peer) as client,
    ):
        threads = [start(lambda: texts.append(client.complete("Hello"))) for _ in range(3)]
        freed.set()
        join(*threads)
    assert texts == ["fine"] * 3
    assert len(peer.connections) == 1


def test_closing_the_client_ends_the_threads_that_read_and_that_wait() -> None:
    ended: list[GPROChatError] = []

    def ask() -> None:
        with pytest.raises(GPROChatError) as caught:
            client.complete("Hello")
        ended.append(caught.value)

    with ScriptedPeer(STANDS_STILL) as peer:
        client = make_client(peer)
        threads = [start(ask) for _ in range(3)]
        while not (peer.connections and peer.connection(0).sent):
            threads[0].join(SHORT / 20)
        threads[0].join(SHORT / 4)
        client.close()
        join(*threads)
    assert len(ended) == 3
    assert len(peer.requests) == 1


def test_closing_the_client_ends_the_pause_before_another_attempt() -> None:
    pausing, ended = Event(), list[BaseException]()

    def ask() -> None:
        with pytest.raises(UsageError, match="closed") as caught:
            client.complete("Hello")
        ended.append(caught.value)

    with ScriptedPeer([receive, send(answer(503))]) as peer:
        client = SyncClient(
            Service(peer.url, secret_key="key"),
            retry=RetryPolicy(base_delay=60, max_delay=60),
            on_retry=lambda *_: pausing.set(),
            proxy=None,
        )
        thread = start(ask)
        assert pausing.wait(SLACK)
        client.close()
        join(thread)
    assert len(ended) == 1
    assert len(peer.requests) == 1


def test_many_threads_share_a_client() -> None:
    slots, calls = 3, 10
    texts: list[str] = []
    with ScriptedPeer([repeat(receive, send(chunked("fine")))]) as peer:
        service = Service(peer.url, secret_key="made up")
        limits = Limits(max_connections=slots)
        with SyncClient(service, limits=limits, proxy=None) as client:
            threads = [
                start(lambda: texts.extend(client.complete("Hello") for _ in range(calls)))
                for _ in range(THREADS)
            ]
            join(*threads)
    assert texts == ["fine"] * THREADS * calls
    assert 1 <= len(peer.connections) <= slots


def test_the_threads_of_a_client_may_change() -> None:
    """What stands for the loop is the client's network, in every thread."""
    network = BlockingNetwork()
    loops: list[object] = [network.current_loop()]
    join(start(lambda: loops.append(network.current_loop())))
    assert loops[0] is loops[1]


def test_a_time_limit_that_ran_out_while_waiting_is_reported_with_its_phase() -> None:
    network = BlockingNetwork()
    transport = Http11Transport(network, Settings(limits=Limits(max_connections=1)), None)
    with ScriptedPeer(STANDS_STILL) as peer:
        request = type(REQUEST)("POST", f"{peer.url}/x", (), b"")
        run(transport.send(request, SendLimits(SLACK, SLACK)))
        with pytest.raises(TransportError) as caught:
            run(transport.send(request, SendLimits(SHORT, SLACK)))
        assert (caught.value.cause, caught.value.phase) == (Cause.TIMED_OUT, Phase.WAITING)
        run(transport.aclose())


def echo(connection: Connection) -> None:
    """Reply with the prompt."""
    connection.receive()
    messages = json.loads(connection.requests[-1].body)["messages"]
    connection.send(chunked(messages[-1]["parts"][0]["text"]))


def fork(in_child: Callable[[], object]) -> int:
    """Run a function in a child process, which then exits with 0 if the function returned true."""
    child = os.fork()
    if child:
        return child
    passed = False
    try:
        passed = bool(in_child())
    finally:
        os._exit(not passed)


def exit_status(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
# From 3.12 on, Python warns of a fork while the peer's threads run.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
class TestAFork:
    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_each_process_gets_its_own_answers_over_connections_of_its_own(
        self, scheme: str
    ) -> None:
        tls = scheme == "https"
        server = CERTIFICATES["good"]() if tls else None
        with ScriptedPeer([repeat(echo)], ssl_context=server) as peer:
            service = Service(peer.url, secret_key="key")
            context = client_context() if tls else None
            client = SyncClient(service, proxy=None, ssl_context=context)

            def call(process: str) -> bool:
                prompts = [f"{process} {number}" for number in range(30)]
                return [client.complete(prompt) for prompt in prompts] == prompts

            def call_and_close() -> bool:
                called = call("child")
                client.close()
                return called

            assert call("parent")
            child = fork(call_and_close)
            assert call("parent")
            assert exit_status(child) == 0
            assert call("parent")
            client.close()
        assert len(peer.connections) == 2

    def test_a_child_cannot_read_and_does_not_disturb_the_parents_reply(self) -> None:
        child_is_done = Event()
        begin = head(200, "transfer-encoding: chunked") + chunk("a")
        script: Script = [
            receive,
            send(begin),
            wait_for(child_is_done),
            send(chunk("b") + LAST_CHUNK),
        ]
        with ScriptedPeer(script) as peer:
            client = SyncClient(Service(peer.url, secret_key="key"), proxy=None)
            with client, client.stream("Hello") as reply:
                assert next(reply) == "a"

                def read() -> bool:
                    with pytest.raises(TruncatedReply):
                        next(reply)
                    reply.close()
                    client.close()
                    return True

                assert exit_status(fork(read)) == 0
                child_is_done.set()
                assert list(reply) == ["b"]
