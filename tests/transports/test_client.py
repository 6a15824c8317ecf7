"""The client's loop over a transport without a network: its order, and its ways out."""

import json
import logging
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from time import time
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from gprochat_core import (
    Cause,
    ConfigurationError,
    ConnectError,
    GPROChatError,
    InterruptedReply,
    InvalidMessages,
    NotTheService,
    Phase,
    RateLimited,
    ReplyTimeout,
    RetryPolicy,
    Service,
    ServiceFailed,
    SignatureRejected,
    Timeouts,
    TransportError,
    TruncatedReply,
    UsageError,
)
from gprochat_transports import Client
from gprochat_transports import client as client_module
from tests.transports.fake import Answer, FakeTransport

pytestmark = pytest.mark.anyio

SERVICE = Service("https://chat.example", secret_key="made-up-key")

FINE = Answer(pieces=(b"fi", b"ne"))
BUSY = Answer(503)


class OwnError(Exception):
    """What a caller's own code raises."""


@pytest.fixture(autouse=True)
def longest_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "random", lambda: 1.0)


def lost(theirs: Exception | None = None, *, reused: bool = False) -> TransportError:
    error = TransportError(Cause.LOST, Phase.READING, reused=reused, detail="in the middle")
    error.__cause__ = theirs
    return error


def signed_at(transport: FakeTransport) -> list[float]:
    return [json.loads(request.body)["time"] / 1000 for request in transport.requests]


async def test_nothing_is_sent_before_a_reply_is_entered() -> None:
    transport = FakeTransport([FINE])
    reply = Client(SERVICE, transport).stream("Hello")
    assert transport.events == []
    assert (reply.status, reply.headers, reply.text, reply.attempts) == (None, {}, "", 0)


async def test_entering_sends_and_waits_for_the_head_alone() -> None:
    transport = FakeTransport([Answer(headers=((b"X-Thing", b"1"),), pieces=(b"fine",))])
    async with Client(SERVICE, transport).stream("Hello") as reply:
        assert transport.events == [("send", 0), ("open", 0)]
        assert (reply.status, reply.headers, reply.attempts) == (200, {"x-thing": "1"}, 1)


async def test_each_step_of_the_iteration_reads_until_there_is_text() -> None:
    smile = "🙂".encode()
    transport = FakeTransport([Answer(pieces=(smile[:2], smile[2:], b"ok"))])
    async with Client(SERVICE, transport).stream("Hello") as reply:
        assert await anext(reply) == "🙂"
        assert transport.events[2:] == [("read", 0)] * 2
        assert await anext(reply) == "ok"
        assert transport.events[2:] == [("read", 0)] * 3
        assert reply.text == "🙂ok"


async def test_a_reply_read_to_its_end_releases_its_connection_once_and_at_once() -> None:
    transport = FakeTransport([FINE])
    async with Client(SERVICE, transport).stream("Hello") as reply:
        assert [text async for text in reply] == ["fi", "ne"]
        assert transport.events[-1] == ("close", 0)
        assert [text async for text in reply] == []
    assert transport.events.count(("close", 0)) == 1


async def test_complete_returns_the_whole_reply_and_releases_its_connection() -> None:
    transport = FakeTransport([FINE])
    assert await Client(SERVICE, transport).complete("Hello") == "fine"
    assert transport.open_responses == 0


async def test_leaving_early_releases_the_connection() -> None:
    transport = FakeTransport([FINE])
    async with Client(SERVICE, transport).stream("Hello") as reply:
        async for _ in reply:
            break
    assert transport.events[-1] == ("close", 0)


async def test_an_exception_in_the_block_passes_and_releases_the_connection() -> None:
    transport = FakeTransport([FINE])
    own = OwnError()
    with pytest.raises(OwnError) as caught:
        async with Client(SERVICE, transport).stream("Hello"):
            raise own
    assert caught.value is own
    assert transport.events[-1] == ("close", 0)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(pieces=(b"fi", lost())), TruncatedReply),
        (Answer(pieces=(b"fi", TransportError(Cause.TIMED_OUT, Phase.READING))), ReplyTimeout),
        (Answer(pieces=(b"fi", b"Internal server error")), InterruptedReply),
        (Answer(500, pieces=(b"boom",)), ServiceFailed),
        (Answer(500, pieces=(lost(),)), ServiceFailed),
        (Answer(404), NotTheService),
    ],
)
async def test_every_error_releases_the_connection(
    answer: Answer, kind: type[GPROChatError]
) -> None:
    transport = FakeTransport([answer])
    client = Client(SERVICE, transport, retry=RetryPolicy(max_attempts=1))
    with pytest.raises(kind):
        await client.complete("Hello")
    assert transport.events[-1] == ("close", 0)
    assert transport.open_responses == 0


