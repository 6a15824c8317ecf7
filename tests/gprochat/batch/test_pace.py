"""The shared pace, without an event loop: rules that always hold, and services that limit."""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprochat.batch.pace import BACKED_OFF, FIRST_PROBE, Pace

CONCURRENCY: Final = 8


def pace_of_twenty_a_second() -> Pace:
    """Return a pace that has had 20 replies within the second that ends at 2.0."""
    pace = Pace(CONCURRENCY)
    for _ in range(20):
        pace.reply(pace.begin(0.0), 1.5)
        pace.end()
    return pace


def test_as_many_calls_begin_at_once_as_the_concurrency_says() -> None:
    pace = Pace(3)
    for _ in range(3):
        assert pace.wait(0.0) == 0.0
        pace.begin(0.0)
    assert pace.wait(0.0) is None
    pace.end()
    assert pace.wait(0.0) == 0.0


def test_a_refusal_pauses_all_calls_and_halves_how_many_may_be_under_way() -> None:
    pace = Pace(8)
    began = pace.begin(0.0)
    pace.end()
    assert pace.refuse(began, now=1.0) == 1
    pace.pause(until=4.0)
    assert pace.limit == 4
    assert pace.wait(1.5) == 2.5
    assert pace.wait(4.0) == 0.0
    assert pace.refuse(pace.begin(4.0), now=4.0) == 2
    assert pace.limit == 2


def test_refusals_of_calls_that_began_before_the_pause_count_once() -> None:
    pace = Pace(8)
    calls = [pace.begin(0.0) for _ in range(8)]
    assert [pace.refuse(began, now=1.0) for began in calls] == [1] * 8
    assert pace.limit == 4


def test_a_later_refusal_makes_the_pause_longer_and_never_shorter() -> None:
    pace = Pace(8)
    pace.pause(until=4.0)
    pace.pause(until=2.0)
    assert pace.paused_until == 4.0
    pace.pause(until=9.0)
    assert pace.wait(4.0) == 5.0


def test_replies_add_one_call_for_as_many_replies_as_calls_were_under_way() -> None:
    pace = Pace(8)
    pace.refuse(pace.begin(0.0), now=0.0)
    pace.end()
    assert pace.limit == 4
    for _ in range(5):
        began = pace.begin(1.0)
        pace.end()
        pace.reply(began, 1.0)
    assert pace.limit == 5
    for _ in range(100):
        began = pace.begin(1.0)
        pace.end()
        pace.reply(began, 1.0)
    assert pace.limit == 8


def test_a_reply_to_a_call_of_before_the_pause_does_not_end_a_row_of_refusals() -> None:
    pace = Pace(8)
    early, refused = pace.begin(0.0), pace.begin(0.0)
    pace.refuse(refused, now=1.0)
    pace.reply(early, 2.0)
    assert pace.refusals == 1
    pace.reply(pace.begin(2.0), 2.0)
    assert pace.refusals == 0


def test_there_is_no_rate_before_the_first_refusal() -> None:
    pace = Pace(8)
    for _ in range(1000):
        pace.begin(0.0)
        pace.end()
    assert pace.rate(0.0) == inf
    assert pace.wait(0.0) == 0.0


def test_the_rate_after_a_refusal_is_what_the_service_took_and_then_grows_ever_faster() -> None:
    pace = pace_of_twenty_a_second()
    pace.refuse(pace.begin(1.9), now=2.0)
    pace.pause(until=3.0)
    first, second, third = (pace.rate(3.0 + FIRST_PROBE * n) for n in range(3))
    assert first == pytest.approx(20.0)
    assert 0 < second - first < third - second


def test_a_refusal_after_a_few_replies_teaches_no_rate() -> None:
    pace = Pace(8)
    for _ in range(3):
        pace.reply(pace.begin(0.0), 0.1)
        pace.end()
    pace.refuse(pace.begin(0.1), now=0.2)
    pace.pause(until=1.2)
    assert pace.rate(1.2) == inf


def test_a_rate_that_was_kept_until_a_refusal_is_reduced_a_little() -> None:
    pace = pace_of_twenty_a_second()
    pace.refuse(pace.begin(1.9), now=2.0)
    pace.pause(until=3.0)
    for number in range(40):
        pace.reply(pace.begin(3.0 + number / 20), 3.0 + number / 20)
        pace.end()
    before = pace.rate(5.0)
    pace.refuse(pace.begin(5.0), now=5.0)
    pace.pause(until=6.0)
    assert pace.rate(6.0) == pytest.approx(BACKED_OFF * before)


