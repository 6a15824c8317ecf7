"""`ask_many` on both event loops, against a service within the process."""

import asyncio
import gc
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from functools import partial
from itertools import count, pairwise
from math import inf
from random import Random
from time import monotonic
from typing import Any, Final, TypeAlias
from unittest import mock

import anyio
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from gprochat.batch import Failure, Prompt, Result, ask_many, asking, pace
from gprochat_core import (
    AuthenticationError,
    Cause,
    ConfigurationError,
    ConnectError,
    Message,
    NotTheService,
    PasswordRejected,
    Phase,
    RateLimited,
    ResponseError,
    RetryPolicy,
    ServiceFailed,
    SignatureRejected,
    TransportError,
    UsageError,
)
from tests.transports.fake import Answer

from .double import LOOPS, PLAIN, Double, echo, refuse

Main: TypeAlias = Callable[[], Awaitable[None]]
Run: TypeAlias = Callable[[Main], None]

LIMIT: Final = 10.0
"""Seconds that a test's coroutine may take."""

PAUSES: Final = asking.PAUSES
"""The pauses of real runs; `short_pauses` makes them shorter for tests."""

LOST: Final = TransportError(Cause.LOST, Phase.CONNECTING)
FORBIDDEN: Final = refuse(401)


def refuse_with(status: int, message: bytes) -> Answer:
    return Answer(status, PLAIN, (b'{"error": {"message": "%b"}}' % message,))


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    def run(main: Main) -> None:
        async def limited() -> None:
            with anyio.fail_after(LIMIT):
                await main()

        LOOPS[request.param](limited)

    return run


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = RetryPolicy(max_attempts=3, base_delay=0.01, max_delay=0.02)
    monkeypatch.setattr(asking, "PAUSES", policy)


