"""Waits that are too long: found at one look, ended at the next."""

from math import inf

import pytest

from gprochat_transports._waits import GRACE, Waits


class FakeWait:
    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.expired = False

    def expire(self) -> None:
        self.expired = True


def test_where_nothing_waits_there_is_no_next_look() -> None:
    assert Waits([]).look(0) == inf
    assert Waits([FakeWait(inf)]).look(0) == inf


def test_the_next_look_is_when_the_first_wait_may_be_too_long() -> None:
    assert Waits([FakeWait(3), FakeWait(2), FakeWait(inf)]).look(1) == 2


@pytest.mark.parametrize("now", [2, 5])
def test_a_wait_ends_at_the_second_look_that_finds_it_too_long(now: float) -> None:
    late, fine = FakeWait(2), FakeWait(100)
    waits = Waits([late, fine])
    assert waits.look(now) == now + GRACE
    assert not late.expired
    assert waits.look(now + GRACE) == 100
    assert late.expired
    assert not fine.expired


def test_a_wait_ends_once() -> None:
    late = FakeWait(2)
    waits = Waits([late])
    waits.look(3)
    waits.look(4)
    late.expired = False
    assert waits.look(5) == inf
    assert not late.expired


def test_what_came_between_the_looks_saves_a_wait() -> None:
    over, renewed = FakeWait(2), FakeWait(2)
    waits = Waits([over, renewed])
    waits.look(3)
    over.deadline = inf
    renewed.deadline = 33
    assert waits.look(3 + GRACE) == 33
    assert not over.expired
    assert not renewed.expired
