"""The network of anyio, besides what http11/test_network.py asks of every network."""

import os
import socket
import sys
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from gprochat_core import Cause, ConfigurationError, Phase, TransportError
from gprochat_transports.httpx.connection import CAUSES, AnyioNetwork, is_readable, read_causes
from gprochat_transports.watchdog import AsyncioWatchdog, TrioWatchdog

LIBRARIES = [httpx, httpx2]


@pytest.mark.anyio
async def test_the_watchdog_is_that_of_the_running_loop_and_one_for_all(
    anyio_backend_name: str,
) -> None:
    network = AnyioNetwork()
    kind = {"asyncio": AsyncioWatchdog, "trio": TrioWatchdog}[anyio_backend_name]
    assert type(network.watchdog) is kind
    assert network.watchdog is network.watchdog


@pytest.mark.anyio
async def test_an_event_wakes_the_task_that_waits() -> None:
    event = AnyioNetwork().make_event()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(event.wait)
            await anyio.wait_all_tasks_blocked()
            event.set()


def test_a_network_may_be_made_before_a_loop_runs() -> None:
    AnyioNetwork()


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (TimeoutError(), Cause.TIMED_OUT),
        (anyio.EndOfStream(), Cause.LOST),
        (anyio.BrokenResourceError(), Cause.LOST),
        (anyio.ClosedResourceError(), Cause.LOST),
        (ConnectionResetError(), Cause.LOST),
        (socket.gaierror(), Cause.LOST),
        (UnicodeError(), Cause.LOST),
    ],
    ids=repr,
)
def test_each_exception_of_the_library_has_its_cause(error: Exception, cause: Cause) -> None:
    assert TransportError.wrap(error, CAUSES, Phase.READING).cause is cause


def test_a_socket_is_readable_once_bytes_or_the_end_have_arrived() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not is_readable(ours)
        theirs.send(b"a")
        # Looking takes nothing away.
        assert is_readable(ours)
        assert ours.recv(2) == b"a"
        assert not is_readable(ours)
        theirs.close()
        assert is_readable(ours)


def test_looking_at_a_socket_needs_no_file_descriptor() -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"a")
        free = os.dup(ours.fileno())
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            with pytest.raises(OSError, match="open files"):
                os.dup(ours.fileno())
            assert is_readable(ours)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
def test_the_exceptions_are_those_of_the_clients_library(library: Any, kind: str) -> None:
    causes = read_causes(getattr(library, kind)(), kind)
    assert causes[library.TimeoutException] is Cause.TIMED_OUT
    assert causes[library.TransportError] is Cause.LOST
    other = LIBRARIES[library is httpx]
    assert other.TransportError not in causes


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_subclass_of_the_librarys_client_is_a_client_of_it(library: Any) -> None:
    own = type("Own", (library.Client,), {})
    assert read_causes(own(), "Client")


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_that_was_not_imported_is_not(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = LIBRARIES[library is httpx]
    monkeypatch.delitem(sys.modules, other.__name__)
    assert read_causes(library.Client(), "Client")
    assert other.__name__ not in sys.modules


def test_socks_failures_are_known_only_where_the_library_for_socks_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def names() -> set[str]:
        return {each.__name__ for each in read_causes(httpx.Client(), "Client")}

    assert "SOCKSError" in names()
    monkeypatch.setitem(sys.modules, "socksio", None)
    assert "SOCKSError" not in names()


@pytest.mark.parametrize(
    ("client", "kind", "said"),
    [
        (httpx.Client(), "AsyncClient", "an httpx.AsyncClient, not a Client"),
        (httpx2.AsyncClient(), "Client", "an httpx.Client, not a AsyncClient"),
        ("http://chat.example", "Client", "an httpx.Client, not a str"),
    ],
)
def test_what_is_no_such_client_is_refused(client: object, kind: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read_causes(client, kind)