@pytest.fixture
def run_in_no_time(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run on trio, with the pauses of real runs. The clock jumps whenever all tasks wait."""
    monkeypatch.setattr(asking, "PAUSES", PAUSES)
    monkeypatch.setattr(asking, "monotonic", trio.current_time)
    return lambda main: trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def numbered(number: int) -> list[str]:
    return [f"prompt {each}" for each in range(number)]


async def all_of(results: AsyncIterator[Result]) -> list[Result]:
    return [result async for result in results]


def fails_first(times: int, failure: Answer | TransportError) -> Callable[[str], Any]:
    """Return what answers the first calls with a failure."""
    left = iter(range(times))
    return lambda message: echo(message) if next(left, None) is None else failure


def test_each_prompt_has_one_result(run: Run) -> None:
    async def main() -> None:
        service = Double()
        results = await all_of(ask_many(service.client(), numbered(50)))
        assert service.most == 8
        assert sorted(service.asked) == sorted(numbered(50))
        assert {result.id: result.text for result in results} == {
            str(number): text for number, text in enumerate(numbered(50))
        }
        assert len(results) == 50
        assert all((each.status, each.attempts, each.error) == (200, 1, None) for each in results)

    run(main)


def test_prompts_may_come_asynchronously_and_have_ids(run: Run) -> None:
    async def prompts() -> AsyncIterator[Prompt]:
        for number in range(50):
            await anyio.lowlevel.checkpoint()
            yield Prompt(f"id {number}", [{"role": "user", "content": f"prompt {number}"}])

    async def main() -> None:
        results = await all_of(ask_many(Double().client(), prompts()))
        assert {(result.id, result.text) for result in results} == {
            (f"id {number}", f"prompt {number}") for number in range(50)
        }

    run(main)


def test_nothing_to_ask_is_no_result(run: Run) -> None:
    async def main() -> None:
        assert await all_of(ask_many(Double().client(), [])) == []

    run(main)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_calls_are_under_way_than_the_concurrency_says(run: Run, concurrency: int) -> None:
    async def main() -> None:
        service = Double()
        await all_of(ask_many(service.client(), numbered(20), concurrency=concurrency))
        assert service.most == concurrency

    run(main)


@pytest.mark.parametrize("ordered", [False, True])
def test_prompts_are_taken_only_as_results_are(run: Run, ordered: bool) -> None:
    async def main() -> None:
        service = Double()
        taken = count()
        prompts = (f"prompt {number}" for number in iter(lambda: next(taken), -1))
        room = 2 * (asking.ORDERED_ROOM if ordered else asking.ROOM)
        async with ask_many(service.client(), prompts, concurrency=2, ordered=ordered) as results:
            for handed_over in range(1, 4):
                await anext(results)
                await anyio.wait_all_tasks_blocked()
                assert len(service.asked) == handed_over + room
        assert next(taken) == 3 + room

    run(main)


@pytest.mark.parametrize("ordered", [False, True])
def test_the_loop_ends_if_the_last_results_are_taken_late_all_at_once(
    run: Run, ordered: bool
) -> None:
    """A worker that waits for room may find that there are no more prompts."""

    async def main() -> None:
        for number in range(40):
            done: list[Result] = []
            async for result in ask_many(
                Double().client(), numbered(number), concurrency=2, ordered=ordered
            ):
                if not done:
                    for _ in range(200):
                        await anyio.lowlevel.checkpoint()
                done.append(result)
            assert len(done) == number

    run(main)


@given(
    number=st.integers(0, 40),
    concurrency=st.integers(1, 8),
    ordered=st.booleans(),
    asynchronous=st.booleans(),
    max_calls=st.none() | st.integers(1, 60),
    stop_after=st.none() | st.integers(1, 40),
    failing=st.sampled_from([0.0, 0.1, 0.3]),
    seed=st.integers(0, 10**6),
)
def test_a_run_ends_and_no_prompt_has_two_results(
    number: int,
    concurrency: int,
    ordered: bool,
    asynchronous: bool,
    max_calls: int | None,
    stop_after: int | None,
    failing: float,
    seed: int,
) -> None:
    """Calls take any number of steps and may fail; results are taken at once, or late.

    The clock jumps whenever all tasks wait, so that a run that never ends fails at once.
    """
    random = Random(seed)

    async def some_steps() -> None:
        for _ in range(random.choice([0, 1, 3, 50])):
            await trio.lowlevel.checkpoint()

    async def one_by_one() -> AsyncGenerator[str]:
        for prompt in numbered(number):
            await some_steps()
            yield prompt

    def answer(message: str) -> Answer | TransportError:
        if random.random() < failing:
            failures: list[Answer | TransportError] = [refuse(429), refuse(500), refuse(503), LOST]
            return random.choice(failures)
        return echo(message)

    async def main() -> None:
        service = Double(answer=answer, checkpoint=some_steps)
        done: list[int] = []
        with trio.fail_after(24 * 3600):
            async with aclosing(one_by_one()) as slow_prompts:
                results = ask_many(
                    service.client(),
                    slow_prompts if asynchronous else numbered(number),
                    concurrency=concurrency,
                    ordered=ordered,
                    max_calls=max_calls,
                )
                try:
                    async for result in results:
                        done.append(int(result.id))
                        if len(done) == stop_after:
                            results.stop()
                        await some_steps()
                except (ConnectError, RateLimited, ServiceFailed):
                    assert failing
                else:
                    assert len(done) == number or stop_after is not None or results.budget_used
        assert len(set(done)) == len(done)
        assert done == sorted(done) or not ordered
        assert len(service.asked) <= (max_calls or inf)

    with mock.patch.object(asking, "monotonic", trio.current_time):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_prompt_or_a_result_wakes_few_of_many_workers(
    run: Run, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    take = asking.Run._take

    def counted(self: asking.Run) -> Any:
        nonlocal looks
        looks += 1
        return take(self)

    async def let_all_tasks_run() -> None:
        for _ in range(20):
            await anyio.lowlevel.checkpoint()

    async def one_by_one() -> AsyncIterator[str]:
        for prompt in numbered(200):
            await let_all_tasks_run()
            yield prompt

    async def main() -> None:
        prompts = one_by_one() if asynchronous else numbered(200)
        async for _ in ask_many(Double().client(), prompts, concurrency=50):
            await let_all_tasks_run()

    monkeypatch.setattr(asking.Run, "_take", counted)
    run(main)
    assert looks < 5 * 200


def test_results_come_in_the_order_of_the_prompts_if_asked_to(run: Run) -> None:
    async def main() -> None:
        service = Double()
        held = anyio.Event()

        async def checkpoint() -> None:
            if len(service.asked) == 1:
                await held.wait()
            elif len(service.asked) == 20:
                held.set()

        service.checkpoint = checkpoint
        results = await all_of(
            ask_many(service.client(), numbered(20), concurrency=4, ordered=True)
        )
        assert [result.text for result in results] == numbered(20)

    run(main)


def test_a_prompt_that_fails_is_a_result_with_the_text_that_arrived(run: Run) -> None:
    async def main() -> None:
        lost = TransportError(Cause.LOST, Phase.READING)
        service = Double(answer=lambda _: Answer(headers=PLAIN, pieces=(b"Once upon", lost)))
        (result,) = await all_of(ask_many(service.client(), [Prompt("tale", "Tell")]))
        assert result.error is not None
        assert (result.id, result.text, result.status) == ("tale", None, 200)
        assert (result.error.kind, result.error.text) == ("TruncatedReply", "Once upon")
        assert "connection" in result.error.message

    run(main)


def test_a_conversation_that_cannot_be_sent_fails_alone(run: Run) -> None:
    async def main() -> None:
        prompts = [Prompt("bad", []), Prompt("good", "Hello")]
        results = {each.id: each for each in await all_of(ask_many(Double().client(), prompts))}
        assert results["good"].text == "Hello"
        error = results["bad"].error
        assert isinstance(error, Failure)
        assert (error.kind, error.text, results["bad"].attempts) == ("InvalidMessages", "", 0)

    run(main)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_none_among_the_prompts_is_not_their_end(run: Run, asynchronous: bool) -> None:
    async def later() -> AsyncIterator[Any]:
        for prompt in prompts:
            yield prompt

    prompts: list[Any] = ["a", None, "b"]

    async def main() -> None:
        asked = later() if asynchronous else prompts
        found = await all_of(ask_many(Double().client(), asked, concurrency=1))
        assert [each.text for each in found] == ["a", None, "b"]
        assert [each.error and each.error.kind for each in found] == [None, "InvalidMessages", None]

    run(main)


def test_a_failure_that_may_pass_is_retried_as_often_as_the_policy_says(run: Run) -> None:
    async def main() -> None:
        retry = RetryPolicy(max_attempts=3, base_delay=0.0)
        for failures, status, kind in ((2, 200, None), (3, 500, "ServiceFailed")):
            service = Double(answer=fails_first(failures, refuse(500)))
            (result,) = await all_of(ask_many(service.client(), ["Hello"], retry=retry))
            assert result.attempts == len(service.asked) == 3
            assert result.status == status
            assert (result.error and result.error.kind) == kind

    run(main)


@pytest.mark.parametrize("last", [echo("Hello"), refuse(400)], ids=["reply", "failure"])
def test_the_seconds_are_those_of_the_last_attempt(run_in_no_time: Run, last: Answer) -> None:
    async def main() -> None:
        answers = iter([refuse(500), refuse(429), last])
        begins: list[float] = []
        service = Double(
            answer=lambda _: next(answers),
            begin=lambda: begins.append(trio.current_time()),
            checkpoint=partial(trio.sleep, 0.25),
        )
        result = await anext(ask_many(service.client(), ["Hello"]))
        assert result.attempts == 3
        assert result.seconds == pytest.approx(trio.current_time() - begins[-1])
        assert result.seconds > 0

    run_in_no_time(main)


@pytest.mark.parametrize(
    "refusal", [refuse(429), refuse(500, (b"retry-after", b"0"))], ids=["429", "500"]
)
def test_a_refusal_of_one_pauses_all_and_is_no_failure(run: Run, refusal: Answer) -> None:
    async def main() -> None:
        service = Double(answer=fails_first(1, refusal))
        retry = RetryPolicy(max_attempts=1)
        async with ask_many(service.client(), numbered(20), concurrency=4, retry=retry) as results:
            begins: list[bool] = []
            service.begin = lambda: begins.append(monotonic() >= results.pace.paused_until)
            found = await all_of(results)
            assert isinstance(results.refusal, ResponseError)
            assert results.pace.paused_until > 0
            # Replies have let the limit grow again.
            assert results.pace.limit == 4
            assert begins == [True] * results.calls == [True] * 21
        assert sorted(each.attempts for each in found) == [1] * 19 + [2]
        assert all(each.error is None for each in found)

    run(main)


@pytest.mark.parametrize(
    "refusal", [refuse(429), refuse(503, (b"retry-after", b"0"))], ids=["429", "503"]
)
def test_a_service_that_keeps_refusing_ends_the_run_and_no_prompt_fails(
    run: Run, refusal: Answer
) -> None:
    async def main() -> None:
        service = Double(answer=lambda message: echo(message) if message == "0" else refusal)
        results = ask_many(service.client(), ["0", "1", "2", "3", "4", "5"], concurrency=1)
        assert (await anext(results)).text == "0"
        with pytest.raises(ResponseError) as caught:
            await anext(results)
        assert caught.value.status == refusal.status
        # As often as PAUSES has attempts.
        assert service.asked == ["0", "1", "1", "1"]
        assert service.active == 0

    run(main)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refuse_with(401, b"Invalid signature."), SignatureRejected),
        (refuse_with(401, b"Invalid password."), PasswordRejected),
    ],
    ids=["wrong key", "wrong password"],
)
def test_an_error_that_every_prompt_would_meet_ends_the_run_at_once(
    run: Run, answer: Answer, error: type[Exception]
) -> None:
    async def main() -> None:
        service = Double(answer=lambda message: answer if message == "prompt 9" else echo(message))
        results = ask_many(service.client(), numbered(1000), concurrency=4)

        async def iterate() -> None:
            async for result in results:
                assert result.error is None

        with pytest.raises(error):
            await iterate()
        assert len(service.asked) < 20
        assert service.active == 0
        assert await all_of(results) == []

    run(main)


@pytest.mark.parametrize(
    ("answer", "error"),
    [(refuse(403), AuthenticationError), (refuse(404), NotTheService)],
    ids=["denied", "wrong URL"],
)
def test_an_error_before_the_first_reply_ends_the_run_at_once(
    run: Run, answer: Answer, error: type[Exception]
) -> None:
    async def main() -> None:
        service = Double(answer=lambda _: answer)
        with pytest.raises(error):
            await all_of(ask_many(service.client(), numbered(1000), concurrency=4))
        assert len(service.asked) <= 4

    run(main)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(refuse(403), "AuthenticationError"), (refuse(404), "NotTheService")],
    ids=["403", "404"],
)
def test_a_prompt_that_is_denied_while_others_are_answered_fails_alone(
    run: Run, answer: Answer, kind: str
) -> None:
    async def main() -> None:
        # The first prompt is denied too: it waits for the answers to the others.
        service = Double(answer=lambda message: answer if message.endswith("0") else echo(message))
        found = await all_of(ask_many(service.client(), numbered(50), concurrency=3))
        failed = {each.id: each.error.kind for each in found if each.error is not None}
        assert failed == dict.fromkeys(["0", "10", "20", "30", "40"], kind)

    run(main)


def test_a_service_that_denies_all_from_some_time_on_ends_the_run(run: Run) -> None:
    async def main() -> None:
        service = Double(
            answer=lambda message: echo(message) if message == "prompt 0" else FORBIDDEN
        )
        results = ask_many(service.client(), numbered(1000), concurrency=1)
        assert (await anext(results)).error is None
        for _ in range(asking.MAX_BLAMED):
            assert (await anext(results)).error is not None
        with pytest.raises(AuthenticationError):
            await anext(results)

    run(main)


@pytest.mark.parametrize("refusal", [refuse(429), LOST, refuse(504)], ids=["429", "lost", "504"])
def test_a_prompt_that_is_refused_while_others_are_answered_fails_alone(
    run: Run, refusal: Answer | TransportError
) -> None:
    async def main() -> None:
        service = Double(answer=lambda message: refusal if message == "prompt 3" else echo(message))
        retry = RetryPolicy(max_attempts=1)
        found = await all_of(ask_many(service.client(), numbered(500), concurrency=3, retry=retry))
        assert [each.id for each in found if each.error is not None] == ["3"]
        # As often as PAUSES has attempts, at most.
        assert service.asked.count("prompt 3") <= 3

    run(main)


def test_a_service_that_asks_for_no_pause_gets_one(run: Run) -> None:
    async def main() -> None:
        service = Double(answer=lambda _: refuse(429, (b"retry-after", b"0")))
        begin = monotonic()
        with pytest.raises(RateLimited):
            await all_of(ask_many(service.client(), numbered(9), concurrency=1))
        # Two pauses, each of them at least half of PAUSES's back-off.
        assert monotonic() - begin >= 0.5 * (0.01 + 0.02)

    run(main)


@pytest.mark.parametrize(
    "refusal", [refuse(429), refuse(429, (b"retry-after", b"0"))], ids=["no wish", "no wait"]
)
def test_pauses_grow_to_a_minute_and_the_tenth_refusal_ends_the_run(
    run_in_no_time: Run, refusal: Answer
) -> None:
    begins: list[float] = []

    async def main() -> None:
        service = Double(answer=lambda _: refusal, begin=lambda: begins.append(trio.current_time()))
        with pytest.raises(RateLimited):
            await all_of(ask_many(service.client(), ["Hello"]))

    run_in_no_time(main)
    pauses = [end - begin for begin, end in pairwise(begins)]
    back_offs = [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert len(pauses) == len(back_offs)
    # A random part of each back-off, but at least half of it.
    assert all(0.499 < pause / most < 1.001 for pause, most in zip(pauses, back_offs, strict=True))


def test_a_service_that_asks_for_a_pause_of_an_hour_gets_it(run_in_no_time: Run) -> None:
    async def main() -> None:
        service = Double(answer=fails_first(1, refuse(429, (b"retry-after", b"3600"))))
        (result,) = await all_of(ask_many(service.client(), ["Hello"]))
        assert result.text == "Hello"
        assert trio.current_time() >= 3600

    run_in_no_time(main)


AWAY = pytest.mark.parametrize(
    ("away", "error"),
    [(LOST, ConnectError), (refuse(502), ServiceFailed), (refuse(522), ServiceFailed)],
    ids=["lost", "502", "522"],
)
"""What a call meets if the service is away, without and with a proxy in front of it."""


@AWAY
def test_a_service_that_cannot_be_reached_ends_the_run(
    run: Run, away: Answer | TransportError, error: type[Exception]
) -> None:
    async def main() -> None:
        service = Double(answer=lambda _: away)
        retry = RetryPolicy(max_attempts=2, base_delay=0.0)
        results = ask_many(service.client(), numbered(9), concurrency=1, retry=retry)
        with pytest.raises(error):
            await all_of(results)
        assert service.asked == ["prompt 0"] * 2

    run(main)


@AWAY
def test_a_service_that_is_away_for_a_while_is_waited_for(
    run: Run, away: Answer | TransportError, error: type[Exception]
) -> None:
    async def main() -> None:
        service = Double()
        retry = RetryPolicy(max_attempts=1)
        results = ask_many(service.client(), numbered(9), concurrency=1, retry=retry)
        assert (await anext(results)).error is None
        service.answer = fails_first(2, away)
        assert all(result.error is None for result in await all_of(results))
        service = Double(answer=lambda message: echo(message) if message == "prompt 0" else away)
        results = ask_many(service.client(), numbered(9), concurrency=1, retry=retry)
        assert (await anext(results)).error is None
        with pytest.raises(error):
            await anext(results)
        # As often as PAUSES has attempts.
        assert service.asked == ["prompt 0", *["prompt 1"] * 3]

    run(main)


def test_the_budget_of_calls_is_kept(run: Run) -> None:
    async def main() -> None:
        service = Double()
        results = ask_many(service.client(), numbered(50), max_calls=7)
        assert len(await all_of(results)) == len(service.asked) == results.calls == 7
        assert results.budget_used
        results = ask_many(service.client(), numbered(7), max_calls=7)
        assert len(await all_of(results)) == 7
        assert not results.budget_used

    run(main)


def test_no_call_begins_after_the_time_of_the_budget_nor_is_a_pause_beyond_it_waited_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(asking, "monotonic", lambda: now)

    async def main() -> None:
        def a_minute_passes() -> None:
            nonlocal now
            now += 60

        service = Double(begin=a_minute_passes)
        results = ask_many(service.client(), map(str, count()), concurrency=1, max_seconds=110)
        assert len(await all_of(results)) == 2
        assert results.budget_used
        service = Double(answer=lambda _: refuse(429, (b"retry-after", b"60")))
        results = ask_many(service.client(), ["Hello"], max_seconds=30)
        assert await all_of(results) == []
        assert results.budget_used

    run(main)


def test_stop_lets_the_calls_under_way_finish(run: Run) -> None:
    async def main() -> None:
        service = Double()
        async with ask_many(service.client(), map(str, count()), concurrency=3) as results:
            await anext(results)
            results.stop()
            asked = len(service.asked)
            await all_of(results)
            assert len(service.asked) == asked
        assert service._count("close") == asked

    run(main)


def test_cancel_ends_the_calls_under_way_and_keeps_the_results_so_far(run: Run) -> None:
    async def main() -> None:
        service = Double()

        async def checkpoint() -> None:
            if len(service.asked) > 2:
                await anyio.sleep_forever()

        service.checkpoint = checkpoint
        async with ask_many(service.client(), map(str, count()), concurrency=2) as results:
            first = await anext(results)
            await anyio.wait_all_tasks_blocked()
            results.cancel()
            assert [first.text, *[each.text for each in await all_of(results)]] == ["0", "1"]
            assert service.active == 0

    run(main)


def stalled(then: Callable[[], object] = lambda: None) -> Double:
    """Return a service that answers two calls, and none after them.

    Args:
        then: called when the service stalls.
    """
    service = Double()

    async def checkpoint() -> None:
        if len(service.asked) > 2:
            then()
            await anyio.sleep_forever()

    service.checkpoint = checkpoint
    return service


def test_leaving_the_block_ends_all_calls(run: Run) -> None:
    async def main() -> None:
        service = stalled()
        async with ask_many(service.client(), map(str, count())) as results:
            async for _ in results:
                await anyio.wait_all_tasks_blocked()
                assert service.active
                break
        assert service.active == 0
        with pytest.raises(StopAsyncIteration):
            await anext(results)

    run(main)


def test_an_exception_in_the_block_ends_all_calls(run: Run) -> None:
    async def main() -> None:
        service = stalled()

        async def fail() -> None:
            async with ask_many(service.client(), map(str, count())) as results:
                await anext(results)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert service.active == 0

    run(main)


def test_cancelling_the_loop_over_the_results_ends_all_calls_first(run: Run) -> None:
    async def main() -> None:
        scope = anyio.CancelScope()
        service = stalled(then=scope.cancel)
        with scope:
            async for _ in ask_many(service.client(), map(str, count())):
                pass
        assert scope.cancelled_caught
        assert len(service.asked) > 2
        assert service.active == 0

    run(main)


def test_dropping_the_results_ends_all_calls_soon(run: Run) -> None:
    async def main() -> None:
        service = stalled()
        async for _ in ask_many(service.client(), map(str, count())):
            break
        gc.collect()
        await anyio.wait_all_tasks_blocked()
        await anyio.wait_all_tasks_blocked()
        assert service.active == 0

    run(main)


def test_taking_one_result_and_dropping_the_rest_ends_all_calls_soon(run: Run) -> None:
    async def main() -> None:
        service = stalled()
        assert (await anext(ask_many(service.client(), map(str, count())))).text
        gc.collect()
        await anyio.wait_all_tasks_blocked()
        await anyio.wait_all_tasks_blocked()
        assert service.active == 0

    run(main)


def test_results_that_are_never_iterated_ask_nothing(run: Run) -> None:
    async def main() -> None:
        service = Double()
        async with ask_many(service.client(), numbered(3)):
            pass
        ask_many(service.client(), numbered(3))
        assert service.asked == []

    run(main)


class Unusual(BaseException):
    """As pytest's own exceptions: no Exception."""


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, Unusual])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_exception_of_the_prompts_comes_after_the_results_before_it(
    run: Run, asynchronous: bool, error: type[BaseException]
) -> None:
    def broken() -> Iterator[str]:
        yield from ("Hello", "Goodbye")
        raise error

    async def broken_later() -> AsyncIterator[str]:
        for prompt in broken():
            yield prompt

    async def main() -> None:
        service = Double()
        prompts = broken_later() if asynchronous else broken()
        results = ask_many(service.client(), prompts)
        assert {(await anext(results)).text, (await anext(results)).text} == {"Hello", "Goodbye"}
        with pytest.raises(error):
            await anext(results)
        assert service.active == 0

    run(main)


