"""A reader that stops makes the sender wait, and the client holds little meanwhile."""

from typing import Final

import pytest

from tests.contract.adapters import ADAPTERS, Adapter
from tests.faults.slow_reader import REPLY_SIZE, stand_still

MOST: Final = 256 * 1024 + 16 * 1024
"""Bytes that a client may hold at most: asyncio reads up to 256 KiB at once before it can pause."""


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
def test_a_reader_that_stops(adapter: Adapter, tls: bool) -> None:
    standstill = stand_still(adapter, tls=tls)
    assert standstill.read == REPLY_SIZE
    assert standstill.sent < REPLY_SIZE
    if standstill.client is not None:
        assert standstill.client <= MOST
