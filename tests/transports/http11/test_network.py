"""Each network connects, carries bytes and closes as the protocols in network.py say."""

from collections.abc import Callable, Mapping
from ssl import SSLContext
from time import monotonic
from typing import Final

import anyio
import pytest

from gprochat_core import Cause, Phase, TransportError
from gprochat_transports.http11.network import READ_SIZE, Network, Stream
from gprochat_transports.httpx.blocking import BlockingNetwork
from gprochat_transports.httpx.connection import AnyioNetwork
from gprochat_transports.trio.connection import TrioNetwork
from tests.faults.certificates import CERTIFICATES, client_context
from tests.peers.scripted import (
    ScriptedPeer,
    Step,
    close,
    closed_port,
    deaf_port,
    pause,
    receive,
    receive_some,
    reset,
    send,
    until_client_closes,
)
from tests.transports.loops import RUN

HOST = "127.0.0.1"

SHORT = 0.2

SLACK = 5.0

NETWORKS: Final[Mapping[str, tuple[Callable[[], Network], str]]] = {
    "anyio on asyncio": (AnyioNetwork, "asyncio"),
    "anyio on uvloop": (AnyioNetwork, "uvloop"),
    "anyio on trio": (AnyioNetwork, "trio"),
    "trio": (TrioNetwork, "trio"),
    "blocking": (BlockingNetwork, "blocking"),
}

WITH_A_LOOP = [name for name in NETWORKS if name != "blocking"]

every_network = pytest.mark.parametrize("name", NETWORKS)

every_network_with_a_loop = pytest.mark.parametrize("name", WITH_A_LOOP)


async def connect(network: Network, peer: ScriptedPeer) -> Stream:
    async with network.time_limit(SLACK):
        return await network.connect(HOST, peer.port, None)


async def receive_all(stream: Stream, count: int) -> bytes:
    """Receive so many bytes."""
    data = b""
    while len(data) < count:
        piece = await stream.receive()
        assert piece
        assert len(piece) <= READ_SIZE
        data += piece
    return data


async def shake_hands(network: Network, peer: ScriptedPeer, seconds: float) -> None:
    """Connect with TLS, and close."""
    async with network.time_limit(seconds):
        stream = await network.connect(HOST, peer.port, None)
        try:
            await stream.start_tls(client_context(), HOST)
        finally:
            await stream.aclose()


def cause(network: Network, error: BaseException) -> Cause:
    """Return what an exception of a network's reports."""
    assert isinstance(error, Exception)
    return TransportError.wrap(error, network.causes, Phase.READING).cause


@every_network
@pytest.mark.parametrize("tls", [False, True])
def test_a_stream_carries_bytes_both_ways_and_then_the_end(name: str, tls: bool) -> None:
    make, loop = NETWORKS[name]
    data = bytes(range(256)) * 4000

    async def main() -> None:
        network = make()
        stream = await connect(network, peer)
        async with network.time_limit(SLACK):
            if tls:
                stream = await stream.start_tls(client_context(), HOST)
            await stream.send(b"Hello")
            assert await receive_all(stream, len(data)) == data
            assert await stream.receive() == b""
            await stream.aclose()

    context = CERTIFICATES["good"]() if tls else None
    with ScriptedPeer([receive_some, send(data), close], ssl_context=context) as peer:
        RUN[loop](main)


@every_network
def test_all_bytes_are_sent_to_a_peer_that_reads_slowly(name: str) -> None:
    make, loop = NETWORKS[name]

    async def main() -> None:
        network = make()
        stream = await connect(network, peer)
        async with network.time_limit(SLACK):
            await stream.send(b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(data))
            await stream.send(data)
            assert await stream.receive() == b"thanks"
        await stream.aclose()

    data = bytes(range(256)) * 40_000
    with ScriptedPeer([pause(SHORT), receive, send(b"thanks")]) as peer:
        RUN[loop](main)
    assert peer.requests[0].body == data


