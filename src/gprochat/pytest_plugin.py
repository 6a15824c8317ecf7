"""The pytest plugin: a service that listens while a test runs, whatever loop the test is on.

    def test_my_bot(gprochat_server):
        bot = Bot(gprochat_server.service)

The service runs in a thread of its own, so synchronous tests and those on asyncio or trio use it
alike. Every run of pytest loads this file, so that it imports little until a test asks for it.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .server import Answer, Server

__all__ = ["gprochat_answer", "gprochat_server"]


@pytest.fixture
def gprochat_answer() -> "Answer | None":
    """What `gprochat_server` answers with; override it to choose, None for the user's own words.

    It runs in the service's thread.
    """
    return None


@pytest.fixture
def gprochat_server(gprochat_answer: "Answer | None") -> "Iterator[Server]":
    """A service for one test, with a fresh secret key; see its `service` and `url`."""
    try:
        from .server import echo, in_thread, serve
    except ImportError as error:
        pytest.fail(
            f"gprochat_server cannot start: {error}; pip install 'gprochat[server]'", pytrace=False
        )
    # What still streams when a test is over, nobody reads.
    with in_thread(serve(gprochat_answer or echo, grace=0.0)) as server:
        yield server