def test_a_service_that_takes_nothing_for_a_while_leaves_the_rate_as_it_is() -> None:
    pace = pace_of_twenty_a_second()
    for now in (2.0, 3.0, 5.0, 9.0):
        pace.refuse(pace.begin(now), now)
        pace.end()
        pace.pause(now)
    assert pace.rate(9.0) == pytest.approx(20.0)


@given(
    st.integers(1, 50),
    st.lists(
        st.tuples(
            st.floats(0, 10), st.sampled_from(["begin", "reply", "refuse", "fail"]), st.floats(0, 5)
        ),
        max_size=200,
    ),
)
def test_no_call_begins_in_a_pause_or_beyond_the_limit_which_stays_in_its_bounds(
    concurrency: int, steps: list[tuple[float, str, float]]
) -> None:
    pace = Pace(concurrency)
    now = 0.0
    calls: deque[int] = deque()
    for passed, what, pause in steps:
        now += passed
        wait = pace.wait(now)
        if what == "begin":
            if wait == 0.0:
                assert pace.active < pace.limit
                assert now >= pace.paused_until
                calls.append(pace.begin(now))
            else:
                assert wait is None or wait > 0
        elif calls:
            pace.end()
            began = calls.popleft()
            if what == "reply":
                pace.reply(began, now)
            elif what == "refuse":
                pace.refuse(began, now)
                pace.pause(now + pause)
                assert pace.wait(now) is None or pace.wait(now) == pytest.approx(
                    pace.paused_until - now
                )
        assert pace.active == len(calls)
        assert 1 <= pace.limit <= concurrency
        assert pace.rate(now) > 0


@dataclass
class Outcome:
    """What a service saw of a run."""

    used: float
    refused: float


Limiter = Callable[[float], float | None]
"""Given the time of a request, takes it (None) or says in how many seconds to ask again."""


def fixed_window(rate: int) -> Limiter:
    counts: dict[int, int] = {}

    def take(now: float) -> float | None:
        window = int(now)
        counts[window] = counts.get(window, 0) + 1
        return None if counts[window] <= rate else ceil(window + 1 - now)

    return take


def sliding_window(rate: int) -> Limiter:
    times: deque[float] = deque()

    def take(now: float) -> float | None:
        while times and times[0] <= now - 1:
            times.popleft()
        if len(times) >= rate:
            return 1.0
        times.append(now)
        return None

    return take


def bucket(rate: int) -> Limiter:
    level, last = float(rate), 0.0

    def take(now: float) -> float | None:
        nonlocal level, last
        level, last = min(rate, level + (now - last) * rate), now
        if level < 1:
            return 1.0
        level -= 1
        return None

    return take


def simulate(
    take: Limiter, *, rate: float, seconds: float, latency: float, hint: bool = True
) -> Outcome:
    """Let `CONCURRENCY` workers ask a service for some seconds of its time."""
    pace = Pace(CONCURRENCY)
    ends: list[tuple[float, int, int, float | None]] = []
    now, taken, refused = 0.0, 0, 0
    while now < seconds:
        wait = pace.wait(now)
        if wait == 0.0:
            # A request arrives at once and is answered later.
            again = take(now)
            refused += again is not None
            taken += again is None
            end = now + (latency if again is None else 0.001)
            heapq.heappush(ends, (end, taken + refused, pace.begin(now), again))
            continue
        # Timers fire a little late.
        wake = inf if wait is None else now + wait + 0.0005
        if not ends or wake < ends[0][0]:
            now = wake
            continue
        now, _, began, again = heapq.heappop(ends)
        pace.end()
        if again is None:
            pace.reply(began, now)
        else:
            number = pace.refuse(began, now)
            pace.pause(now + (again if hint else 0.75 * 2.0 ** (number - 1)))
    return Outcome(taken / (rate * seconds), refused / (taken + refused))


@pytest.mark.parametrize("latency", [0.001, 0.1])
@pytest.mark.parametrize("hint", [True, False], ids=["with Retry-After", "without"])
@pytest.mark.parametrize("limiter", [fixed_window, sliding_window, bucket])
def test_a_service_that_limits_requests_a_second_is_used_and_refuses_few(
    limiter: Callable[[int], Limiter], hint: bool, latency: float
) -> None:
    # Without Retry-After, it takes a minute or two to find how long a pause has to be.
    seconds = 60 if hint else 300
    outcome = simulate(limiter(50), rate=50, seconds=seconds, latency=latency, hint=hint)
    assert outcome.used >= 0.9
    assert outcome.refused <= 0.05
