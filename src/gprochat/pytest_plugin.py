"""The pytest plugin: a service that listens while a test runs.

    def test_my_bot(gprochat_server):
        bot = Bot(gprochat_server.service)

The service runs in a thread of its own, so synchronous tests and tests on asyncio or trio use it
in the same way. Every run of pytest loads this file, so it imports aiohttp only when a test asks
for the service.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .server import Answer, Server

__all__ = ["gprochat_answer", "gprochat_server"]


@pytest.fixture
def gprochat_answer() -> "Answer | None":
    """Makes the replies of `gprochat_server`; override this fixture to choose them.

    With None, a reply repeats the user's message. The answer runs in the service's thread.
    """
    return None


@pytest.fixture
def gprochat_server(gprochat_answer: "Answer | None") -> "Iterator[Server]":
    """A service for one test, with a new secret key; its `service` is a client's argument."""
    try:
        from .server import echo, in_thread, serve
    except ImportError as error:
        pytest.fail(f"gprochat_server cannot start: {error}", pytrace=False)
    # No grace period: when the test is over, nobody reads the replies that still stream.
    with in_thread(serve(gprochat_answer or echo, grace=0.0)) as server:
        yield server
