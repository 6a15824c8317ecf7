"""Each row of the fault table holds on every adapter."""

from dataclasses import replace

import pytest

from tests.contract.adapters import ADAPTERS, Adapter
from tests.faults.fault import Fault
from tests.faults.play import play
from tests.faults.table import TABLE

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
    # A plain client that the caller passes differs from httpx2's column in little.
    if pytestconfig.getoption("--one-case") or adapter.name == "given-httpx@asyncio":
        fault = replace(fault, cases=fault.cases[:1])
    play(fault, adapter)
