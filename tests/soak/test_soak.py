"""A short soak finds nothing wrong, and a result that is wrong is reported."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.soak.__main__ import MOST_MEMORY, problems
from tests.soak.faults import FAULTS, WELL, is_fault, prompt_for
from tests.soak.worker import Result

PROJECT = Path(__file__).parents[2]


def test_a_short_soak_finds_nothing_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOAK_CALLS", "120")
    monkeypatch.setenv("SOAK_STREAMS", "40")
    monkeypatch.setenv("SOAK_TRANSPORTS", "aiohttp@asyncio,trio@trio")
    run = subprocess.run(
        [sys.executable, "-m", "tests.soak"], cwd=PROJECT, capture_output=True, text=True
    )
    assert run.stderr == ""
    assert run.returncode == 0
    assert run.stdout.count("| 40 | 0 |") == 2


def test_every_third_call_meets_a_fault_and_each_fault_has_its_turn() -> None:
    numbers = range(3 * len(FAULTS))
    met = [prompt_for(number).partition(" ")[2] for number in numbers]
    assert [name != WELL for name in met] == [is_fault(number) for number in numbers]
    assert met[2::3] == list(FAULTS)


@pytest.mark.parametrize(
    "change",
    [{"wrong": ["1 well: no error"]}, {"files": 1}, {"memory": MOST_MEMORY + 1}],
    ids=lambda change: next(iter(change)),
)
def test_whatever_goes_wrong_is_told(change: dict[str, Any]) -> None:
    fine = Result(calls=3, faults=1, seconds=1.0)
    assert problems(fine) == []
    assert len(problems(replace(fine, **change))) == 1
