"""Each row of the fault table holds on every adapter.

In some rows the peer breaks off at every byte: an HTTP parser is left in each of its states. The
adapters for aiohttp (with aiohttp's parser) and for trio (with h11, as all further adapters)
play all these cases. The further adapters play one case of each moment; `make faults` plays all.
"""

from dataclasses import replace

import pytest

from tests.contract.adapters import ADAPTERS, Adapter
from tests.faults.fault import Fault
from tests.faults.play import play
from tests.faults.report import moments
from tests.faults.table import TABLE

PLAY_EVERY_CASE = ("aiohttp@asyncio", "trio@trio")

ROWS = [
    pytest.param(fault, id=f"{group}: {fault.what}")
    for group, faults in TABLE.items()
    for fault in faults
]


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
@pytest.mark.parametrize("fault", ROWS)
def test_a_call_comes_to_what_the_table_says(
    fault: Fault, adapter: Adapter, pytestconfig: pytest.Config
) -> None:
    if pytestconfig.getoption("--one-case"):
        fault = replace(fault, cases=fault.cases[:1])
    elif adapter.name not in PLAY_EVERY_CASE:
        fault = replace(fault, cases=[cases[0] for _, cases in moments(fault)])
    play(fault, adapter)