@pytest.mark.parametrize("failing", ["send", "read"])
async def test_the_librarys_exception_is_the_cause_of_the_error(failing: str) -> None:
    theirs = OSError("theirs")
    answer = lost(theirs) if failing == "send" else Answer(pieces=(b"fi", lost(theirs)))
    client = Client(SERVICE, FakeTransport([answer]), retry=RetryPolicy(max_attempts=1))
    with pytest.raises(ConnectError if failing == "send" else TruncatedReply) as caught:
        await client.complete("Hello")
    assert caught.value.__cause__ is theirs
    assert caught.value.__suppress_context__


async def test_an_attempt_is_over_before_the_pause_and_the_pause_before_the_next() -> None:
    transport = FakeTransport([BUSY, lost(), FINE])
    client = Client(SERVICE, transport, retry=RetryPolicy(base_delay=0.5))
    async with client.stream("Hello") as reply:
        assert reply.attempts == 3
        assert transport.events == [
            *[("send", 0), ("open", 0), ("read", 0), ("close", 0), ("sleep", 0.5)],
            *[("send", 1), ("sleep", 1.0)],
            *[("send", 2), ("open", 2)],
        ]


async def test_a_service_is_given_the_time_that_it_asks_for() -> None:
    transport = FakeTransport([Answer(429, ((b"retry-after", b"7"),)), FINE])
    assert await Client(SERVICE, transport).complete("Hello") == "fine"
    assert ("sleep", 7.0) in transport.events


async def test_each_retry_is_reported_before_its_pause_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    transport = FakeTransport([BUSY, Answer(429, ((b"retry-after", b"7"),)), FINE])

    def report(attempt: int, delay: float, error: GPROChatError) -> None:
        transport.events.append(("report", attempt, delay, type(error)))

    caplog.set_level(logging.INFO, "gprochat")
    client = Client(SERVICE, transport, retry=RetryPolicy(base_delay=0.5), on_retry=report)
    assert await client.complete("Hello") == "fine"
    assert [event for event in transport.events if event[0] in ("report", "sleep")] == [
        *[("report", 2, 0.5, ServiceFailed), ("sleep", 0.5)],
        *[("report", 3, 7.0, RateLimited), ("sleep", 7.0)],
    ]
    number = caplog.messages[0].removeprefix("call ").partition(":")[0]
    assert [record.getMessage() for record in caplog.records] == [
        f"call {number}: attempt 2 in 0.50 s, after ServiceFailed with status 503",
        f"call {number}: attempt 3 in 7.00 s, after RateLimited with status 429",
    ]


async def test_the_log_has_a_number_of_its_own_for_each_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "gprochat")
    client = Client(SERVICE, FakeTransport([BUSY, FINE, BUSY, FINE]))
    async with client.stream("Hello"), client.stream("Hello"):
        pass
    assert len({message.partition(": ")[0] for message in caplog.messages}) == 2


async def test_a_failed_connection_is_logged_without_a_status(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "gprochat")
    await Client(SERVICE, FakeTransport([lost(), FINE])).complete("Hello")
    assert [message.endswith(", after ConnectError") for message in caplog.messages] == [True]


async def test_a_call_may_have_time_limits_and_a_retry_policy_of_its_own() -> None:
    transport = FakeTransport([BUSY, FINE, BUSY])
    client = Client(
        SERVICE,
        transport,
        timeouts=Timeouts(connect=1, first_byte=2),
        retry=RetryPolicy(max_attempts=1),
    )
    own = Timeouts(connect=3, first_byte=4)
    assert await client.complete("Hello", timeouts=own, retry=RetryPolicy()) == "fine"
    with pytest.raises(ServiceFailed):
        await client.complete("Hello", timeouts=None, retry=None)
    assert transport.limits == [(3, 4), (3, 4), (1, 2)]


@pytest.mark.parametrize("option", ["timeouts", "retry"])
async def test_what_is_no_option_of_a_call_is_refused_with_what_to_pass(option: str) -> None:
    transport = FakeTransport([])
    client = Client(SERVICE, transport)
    wrong: dict[str, Any] = {option: 0}
    with pytest.raises(ConfigurationError, match=f"^{option} must be a .+; got int$"):
        client.stream("Hello", **wrong)
    with pytest.raises(ConfigurationError, match=f"^{option} must be a .+; got int$"):
        await client.complete("Hello", **wrong)
    assert transport.requests == []