def test_prompts_that_end_in_a_cancellation_of_their_own_are_not_at_their_end() -> None:
    async def prompts() -> AsyncIterator[str]:
        yield "Hello"
        task = asyncio.create_task(anyio.sleep_forever())
        task.cancel()
        await task

    async def main() -> None:
        results = ask_many(Double().client(), prompts())
        assert (await anext(results)).text == "Hello"
        with pytest.raises(asyncio.CancelledError):
            await anext(results)

    asyncio.run(main())


def test_the_time_of_the_budget_ends_the_wait_for_prompts(run: Run) -> None:
    async def endless() -> AsyncIterator[str]:
        yield "Hello"
        await anyio.sleep_forever()

    async def main() -> None:
        results = ask_many(Double().client(), endless(), max_seconds=0.1)
        assert [result.text for result in await all_of(results)] == ["Hello"]
        assert results.budget_used

    run(main)


def test_a_conversation_that_can_be_read_once_is_asked_again(run: Run) -> None:
    async def main() -> None:
        service = Double(answer=fails_first(2, refuse(429)))
        texts = ("Hello", "Goodbye")
        results = await all_of(ask_many(service.client(), [Prompt("a", iter(texts))]))
        assert [result.error for result in results] == [None]

    run(main)


def test_prompts_that_do_not_come_are_not_waited_for_after_a_stop(run: Run) -> None:
    async def endless() -> AsyncIterator[str]:
        yield "Hello"
        await anyio.sleep_forever()

    async def main() -> None:
        results = ask_many(Double().client(), endless())
        assert (await anext(results)).text == "Hello"
        await anyio.wait_all_tasks_blocked()
        results.stop()
        assert await all_of(results) == []

    run(main)


