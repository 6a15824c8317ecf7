"""Certificates are verified unless the caller passes a context that does not."""

import socket
import ssl

import pytest

from gprochat_core import ConnectError, ReplyTimeout, RetryPolicy, Timeouts
from tests.contract.conftest import Happens, MakeClient
from tests.peers.scripted import (
    Connection,
    Script,
    ScriptedPeer,
    close,
    receive,
    repeat,
    send,
    until_client_closes,
)
from tests.peers.tls import Authority
from tests.peers.wire import answer, chunk, chunked, head

OK: Script = [repeat(receive, send(chunked("fine")))]


async def test_a_certificate_of_the_callers_authority_is_accepted(
    make_client: MakeClient, authority: Authority
) -> None:
    with ScriptedPeer(OK, ssl_context=authority.server_context()) as peer:
        async with make_client(peer.url, ssl_context=authority.client_context()) as client:
            assert await client.complete("Hello") == "fine"
            assert await client.complete("Hello") == "fine"
    assert len(peer.connections) == 1


async def test_a_certificate_of_an_unknown_authority_is_refused(
    make_client: MakeClient, authority: Authority
) -> None:
    with ScriptedPeer(OK, ssl_context=authority.server_context()) as peer:
        async with make_client(peer.url) as client:
            with pytest.raises(ConnectError, match="certificate"):
                await client.complete("Hello")
    assert peer.requests == []


async def test_a_certificate_for_another_name_is_refused(
    make_client: MakeClient, authority: Authority
) -> None:
    with ScriptedPeer(OK, ssl_context=authority.server_context("other.example")) as peer:
        async with make_client(peer.url, ssl_context=authority.client_context()) as client:
            with pytest.raises(ConnectError):
                await client.complete("Hello")
    assert peer.requests == []


async def test_a_service_that_does_not_speak_tls_is_no_connection(
    make_client: MakeClient, authority: Authority
) -> None:
    with ScriptedPeer([send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), close]) as peer:
        url = peer.url.replace("http:", "https:")
        async with make_client(url, ssl_context=authority.client_context()) as client:
            with pytest.raises(ConnectError):
                await client.complete("Hello")


async def test_a_context_may_accept_anything(make_client: MakeClient, authority: Authority) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with ScriptedPeer(OK, ssl_context=authority.server_context("other.example")) as peer:
        async with make_client(peer.url, ssl_context=context) as client:
            assert await client.complete("Hello") == "fine"


def send_reply_and_stray_record(connection: Connection) -> None:
    """Send a whole reply and the beginning of a head: two TLS records in one TCP segment."""
    connection._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    connection.send(chunked("fine"))
    connection.send(b"HTTP/1.1 200 OK\r\nX-Junk: ")
    connection._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)


@pytest.mark.skipif(not hasattr(socket, "TCP_CORK"), reason="only Linux puts two writes together")
@pytest.mark.not_on("given-httpx@asyncio", "httpcore decides about the clients that are passed")
@pytest.mark.not_on("httpx2@asyncio", "httpcore decides about the clients that are passed")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_stray_tls_record_behind_a_reply_does_not_begin_the_next_reply(
    make_client: MakeClient, authority: Authority, version: ssl.TLSVersion
) -> None:
    context = authority.server_context()
    context.maximum_version = version
    # Behind the stray record, the 503 would be a header of a complete and empty reply.
    script: Script = [receive, send_reply_and_stray_record, receive, send(answer(503)), *OK]
    with ScriptedPeer(script, OK, ssl_context=context) as peer:
        async with make_client(
            peer.url,
            ssl_context=authority.client_context(),
            retry=RetryPolicy(max_attempts=2, base_delay=0),
        ) as client:
            assert await client.complete("Hello") == "fine"
            assert await client.complete("Hello") == "fine"


async def test_leaving_a_reply_early_closes_the_connection_over_tls_too(
    make_client: MakeClient, happens: Happens, authority: Authority
) -> None:
    begin = head(200, "transfer-encoding: chunked") + chunk("a")
    script = [receive, send(begin), until_client_closes]
    with ScriptedPeer(script, OK, ssl_context=authority.server_context()) as peer:
        async with make_client(peer.url, ssl_context=authority.client_context()) as client:
            async with client.stream("Hello") as reply:
                assert await anext(reply) == "a"
            assert await happens(peer.connections[0].client_closed)
            assert await client.complete("Hello") == "fine"


async def test_a_reply_over_tls_that_stands_still_ends_in_time(
    make_client: MakeClient, authority: Authority, happens: Happens
) -> None:
    begin = head(200, "transfer-encoding: chunked") + chunk("a")
    script: Script = [receive, send(begin), until_client_closes]
    with ScriptedPeer(script, OK, ssl_context=authority.server_context()) as peer:
        async with make_client(
            peer.url, ssl_context=authority.client_context(), timeouts=Timeouts(idle=0.2)
        ) as client:
            with pytest.raises(ReplyTimeout) as caught:
                await client.complete("Hello")
            assert await happens(peer.connections[0].client_closed)
            assert await client.complete("Hello") == "fine"
    assert (caught.value.limit, caught.value.text) == ("idle", "a")
