"""The body of a request, which knows how far its call is; its connection is a fake."""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any
from weakref import WeakSet

import pytest
from aiohttp.client_proto import ResponseHandler

from gprochat_core import Cause, Phase, SendLimits, TransportError
from gprochat_transports.aiohttp.connection import CAUSES
from gprochat_transports.aiohttp.request import RequestBody
from gprochat_transports.http11.network import WRITE_SIZE
from gprochat_transports.sync import run
from tests.transports.http11.fake import FakeWatchdog

LIMITS = SendLimits(connect=3.0, first_byte=7.0)


class FakeProtocol:
    """A connection."""

    closed = None


class FakeWriter:
    """What aiohttp has a body write to.

    Attributes:
        written: the bytes of each write.
        aborted: how often the connection was.
    """

    def __init__(self, meanwhile: Callable[[], object] = bool) -> None:
        self.protocol = FakeProtocol()
        self.written: list[bytes] = []
        self.aborted = 0
        self._meanwhile = meanwhile

    @property
    def transport(self) -> "FakeWriter":
        return self

    def abort(self) -> None:
        self.aborted += 1

    async def write(self, data: bytes) -> None:
        self._meanwhile()
        self.written.append(bytes(data))


class Client:
    """What bodies of one client share."""

    def __init__(self) -> None:
        self.watchdog = FakeWatchdog()
        self.served = WeakSet[ResponseHandler]()

    def make_body(self, data: bytes = b"the body", limits: SendLimits = LIMITS) -> RequestBody:
        async def make() -> RequestBody:
            return RequestBody(data, limits, self.watchdog, self.served)

        return asyncio.run(make())


def write(body: RequestBody, writer: Any) -> None:
    run(body.write(writer))


def test_a_body_is_what_it_was_given() -> None:
    body, writer = Client().make_body("Привет".encode()), FakeWriter()
    assert body.size == 12
    assert body.decode() == "Привет"
    write(body, writer)
    assert b"".join(writer.written).decode() == "Привет"


def test_a_long_body_is_sent_in_parts_each_within_a_time_limit_of_its_own() -> None:
    client, writer = Client(), FakeWriter()
    data = bytes(range(256)) * (WRITE_SIZE // 100)
    write(client.make_body(data), writer)
    assert b"".join(writer.written) == data
    assert [len(part) for part in writer.written[:-1]] == [WRITE_SIZE] * (len(writer.written) - 1)
    # And one for the head.
    assert client.watchdog.limits == [7.0] * (len(writer.written) + 1)


def test_what_begins_to_be_sent_after_the_client_was_closed_is_aborted() -> None:
    client, writer = Client(), FakeWriter()
    client.watchdog.closed = True
    write(client.make_body(), writer)
    assert writer.aborted


def test_the_phase_is_that_of_the_call() -> None:
    phases: list[Phase] = []
    body = Client().make_body()
    writer = FakeWriter(lambda: phases.append(body.phase))
    phases.append(body.phase)
    write(body, writer)
    phases.append(body.phase)
    assert phases == [Phase.CONNECTING, Phase.SENDING, Phase.AWAITING_HEAD]


def test_the_time_of_sending_is_that_of_the_last_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr("gprochat_transports.aiohttp.request.monotonic", lambda: next(times))
    body = Client().make_body(bytes(2 * WRITE_SIZE))
    assert body.sent_at == 1
    write(body, FakeWriter())
    assert body.sent_at == 4


def test_a_connection_is_reused_if_it_has_served_this_client() -> None:
    client, writer = Client(), FakeWriter()
    for expected in (False, True, True):
        body = client.make_body()
        write(body, writer)
        assert body.reused is expected
    # Another client's session may have used it, and that is none of this one's.
    body = Client().make_body()
    write(body, writer)
    assert not body.reused


def facts(error: TransportError) -> tuple[Cause, Phase, bool]:
    return error.cause, error.phase, error.reused


def test_a_failure_has_the_facts_of_the_call() -> None:
    client, writer = Client(), FakeWriter()
    body = client.make_body()
    assert facts(body.failed(OSError(), CAUSES)) == (Cause.LOST, Phase.CONNECTING, False)
    write(body, writer)
    assert facts(body.failed(OSError(), CAUSES)) == (Cause.LOST, Phase.AWAITING_HEAD, False)
    again = client.make_body()
    write(again, writer)
    assert facts(again.failed(TimeoutError(), CAUSES)) == (
        Cause.TIMED_OUT,
        Phase.AWAITING_HEAD,
        True,
    )


def test_what_the_watchdog_ends_is_aborted_and_timed_out() -> None:
    body, writer = Client().make_body(), FakeWriter()
    write(body, writer)
    run(body.expire())
    assert writer.aborted == 1
    assert facts(body.failed(OSError(), CAUSES)) == (
        Cause.TIMED_OUT,
        Phase.AWAITING_HEAD,
        False,
    )


def test_a_body_that_was_ended_sets_no_further_deadline() -> None:
    client = Client()
    body = client.make_body(bytes(3 * WRITE_SIZE))

    def expire() -> None:
        client.watchdog.limits.clear()
        body.deadline = inf
        run(body.expire())

    write(body, FakeWriter(expire))
    assert client.watchdog.limits == []
    assert body.deadline == inf


def test_a_body_without_a_connection_has_nothing_to_abort() -> None:
    Client().make_body().abort()


def test_a_body_never_shows_itself() -> None:
    assert "the body" not in repr(Client().make_body())