@pytest.mark.parametrize("option", ["timeouts", "retry", "on_retry", "limits"])
def test_what_is_no_option_of_a_client_is_refused_with_what_to_pass(option: str) -> None:
    wrong: dict[str, Any] = {option: 0}
    with pytest.raises(ConfigurationError, match=f"^{option} must be a .+; got int$"):
        Client(SERVICE, FakeTransport([]), **wrong)


async def test_what_is_raised_where_a_retry_is_reported_ends_the_call() -> None:
    def report(attempt: int, delay: float, error: GPROChatError) -> None:
        raise OwnError

    transport = FakeTransport([Answer(pieces=(b"Internal server error",)), FINE])
    with pytest.raises(OwnError):
        await Client(SERVICE, transport, on_retry=report).complete("Hello")
    assert transport.open_responses == 0
    assert len(transport.requests) == 1


async def test_the_last_attempts_error_is_raised_without_a_pause() -> None:
    transport = FakeTransport([BUSY, Answer(502)])
    client = Client(SERVICE, transport, retry=RetryPolicy(max_attempts=2))
    with pytest.raises(ServiceFailed) as caught:
        await client.complete("Hello")
    assert caught.value.status == 502
    assert transport.events[-1] == ("close", 1)


async def test_a_reply_that_breaks_off_after_its_first_text_is_not_asked_for_again() -> None:
    transport = FakeTransport([Answer(pieces=(b"fi", lost())), FINE])
    with pytest.raises(TruncatedReply) as caught:
        await Client(SERVICE, transport).complete("Hello")
    assert caught.value.text == "fi"
    assert len(transport.requests) == 1


async def test_a_kept_connection_that_was_lost_is_tried_again_at_once() -> None:
    transport = FakeTransport([lost(reused=True), FINE])
    client = Client(SERVICE, transport, retry=RetryPolicy(max_attempts=1))
    assert await client.complete("Hello") == "fine"
    assert ("sleep", 0.0) in transport.events


async def test_a_transport_is_given_the_callers_time_limits() -> None:
    transport = FakeTransport([FINE])
    client = Client(SERVICE, transport, timeouts=Timeouts(connect=1.5, first_byte=2.5))
    await client.complete("Hello")
    assert transport.limits == [(1.5, 2.5)]


def rejected(*, ahead: int) -> Answer:
    """The answer of a service whose clock is so many seconds ahead of this machine's."""
    date = formatdate(time() + ahead, usegmt=True).encode()
    return Answer(401, ((b"date", date),), (b'{"error":{"message":"Invalid signature."}}',))


def signed_ahead(transport: FakeTransport) -> list[float]:
    """How many seconds ahead of this machine's clock each request was signed."""
    return [signed - time() for signed in signed_at(transport)]


async def test_calls_in_the_same_millisecond_are_signed_with_different_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_module, "time_ns", lambda: 1_700_000_000_000_000_000)
    transport = FakeTransport([BUSY, FINE, FINE])
    client = Client(SERVICE, transport)
    await client.complete("Hello")
    await client.complete("Hello")
    assert signed_at(transport) == [1_700_000_000.000, 1_700_000_000.001, 1_700_000_000.002]


async def test_a_clock_correction_is_kept_by_the_client() -> None:
    transport = FakeTransport([rejected(ahead=3600), FINE, FINE])
    client = Client(SERVICE, transport)
    await client.complete("Hello")
    await client.complete("Hello")
    assert signed_ahead(transport) == pytest.approx([0, 3600, 3600], abs=30)
    assert client.clock.correction_ms == pytest.approx(3_600_000, abs=30_000)


async def test_a_clock_correction_is_kept_even_where_the_call_fails() -> None:
    transport = FakeTransport([rejected(ahead=-3600), rejected(ahead=-3600), FINE])
    client = Client(SERVICE, transport)
    with pytest.raises(SignatureRejected):
        await client.complete("Hello")
    await client.complete("Hello")
    assert signed_ahead(transport)[-1] == pytest.approx(-3600, abs=30)


async def test_a_reply_made_before_the_clock_was_corrected_spends_no_attempt_of_its_own() -> None:
    transport = FakeTransport([rejected(ahead=3600), FINE, FINE])
    client = Client(SERVICE, transport)
    earlier = client.stream("Hello")
    await client.complete("Hello")
    async with earlier:
        assert earlier.attempts == 1
    assert signed_ahead(transport) == pytest.approx([0, 3600, 3600], abs=30)