@every_network
def test_a_stream_is_readable_once_bytes_or_the_end_have_arrived(name: str) -> None:
    make, loop = NETWORKS[name]

    async def main() -> None:
        network = make()
        stream = await connect(network, peer)
        assert not stream.is_readable()
        await stream.send(b"now")
        for expected in (b"a", b""):
            await until_readable(stream)
            async with network.time_limit(SLACK):
                assert await stream.receive() == expected
        await stream.aclose()

    async def until_readable(stream: Stream) -> None:
        end = monotonic() + SLACK
        while not stream.is_readable():
            assert monotonic() < end

    with ScriptedPeer([receive_some, send(b"a"), pause(SHORT), close]) as peer:
        RUN[loop](main)


@every_network
def test_a_refused_connection_is_lost(name: str) -> None:
    make, loop = NETWORKS[name]

    async def main() -> None:
        network = make()
        with pytest.raises(tuple(network.causes)) as caught:
            async with network.time_limit(SLACK):
                await network.connect(HOST, port, None)
        assert cause(network, caught.value) is Cause.LOST

    with closed_port() as port:
        RUN[loop](main)


@every_network
def test_a_host_name_that_idna_cannot_express_is_lost(name: str) -> None:
    make, loop = NETWORKS[name]

    async def main() -> None:
        network = make()
        with pytest.raises(tuple(network.causes)) as caught:
            async with network.time_limit(SLACK):
                await network.connect(f"{'a' * 64}.example", 80, None)
        assert cause(network, caught.value) is Cause.LOST

    RUN[loop](main)


@every_network
def test_connecting_takes_no_longer_than_its_time_limit(name: str) -> None:
    make, loop = NETWORKS[name]

    async def main() -> None:
        network = make()
        begun = monotonic()
        with pytest.raises(tuple(network.causes)) as caught:
            async with network.time_limit(SHORT):
                await network.connect(HOST, port, None)
        assert SHORT * 0.9 <= monotonic() - begun < SLACK
        assert cause(network, caught.value) is Cause.TIMED_OUT

    with deaf_port() as port:
        RUN[loop](main)


@every_network_with_a_loop
def test_a_cancellation_by_the_caller_passes_a_time_limit(name: str) -> None:
    make, loop = NETWORKS[name]

    async def main() -> None:
        with anyio.move_on_after(SHORT / 4) as scope:
            async with make().time_limit(SLACK):
                await anyio.sleep_forever()
        assert scope.cancelled_caught

    RUN[loop](main)


@every_network
def test_a_reset_is_a_loss(name: str) -> None:
    make, loop = NETWORKS[name]

    async def main() -> None:
        network = make()
        stream = await connect(network, peer)
        async with network.time_limit(SLACK):
            assert await stream.receive() == b"a"
            with pytest.raises(tuple(network.causes)) as caught:
                await stream.receive()
        assert cause(network, caught.value) is Cause.LOST
        await stream.aclose()

    with ScriptedPeer([send(b"a"), pause(SHORT / 4), reset]) as peer:
        RUN[loop](main)


@every_network
@pytest.mark.parametrize("certificate", ["unknown authority", "wrong name", "not TLS"])
def test_a_handshake_that_fails_is_a_loss(name: str, certificate: str) -> None:
    make, loop = NETWORKS[name]
    tls = certificate != "not TLS"

    async def main() -> None:
        network = make()
        with pytest.raises(tuple(network.causes)) as caught:
            await shake_hands(network, peer, SLACK)
        assert cause(network, caught.value) is Cause.LOST

    context: SSLContext | None = CERTIFICATES[certificate]() if tls else None
    script = [] if tls else [receive_some, send(b"220 mail ESMTP\r\n"), until_client_closes]
    with ScriptedPeer(script, ssl_context=context) as peer:
        RUN[loop](main)
        assert peer.connection(0).ended.wait(SLACK)


@every_network
def test_a_handshake_takes_no_longer_than_the_time_limit(name: str) -> None:
    make, loop = NETWORKS[name]

    async def main() -> None:
        network = make()
        begun = monotonic()
        with pytest.raises(tuple(network.causes)) as caught:
            await shake_hands(network, peer, SHORT)
        assert SHORT * 0.9 <= monotonic() - begun < SLACK
        assert cause(network, caught.value) is Cause.TIMED_OUT

    with ScriptedPeer([until_client_closes]) as peer:
        RUN[loop](main)
        assert peer.connection(0).client_closed.wait(SLACK)


