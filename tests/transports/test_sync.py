"""The client without `async`: the same loop, one step a call."""

import inspect
from collections.abc import Generator

import pytest

from gprochat_core import (
    Cause,
    ConnectError,
    Phase,
    Service,
    TransportError,
    TruncatedReply,
    UsageError,
)
from gprochat_transports import Client
from gprochat_transports.sync import SyncClient, SyncReply, run
from tests.transports.fake import Answer, FakeTransport

SERVICE = Service("https://chat.example", secret_key="made-up-key")

FINE = Answer(headers=((b"X-Thing", b"1"),), pieces=(b"fi", b"ne"))


class Suspending:
    """What a blocking transport must not await."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class OwnError(Exception):
    """What a caller's own code raises."""


def make_client(*answers: Answer | TransportError) -> tuple[SyncClient, FakeTransport]:
    transport = FakeTransport(answers)
    return SyncClient(Client(SERVICE, transport)), transport


def test_a_reply_is_iterated_over_and_released() -> None:
    client, transport = make_client(FINE)
    with client, client.stream("Hello") as reply:
        assert isinstance(reply, SyncReply)
        assert (reply.status, reply.headers, reply.attempts) == (200, {"x-thing": "1"}, 1)
        assert next(reply) == "fi"
        assert reply.text == "fi"
        assert list(reply) == ["ne"]
        assert list(reply) == []
    assert transport.open_responses == 0
    assert transport.events[-1] == ("close transport",)


def test_complete_returns_the_whole_reply() -> None:
    client, transport = make_client(FINE)
    assert client.complete("Hello") == "fine"
    assert transport.open_responses == 0


def test_leaving_early_releases_the_connection() -> None:
    client, transport = make_client(FINE)
    with client.stream("Hello") as reply:
        for _ in reply:
            break
    assert transport.events[-1] == ("close", 0)


def test_an_exception_in_the_block_passes_and_releases_the_connection() -> None:
    client, transport = make_client(FINE)
    own = OwnError()
    with pytest.raises(OwnError) as caught, client.stream("Hello"):
        raise own
    assert caught.value is own
    assert transport.events[-1] == ("close", 0)


def test_a_passing_failure_is_followed_by_another_attempt() -> None:
    client, transport = make_client(TransportError(Cause.LOST, Phase.AWAITING_HEAD), FINE)
    assert client.complete("Hello") == "fine"
    assert [event[0] for event in transport.events[:3]] == ["send", "sleep", "send"]


def test_an_error_is_the_same_as_the_asynchronous_clients() -> None:
    client, _ = make_client(
        Answer(pieces=(b"fi", TransportError(Cause.LOST, Phase.READING))),
        *[TransportError(Cause.LOST, Phase.CONNECTING)] * 3,
    )
    with pytest.raises(TruncatedReply) as caught:
        client.complete("Hello")
    assert caught.value.text == "fi"
    with pytest.raises(ConnectError):
        client.complete("Hello")


def test_text_that_is_not_to_be_kept_is_forgotten() -> None:
    client, _ = make_client(FINE)
    with client.stream("Hello", keep_text=False) as reply:
        assert list(reply) == ["fi", "ne"]
        assert reply.text == ""


def test_a_client_closed_twice_is_closed_and_says_so() -> None:
    client, transport = make_client(FINE)
    client.close()
    client.close()
    assert ("close transport",) in transport.events
    with pytest.raises(UsageError, match="closed"):
        client.complete("Hello")
    with pytest.raises(UsageError, match="closed"):
        client.__enter__()


def test_a_reply_is_read_inside_its_block() -> None:
    client, _ = make_client(FINE)
    reply = client.stream("Hello")
    with pytest.raises(UsageError):
        next(reply)


def test_the_client_tells_its_service() -> None:
    assert make_client()[0].service is SERVICE


@pytest.mark.parametrize("name", ["stream", "complete"])
def test_the_blocking_client_takes_what_the_other_takes(name: str) -> None:
    blocking = inspect.signature(getattr(SyncClient, name))
    assert blocking.parameters == inspect.signature(getattr(Client, name)).parameters


def test_a_transport_that_suspends_is_not_a_blocking_one() -> None:
    left: list[str] = []

    async def suspend() -> None:
        try:
            await Suspending()
        finally:
            left.append("closed")

    with pytest.raises(RuntimeError, match="suspended"):
        run(suspend())
    assert left == ["closed"]


def test_running_gives_results_and_raises_errors() -> None:
    async def give() -> int:
        return 7

    async def fail() -> None:
        raise OwnError

    assert run(give()) == 7
    with pytest.raises(OwnError):
        run(fail())