async def test_calls_that_are_rejected_at_once_are_each_tried_again_once() -> None:
    arrived = 0
    all_rejected = anyio.Event()

    async def wait_for_all() -> None:
        nonlocal arrived
        if transport.events[-1][0] == "send" and len(transport.requests) <= 3:
            arrived += 1
            if arrived == 3:
                all_rejected.set()
            await all_rejected.wait()

    transport = FakeTransport([*[rejected(ahead=3600)] * 3, *[FINE] * 3], wait_for_all)
    client = Client(SERVICE, transport)
    attempts: list[int] = []

    async def call() -> None:
        async with client.stream("Hello") as reply:
            assert [text async for text in reply] == ["fi", "ne"]
        attempts.append(reply.attempts)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(call)
    assert attempts == [2, 2, 2]
    assert signed_ahead(transport) == pytest.approx([0] * 3 + [3600] * 3, abs=30)


async def test_a_reply_is_entered_once() -> None:
    client = Client(SERVICE, FakeTransport([FINE, FINE]))
    async with client.stream("Hello") as reply:
        with pytest.raises(UsageError):
            await reply.__aenter__()
        assert [text async for text in reply] == ["fi", "ne"]


async def test_a_reply_is_read_inside_its_block() -> None:
    reply = Client(SERVICE, FakeTransport([FINE])).stream("Hello")
    with pytest.raises(UsageError):
        await anext(reply)
    async with reply:
        assert await anext(reply) == "fi"
    with pytest.raises(UsageError):
        await anext(reply)
    assert reply.text == "fi"


async def test_a_reply_that_failed_is_not_read_on() -> None:
    client = Client(SERVICE, FakeTransport([Answer(pieces=(b"fi", lost(), b"ne"))]))
    async with client.stream("Hello") as reply:
        with pytest.raises(TruncatedReply):
            _ = [text async for text in reply]
        with pytest.raises(UsageError):
            await anext(reply)
        assert reply.text == "fi"


async def test_a_reply_is_read_by_one_task_at_a_time() -> None:
    reading = anyio.Event()
    go_on = anyio.Event()

    async def wait() -> None:
        if transport.events[-1] == ("read", 0):
            reading.set()
            await go_on.wait()

    transport = FakeTransport([FINE], wait)
    async with (
        Client(SERVICE, transport).stream("Hello") as reply,
        anyio.create_task_group() as group,
    ):
        group.start_soon(anext, reply)
        await reading.wait()
        with pytest.raises(UsageError, match="another task"):
            await anext(reply)
        go_on.set()
    assert transport.open_responses == 0


async def test_a_closed_client_refuses_whatever_is_asked_of_it() -> None:
    transport = FakeTransport([FINE])
    async with Client(SERVICE, transport) as client:
        before = client.stream("Hello")
    for refused in (client.__aenter__, before.__aenter__):
        with pytest.raises(UsageError, match="closed"):
            await refused()
    with pytest.raises(UsageError, match="closed"):
        client.stream("Hello")
    assert transport.requests == []


async def test_a_client_closed_between_two_attempts_makes_no_more() -> None:
    async def close() -> None:
        if transport.events[-1][0] == "sleep":
            await client.aclose()

    transport = FakeTransport([BUSY, FINE], close)
    client = Client(SERVICE, transport)
    with pytest.raises(UsageError, match="closed"):
        await client.complete("Hello")
    assert len(transport.requests) == 1


async def test_closing_the_client_closes_the_transport_and_ends_its_replies() -> None:
    transport = FakeTransport([FINE, FINE])
    client = Client(SERVICE, transport)
    async with client.stream("Hello") as one, client.stream("Hello") as other:
        await client.aclose()
        # The transport first: a call that waits for a connection must not get one of a reply.
        assert transport.events[-3] == ("close transport",)
        assert transport.open_responses == 0
        for reply in (one, other):
            with pytest.raises(UsageError):
                await anext(reply)


async def test_replies_are_ended_even_where_closing_the_transport_fails() -> None:
    async def fail() -> None:
        if transport.events[-1] == ("close transport",):
            raise OwnError

    transport = FakeTransport([FINE, FINE], fail)
    client = Client(SERVICE, transport)
    await client.stream("Hello").__aenter__()
    await client.stream("Hello").__aenter__()
    with pytest.raises(OwnError):
        await client.aclose()
    assert transport.open_responses == 0