@every_network_with_a_loop
@pytest.mark.parametrize("tls", [False, True])
def test_closing_ends_a_receive_under_way(name: str, tls: bool) -> None:
    make, loop = NETWORKS[name]

    async def main() -> None:
        network = make()
        stream = await connect(network, peer)
        if tls:
            stream = await stream.start_tls(client_context(), HOST)

        async def receive() -> None:
            with pytest.raises(tuple(network.causes)) as caught:
                await stream.receive()
            assert cause(network, caught.value) is Cause.LOST

        with anyio.fail_after(SLACK):
            async with anyio.create_task_group() as group:
                group.start_soon(receive)
                await anyio.wait_all_tasks_blocked()
                await stream.aclose()
            # And none may begin.
            await receive()

    context = CERTIFICATES["good"]() if tls else None
    with ScriptedPeer([until_client_closes], ssl_context=context) as peer:
        RUN[loop](main)
        assert peer.connection(0).client_closed.wait(SLACK)


@every_network_with_a_loop
@pytest.mark.parametrize("tls", [False, True])
def test_a_connection_closes_even_where_closing_is_cancelled_and_waits_for_no_peer(
    name: str, tls: bool
) -> None:
    make, loop = NETWORKS[name]

    async def main() -> None:
        stream = await connect(make(), peer)
        if tls:
            stream = await stream.start_tls(client_context(), HOST)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await stream.aclose()
        assert await anyio.to_thread.run_sync(peer.connection(0).client_closed.wait, SLACK)

    context = CERTIFICATES["good"]() if tls else None
    with ScriptedPeer([until_client_closes], ssl_context=context) as peer:
        RUN[loop](main)


# RFC 1928: greeting, request, bytes.
GREETING = b"\x05\x00"
CONNECTED = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
REFUSED = b"\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00"


@every_network
def test_a_socks_proxy_is_connected_through(name: str) -> None:
    make, loop = NETWORKS[name]

    async def main() -> None:
        network = make()
        async with network.time_limit(SLACK):
            stream = await network.connect("chat.example", 80, f"socks5://{HOST}:{peer.port}")
            assert await stream.receive() == b"a"
        await stream.aclose()

    script = [receive_some, send(GREETING), receive_some, send(CONNECTED, b"a", every=SHORT / 4)]
    with ScriptedPeer(script) as peer:
        RUN[loop](main)


@every_network
def test_a_socks_proxy_that_refuses_closes_its_connection(name: str) -> None:
    make, loop = NETWORKS[name]

    async def main() -> None:
        network = make()
        with pytest.raises(Exception, match="refused"):
            async with network.time_limit(SLACK):
                await network.connect("chat.example", 80, f"socks5://{HOST}:{peer.port}")

    script = [receive_some, send(GREETING), receive_some, send(REFUSED), until_client_closes]
    with ScriptedPeer(script) as peer:
        RUN[loop](main)
        assert peer.connection(0).client_closed.wait(SLACK)


@every_network
@pytest.mark.parametrize("steps", [[], [receive_some, send(GREETING)]])
def test_a_socks_proxy_that_does_not_answer_is_held_to_the_time_limit(
    name: str, steps: list[Step]
) -> None:
    make, loop = NETWORKS[name]

    async def main() -> None:
        network = make()
        begun = monotonic()
        with pytest.raises(TimeoutError):
            async with network.time_limit(SHORT):
                await network.connect("chat.example", 80, f"socks5://{HOST}:{peer.port}")
        assert SHORT * 0.9 <= monotonic() - begun < SLACK

    with ScriptedPeer([*steps, until_client_closes]) as peer:
        RUN[loop](main)
        assert peer.connection(0).client_closed.wait(SLACK)


@every_network
def test_a_pause_takes_its_time(name: str) -> None:
    make, loop = NETWORKS[name]

    async def main() -> None:
        begun = monotonic()
        await make().sleep(SHORT)
        assert SHORT * 0.9 <= monotonic() - begun < SLACK

    RUN[loop](main)


@every_network_with_a_loop
def test_each_run_of_a_loop_is_another_loop(name: str) -> None:
    make, loop = NETWORKS[name]
    network, loops = make(), []

    async def main() -> None:
        loops.append(network.current_loop())
        assert network.current_loop() == loops[-1]

    for _ in range(2):
        RUN[loop](main)
    assert loops[0] != loops[1]
