"""A failure that may pass gets another attempt, signed afresh; a reply that began gets none."""

import json
from email.utils import formatdate
from time import time

import pytest

from gprochat_core import (
    Acceptance,
    BadRequest,
    ConnectError,
    InterruptedReply,
    RateLimited,
    RetryPolicy,
    Service,
    ServiceFailed,
    SignatureRejected,
    TruncatedReply,
    UsageError,
)
from tests.contract.conftest import Happens, MakeClient
from tests.peers.scripted import (
    ScriptedPeer,
    Step,
    close,
    closed_port,
    pause,
    receive,
    repeat,
    reset,
    send,
)
from tests.peers.wire import answer, chunk, chunked, head

OK = chunked("fine")

AT_ONCE = RetryPolicy(base_delay=0.0)

REJECTED = b'{"error":{"message":"Invalid signature."}}'


def rejected(seconds_ahead: float) -> bytes:
    return answer(401, REJECTED, f"date: {formatdate(time() + seconds_ahead, usegmt=True)}")


def signing_times(peer: ScriptedPeer) -> list[float]:
    return [json.loads(request.body)["time"] / 1000 for request in peer.requests]


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([send(answer(503)), repeat(receive, send(OK))], id="503"),
        pytest.param([send(answer(500, b"boom")), repeat(receive, send(OK))], id="500"),
        pytest.param(
            [send(answer(429, b"", "retry-after: 0")), repeat(receive, send(OK))], id="429"
        ),
        pytest.param([close], id="closed-before-the-head"),
        pytest.param([reset], id="reset-before-the-head"),
    ],
)
async def test_a_passing_failure_is_followed_by_a_second_attempt(
    make_client: MakeClient, steps: list[Step]
) -> None:
    with ScriptedPeer([receive, *steps], [repeat(receive, send(OK))]) as peer:
        async with (
            make_client(peer.url, retry=AT_ONCE) as client,
            client.stream("Hello") as reply,
        ):
            assert [text async for text in reply] == ["fine"]
            assert reply.attempts == 2
    assert len(peer.requests) == 2


MARKER = chunked("Internal server error")


async def test_a_failure_before_the_first_word_is_followed_by_a_second_attempt(
    make_client: MakeClient,
) -> None:
    lost = [send(head(200, "content-length: 22") + b"Internal server error"), close]
    with ScriptedPeer([receive, send(MARKER), receive, *lost], [repeat(receive, send(OK))]) as peer:
        async with (
            make_client(peer.url, retry=AT_ONCE) as client,
            client.stream("Hello") as reply,
        ):
            assert [text async for text in reply] == ["fine"]
            assert (reply.text, reply.status, reply.attempts) == ("fine", 200, 3)
    assert len({json.loads(request.body)["sign"] for request in peer.requests}) == 3


async def test_a_failure_before_the_first_word_that_stays_is_said_to_be_one(
    make_client: MakeClient,
) -> None:
    with ScriptedPeer([repeat(receive, send(MARKER))]) as peer:
        async with make_client(peer.url, retry=AT_ONCE) as client:
            with pytest.raises(InterruptedReply, match="before the first word") as caught:
                await client.complete("Hello")
    assert caught.value.text == ""
    assert caught.value.__context__ is None
    assert len(peer.requests) == 3


async def test_an_attempt_after_a_failure_before_the_first_word_may_fail_otherwise(
    make_client: MakeClient,
) -> None:
    wrong = answer(400, b"no")
    with ScriptedPeer([receive, send(MARKER), receive, send(wrong)]) as peer:
        async with (
            make_client(peer.url, retry=AT_ONCE) as client,
            client.stream("Hello") as reply,
        ):
            with pytest.raises(BadRequest):
                await anext(reply)
            with pytest.raises(UsageError):
                await anext(reply)
    assert len(peer.requests) == 2


async def test_each_attempt_is_signed_afresh(make_client: MakeClient) -> None:
    slow_503 = [receive, pause(0.02), send(answer(503))]
    with ScriptedPeer([*slow_503, *slow_503, repeat(receive, send(OK))], slow_503) as peer:
        service = Service(peer.url, secret_key="k")
        async with make_client(service=service, retry=AT_ONCE) as client:
            with_retries = RetryPolicy().max_attempts
            assert with_retries == 3
            assert await client.complete("Hello") == "fine"
    times = signing_times(peer)
    assert times == sorted(set(times))
    for request in peer.requests:
        Acceptance(service).accept(request.body, round(time() * 1000))


async def test_attempts_end_and_the_last_error_is_raised(make_client: MakeClient) -> None:
    with ScriptedPeer([repeat(receive, send(answer(503, b"busy")))]) as peer:
        async with make_client(peer.url, retry=AT_ONCE) as client:
            with pytest.raises(ServiceFailed, match="busy"):
                await client.complete("Hello")
    assert len(peer.requests) == 3


