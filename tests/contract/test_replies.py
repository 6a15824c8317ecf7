"""Replies arrive whole, in pieces as they were sent, however the bytes are cut or coded."""

import gzip
import threading
import zlib
from collections.abc import Callable

import pytest

from gprochat_core import InterruptedReply
from tests.contract.conftest import MakeClient
from tests.peers.scripted import Script, ScriptedPeer, close, receive, repeat, send, wait_for
from tests.peers.wire import LAST_CHUNK, answer, chunk, chunked, head

TEXT = "Привет, world! 🙂 こんにちは — é"

CHUNKED = head(200, "content-type: text/plain; charset=utf-8", "transfer-encoding: chunked")


def deflate_raw(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


CODINGS = [
    pytest.param("gzip", lambda data: gzip.compress(data, mtime=0), id="gzip"),
    pytest.param("deflate", zlib.compress, id="deflate"),
    pytest.param("deflate", deflate_raw, id="raw-deflate"),
]


def cut_everywhere(wire: bytes) -> Script:
    """Answer again and again on one connection, and cut each answer in two one byte later."""
    steps = [
        step
        for cut in range(1, len(wire))
        for step in (receive, send(wire[:cut], wire[cut:], every=0.001))
    ]
    return [*steps, repeat(receive, send(wire))]


async def test_text_of_any_script_arrives_as_it_was_said(make_client: MakeClient) -> None:
    with ScriptedPeer([repeat(receive, send(chunked(*TEXT)))]) as peer:
        async with make_client(peer.url) as client, client.stream("Hello") as reply:
            pieces = [text async for text in reply]
            assert "".join(pieces) == reply.text == TEXT
            assert "" not in pieces


async def test_status_and_headers_can_be_seen_before_the_text(make_client: MakeClient) -> None:
    begun = threading.Event()
    script = [receive, send(head(200, "X-Thing: 1", "content-length: 2")), wait_for(begun)]
    with ScriptedPeer([*script, send(b"ok")]) as peer:
        async with make_client(peer.url) as client, client.stream("Hello") as reply:
            assert (reply.status, reply.headers["x-thing"], reply.text) == (200, "1", "")
            begun.set()
            assert [text async for text in reply] == ["ok"]


async def test_a_piece_is_handed_over_while_the_rest_is_still_unsaid(
    make_client: MakeClient,
) -> None:
    first_seen, second_seen = threading.Event(), threading.Event()
    script = [
        receive,
        send(CHUNKED + chunk("Раз, ")),
        wait_for(first_seen),
        send(chunk("два, ")),
        wait_for(second_seen),
        send(chunk("три") + LAST_CHUNK),
    ]
    with ScriptedPeer(script) as peer:
        async with make_client(peer.url) as client, client.stream("Hello") as reply:
            assert await anext(reply) == "Раз, "
            first_seen.set()
            assert await anext(reply) == "два, "
            assert reply.text == "Раз, два, "
            second_seen.set()
            assert [text async for text in reply] == ["три"]


async def test_an_answer_may_be_cut_at_any_byte(make_client: MakeClient) -> None:
    wire = chunked("Ах, ", "🙂 こ", "!")
    with ScriptedPeer(cut_everywhere(wire)) as peer:
        async with make_client(peer.url) as client:
            replies = [await client.complete("Hello") for _ in range(len(wire))]
    assert set(replies) == {"Ах, 🙂 こ!"}


async def test_an_answer_may_come_a_byte_at_a_time(make_client: MakeClient) -> None:
    wire = chunked(*TEXT)
    bytewise = [wire[i : i + 1] for i in range(len(wire))]
    with ScriptedPeer([receive, send(*bytewise, every=0.0002)]) as peer:
        async with make_client(peer.url) as client:
            assert await client.complete("Hello") == TEXT


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(answer(200, TEXT), id="content-length"),
        pytest.param(head(200) + TEXT.encode(), id="until-close"),
        pytest.param(
            head(200, "connection: close").replace(b"1.1", b"1.0", 1) + TEXT.encode(),
            id="HTTP/1.0",
        ),
        pytest.param(CHUNKED + chunk(TEXT) + b"0\r\nx-trailer: 1\r\n\r\n", id="trailers"),
        pytest.param(
            CHUNKED + b"00%x;a=b\r\n%b\r\n" % (len(TEXT.encode()), TEXT.encode()) + LAST_CHUNK,
            id="chunk-extensions",
        ),
    ],
)
async def test_a_body_may_be_framed_in_any_way_of_http(
    make_client: MakeClient, wire: bytes
) -> None:
    with ScriptedPeer([receive, send(wire), close]) as peer:
        async with make_client(peer.url) as client:
            assert await client.complete("Hello") == TEXT


@pytest.mark.parametrize(("coding", "compress"), CODINGS)
async def test_a_compressed_reply_may_be_cut_at_any_byte(
    make_client: MakeClient, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    wire = answer(200, compress("Привет 🙂".encode()), f"content-encoding: {coding}")
    with ScriptedPeer(cut_everywhere(wire)) as peer:
        async with make_client(peer.url) as client:
            replies = [await client.complete("Hello") for _ in range(len(wire))]
    assert set(replies) == {"Привет 🙂"}


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(chunked(), id="chunked"),
        pytest.param(answer(200), id="content-length"),
        pytest.param(head(200), id="until-close"),
        pytest.param(answer(200, b"", "content-encoding: gzip"), id="gzip"),
    ],
)
async def test_an_empty_body_is_an_empty_reply(make_client: MakeClient, wire: bytes) -> None:
    with ScriptedPeer([receive, send(wire)]) as peer:
        async with make_client(peer.url) as client, client.stream("Hello") as reply:
            assert [text async for text in reply] == []
            assert reply.text == ""


async def test_the_failure_marker_is_an_error_and_no_text(make_client: MakeClient) -> None:
    wire = chunked("Привет", "Internal server error")
    with ScriptedPeer([repeat(receive, send(wire))]) as peer:
        pieces: list[str] = []
        async with make_client(peer.url) as client, client.stream("Hello") as reply:
            with pytest.raises(InterruptedReply) as caught:
                pieces.extend([text async for text in reply])
        assert caught.value.text == reply.text == "Привет"


@pytest.mark.parametrize("status", [100, 103])
async def test_what_comes_before_the_answer_is_passed_over(
    make_client: MakeClient, status: int
) -> None:
    early = head(status, "link: </style.css>; rel=preload")
    with ScriptedPeer([repeat(receive, send(early, early + chunked(TEXT), every=0.01))]) as peer:
        async with make_client(peer.url) as client:
            assert await client.complete("Hello") == TEXT
            assert await client.complete("Hello") == TEXT