async def test_a_client_belongs_to_the_loop_that_it_was_first_used_on() -> None:
    transport = FakeTransport([FINE, FINE, FINE])
    client = Client(SERVICE, transport)
    await client.complete("Hello")
    transport.loop = "another loop"
    with pytest.raises(UsageError, match="event loop"):
        await client.complete("Hello")
    transport.loop = "the loop"
    assert await client.complete("Hello") == "fine"


async def test_two_replies_at_once_have_each_their_own_text() -> None:
    transport = FakeTransport([Answer(pieces=(b"a", b"b")), Answer(pieces=(b"c", b"d"))])
    client = Client(SERVICE, transport)
    async with client.stream("Hello") as one, client.stream("Hello") as other:
        assert [await anext(one), await anext(other), await anext(one)] == ["a", "c", "b"]
        assert (one.text, other.text) == ("ab", "c")
    assert transport.open_responses == 0


async def test_text_that_is_not_to_be_kept_is_forgotten() -> None:
    client = Client(SERVICE, FakeTransport([FINE]))
    async with client.stream("Hello", keep_text=False) as reply:
        assert [text async for text in reply] == ["fi", "ne"]
        assert reply.text == ""


async def test_a_conversation_that_cannot_be_sent_is_refused_before_anything_happens() -> None:
    transport = FakeTransport([FINE])
    with pytest.raises(InvalidMessages):
        await Client(SERVICE, transport).complete([])
    assert transport.events == []


def test_a_service_without_its_key_is_refused_when_the_client_is_made() -> None:
    with pytest.raises(ConfigurationError):
        Client(Service("https://chat.example"), FakeTransport([]))


def test_a_password_over_plain_http_is_warned_of() -> None:
    exposed = Service("http://chat.example", secret_key="k", password="made-up-word")
    with pytest.warns(UserWarning, match="plain http") as caught:
        Client(exposed, FakeTransport([]))
    assert "made-up-word" not in str(caught[0].message)


async def test_the_log_tells_what_is_decided_and_no_secret(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Service("https://chat.example", secret_key="made-up-key", password="made-up-word")
    caplog.set_level(logging.DEBUG, "gprochat")
    await Client(service, FakeTransport([BUSY, FINE])).complete("a private prompt")
    assert {record.name for record in caplog.records} == {"gprochat.client"}
    assert "503" in caplog.text
    for secret in ("made-up-key", "made-up-word", "private", "fine"):
        assert secret not in caplog.text


class CancelAt:
    """A checkpoint that cancels a scope at its n-th call.

    Attributes:
        reached: whether the n-th call has come.
    """

    def __init__(self, number: int, scope: anyio.CancelScope) -> None:
        self._left = number
        self._scope = scope
        self.reached = False

    async def __call__(self) -> None:
        if self._left == 0:
            self.reached = True
            self._scope.cancel()
        self._left -= 1
        await anyio.lowlevel.checkpoint()


async def whole(client: Client) -> None:
    assert await client.complete("Hello") == "fine"


async def broken_off(client: Client) -> None:
    async with client.stream("Hello") as reply:
        assert await anext(reply) == "fi"


async def closed(client: Client) -> None:
    async with client, client.stream("Hello") as reply:
        assert await anext(reply) == "fi"
        await client.aclose()


@pytest.mark.parametrize("call", [whole, broken_off, closed])
async def test_a_call_cancelled_at_any_await_leaves_nothing_open(
    call: Callable[[Client], Awaitable[None]],
) -> None:
    number = 0
    while True:
        scope = anyio.CancelScope()
        checkpoint = CancelAt(number, scope)
        transport = FakeTransport([Answer(503, pieces=(b"busy",)), lost(), FINE], checkpoint)
        with scope:
            await call(Client(SERVICE, transport))
        assert transport.open_responses == 0
        if not checkpoint.reached:
            break
        assert scope.cancelled_caught
        number += 1
    # send, read, read, close, sleep; send, sleep; send and at least one read and a close.
    assert number >= 10


async def test_after_a_cancelled_call_the_client_goes_on_working() -> None:
    scope = anyio.CancelScope()
    checkpoint = CancelAt(1, scope)
    client = Client(SERVICE, FakeTransport([FINE, FINE], checkpoint))
    with scope:
        await client.complete("Hello")
    assert checkpoint.reached
    assert await client.complete("Hello") == "fine"