async def test_a_refused_connection_is_tried_again(make_client: MakeClient) -> None:
    with closed_port() as port:
        async with make_client(f"http://127.0.0.1:{port}", retry=AT_ONCE) as client:
            reply = client.stream("Hello")
            with pytest.raises(ConnectError):
                await reply.__aenter__()
    assert reply.attempts == 3


async def test_a_service_that_asks_for_too_long_a_pause_is_not_tried_again(
    make_client: MakeClient,
) -> None:
    with ScriptedPeer([repeat(receive, send(answer(429, b"", "retry-after: 3600")))]) as peer:
        async with make_client(peer.url, retry=AT_ONCE) as client:
            with pytest.raises(RateLimited):
                await client.complete("Hello")
    assert len(peer.requests) == 1


@pytest.mark.parametrize("status", [400, 413])
async def test_a_request_that_must_change_is_not_tried_again(
    make_client: MakeClient, status: int
) -> None:
    with ScriptedPeer([repeat(receive, send(answer(status)))]) as peer:
        async with make_client(peer.url, retry=AT_ONCE) as client:
            with pytest.raises(BadRequest):
                await client.complete("Hello")
    assert len(peer.requests) == 1


@pytest.mark.parametrize("end", [close, reset])
async def test_a_reply_that_broke_off_after_its_first_text_is_not_tried_again(
    make_client: MakeClient, end: Step
) -> None:
    begin = head(200, "transfer-encoding: chunked") + chunk("При")
    script = [receive, send(begin), pause(0.05), end]
    with ScriptedPeer(script, [repeat(receive, send(OK))]) as peer:
        async with make_client(peer.url, retry=AT_ONCE) as client:
            with pytest.raises(TruncatedReply) as caught:
                await client.complete("Hello")
    assert caught.value.text == "При"
    assert len(peer.requests) == 1


async def test_a_kept_connection_that_was_closed_meanwhile_costs_no_call(
    make_client: MakeClient,
    happens: Happens,
) -> None:
    with ScriptedPeer([receive, send(OK), close], [repeat(receive, send(OK))]) as peer:
        async with make_client(peer.url) as client:
            assert await client.complete("Hello") == "fine"
            assert await happens(peer.connections[0].ended)
            assert await client.complete("Hello") == "fine"
    assert len(peer.connections) == 2


@pytest.mark.parametrize("end", [close, reset])
async def test_a_kept_connection_that_is_closed_at_the_next_request_costs_no_call(
    make_client: MakeClient, end: Step
) -> None:
    with ScriptedPeer([receive, send(OK), receive, end], [repeat(receive, send(OK))]) as peer:
        async with make_client(peer.url, retry=AT_ONCE) as client:
            assert await client.complete("Hello") == "fine"
            assert await client.complete("Hello") == "fine"
    assert len(peer.connections) == 2


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
async def test_a_clock_that_is_off_is_corrected_and_stays_so(
    make_client: MakeClient, ahead: float
) -> None:
    script = [receive, send(rejected(ahead)), repeat(receive, send(OK))]
    with ScriptedPeer(script, [repeat(receive, send(OK))]) as peer:
        async with make_client(peer.url) as client:
            assert await client.complete("Hello") == "fine"
            assert await client.complete("Hello") == "fine"
    off = [round((signed - time()) / 60) * 60 for signed in signing_times(peer)]
    assert off == [0.0, ahead, ahead]


async def test_a_signature_still_rejected_with_the_clock_corrected_is_an_error(
    make_client: MakeClient,
) -> None:
    with ScriptedPeer([repeat(receive, send(rejected(3600)))]) as peer:
        async with make_client(peer.url, retry=AT_ONCE) as client:
            with pytest.raises(SignatureRejected) as caught:
                await client.complete("Hello")
    assert caught.value.clock_skew == pytest.approx(3600, abs=10)
    assert len(peer.requests) == 2


async def test_a_signature_rejected_by_a_clock_that_agrees_is_not_tried_again(
    make_client: MakeClient,
) -> None:
    with ScriptedPeer([repeat(receive, send(rejected(0)))]) as peer:
        async with make_client(peer.url, retry=AT_ONCE) as client:
            with pytest.raises(SignatureRejected):
                await client.complete("Hello")
    assert len(peer.requests) == 1


async def test_a_call_may_have_a_retry_policy_of_its_own(make_client: MakeClient) -> None:
    with ScriptedPeer([receive, send(answer(503)), repeat(receive, send(OK))]) as peer:
        async with make_client(peer.url) as client:
            assert await client.complete("Hello", retry=AT_ONCE) == "fine"
    assert len(peer.requests) == 2


async def test_a_call_may_be_tried_once_where_its_client_retries(make_client: MakeClient) -> None:
    with ScriptedPeer([receive, send(answer(503)), repeat(receive, send(OK))]) as peer:
        async with make_client(peer.url, retry=AT_ONCE) as client:
            with pytest.raises(ServiceFailed):
                async with client.stream("Hello", retry=RetryPolicy(max_attempts=1)):
                    pass
    assert len(peer.requests) == 1