def test_a_prompt_that_waits_for_its_retry_is_not_waited_for_after_a_stop(run: Run) -> None:
    async def main() -> None:
        service = Double(answer=lambda text: refuse(500) if text == "prompt 1" else echo(text))
        retry = RetryPolicy(base_delay=60.0, max_delay=60.0)
        results = ask_many(service.client(), numbered(3), retry=retry)
        assert {(await anext(results)).id, (await anext(results)).id} == {"0", "2"}
        await anyio.wait_all_tasks_blocked()
        results.stop()
        assert await all_of(results) == []

    run(main)


def test_arguments_that_make_no_sense_are_refused() -> None:
    client = Double().client()
    prompts: list[Any] = ["Hello", Message("user", "Hello"), Prompt("a", "Hello")]
    for prompt in prompts:
        with pytest.raises(UsageError, match="a list of prompts"):
            ask_many(client, prompt)
    with pytest.raises(ConfigurationError, match="batch concurrency"):
        ask_many(client, ["Hello"], concurrency=0)
    with pytest.raises(ConfigurationError, match="batch max_calls"):
        ask_many(client, ["Hello"], max_calls=0)
    with pytest.raises(ConfigurationError, match="batch max_seconds"):
        ask_many(client, ["Hello"], max_seconds=0.0)


def test_results_are_iterated_by_one_task_at_a_time(run: Run) -> None:
    async def main() -> None:
        results = ask_many(stalled().client(), map(str, count()), concurrency=1)

        async def iterate() -> None:
            with pytest.raises(UsageError, match="another task"):
                async for _ in results:
                    pass
            await results.aclose()

        async with anyio.create_task_group() as group:
            group.start_soon(iterate)
            await all_of(results)

    run(main)


def test_memory_does_not_grow_with_the_number_of_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "REMEMBERED", 100)

    async def main() -> None:
        service = Double()
        blocks: list[int] = []
        prompts = (f"prompt {number}" for number in range(1000))
        async for result in ask_many(service.client(), prompts):
            # What the double remembers is not the subject.
            service.events.clear()
            service.asked.clear()
            service.requests.clear()
            service.limits.clear()
            if int(result.id) in (200, 900):
                gc.collect()
                blocks.append(sys.getallocatedblocks())
        assert blocks[1] < blocks[0] + 200

    asyncio.run(main())
