"""A child process lets go of its parent's connections. Real ones: `httpx/test_blocking.py`."""

import gc
from weakref import WeakSet

import pytest

from gprochat_transports import forks


class Owner:
    """Counts how often it was told to forget."""

    forgot = 0

    def forget(self) -> None:
        self.forgot += 1


def test_each_owner_that_is_still_there_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    inherited = WeakSet[forks.Inherited]()
    monkeypatch.setattr(forks, "inherited", inherited)
    gone, owner = Owner(), Owner()
    forks.forget_in_child(gone)
    forks.forget_in_child(owner)
    del gone
    gc.collect()
    assert len(inherited) == 1
    forks.forget_all()
    assert owner.forgot == 1
