"""Many prompts, some at a time: `async for result in ask_many(client, prompts)`.

An asynchronous generator must not own connections: if its loop is left early, it is closed at
some later time by another task. So `ask_many` returns an object. One background task makes its
calls, which end with the task. The task ends at the latest when the object's block is left, when
the loop over the object is cancelled, or when nobody refers to the object any more.

All calls share one `Pace`. A refusal (RateLimited, or an error with Retry-After) pauses all of
them; it does not count as a failure of its prompt, which is asked again. Other failures that may
pass are retried for each prompt by itself.

Some errors usually concern all prompts, but a single prompt can be the reason: a firewall blocks
its words, or it is too long for the model's rate limit. As long as the service replies to other
prompts, such an error is a failure of its prompt; only without replies does it end the run.
"""

import asyncio
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from math import inf
from random import random, uniform
from time import monotonic
from types import TracebackType
from typing import Final, Self, TypeAlias

from gprochat_core import (
    AuthenticationError,
    ConnectError,
    GPROChatError,
    IncompleteReply,
    InvalidMessages,
    Message,
    NotTheService,
    PasswordRejected,
    RateLimited,
    ResponseError,
    RetryPolicy,
    ServiceFailed,
    SignatureRejected,
    UsageError,
)
from gprochat_core.messages import Conversation
from gprochat_core.policy import check_count, check_number, is_transient
from gprochat_transports import Client, Reply
from gprochat_transports.extras import needs
from gprochat_transports.pool import Event

from ..client import running_loop
from .pace import Pace
from .results import Failure, Prompt, Result

with needs("batch"):
    import anyio

__all__ = ["Prompts", "Results", "ask_many"]

Prompts: TypeAlias = Iterable[Prompt | Conversation] | AsyncIterable[Prompt | Conversation]
"""Prompts, or conversations, whose ids are then "0", "1" and so on."""

ONCE: Final = RetryPolicy(max_attempts=1)
"""The policy of each call: a call that the client repeats would not wait for the common pause."""

PAUSES: Final = RetryPolicy(max_attempts=10, base_delay=1.0, max_delay=60.0, max_retry_after=1e9)
"""How long to pause after refusals. After so many in a row a run ends, and after so many of one
prompt, while others are answered, the prompt has failed."""

MAX_BLAMED: Final = 10
"""How many prompts in a row may fail by an error of `SUSPECT` before it ends the run."""

ROOM: Final = 2
ORDERED_ROOM: Final = 16
"""How many prompts may have been read whose results the caller does not have yet, as a multiple of
the concurrency. `ORDERED_ROOM` is for `ordered`, where results wait for those before them."""

FATAL: Final = (SignatureRejected, PasswordRejected, UsageError)
"""Errors that every prompt would meet."""

SUSPECT: Final = (AuthenticationError, NotTheService)
"""Errors that every prompt would meet, unless the service replies to others."""


def ask_many(
    client: Client,
    prompts: Prompts,
    *,
    concurrency: int = 8,
    ordered: bool = False,
    retry: RetryPolicy | None = None,
    max_calls: int | None = None,
    max_seconds: float | None = None,
) -> "Results":
    """Ask many prompts, some at a time: `async for result in ask_many(client, prompts)`.

    Prompts are taken from the iterable only when a call can begin, and calls begin only while
    results are taken, so memory does not grow with the number of prompts. A prompt that fails is a
    result too. A failure that every prompt would meet ends the loop with an exception, and is not
    a result: a wrong key or password, a URL at which there is no such service, a service that
    cannot be reached or keeps refusing. If the service denies or keeps refusing one prompt, and
    replies to others, only this prompt fails.

    The calls begin with the first step of the loop. To leave the loop before its end, use a block,
    which has ended all calls when it is left:

        async with ask_many(client, prompts) as results:
            async for result in results:
                ...

    Args:
        client: sends the prompts, on the event loop that runs. Its `Limits.max_connections` should
            not be below `concurrency`; its own retry policy is not used.
        prompts: an iterable or asynchronous iterable of `Prompt` or of conversations.
        concurrency: how many calls are under way at once at most. There are fewer after a refusal.
        ordered: whether results come in the order of the prompts, not in that of completion.
        retry: how often a prompt is asked again after a failure that may pass; `RetryPolicy()` by
            default. Refusals do not count.
        max_calls: no call begins after so many attempts; None for any number.
        max_seconds: for how many seconds calls may begin; None for no limit. A pause that would
            not be over by then ends the run at once.

    Raises:
        ConfigurationError: `concurrency`, `max_calls` or `max_seconds` is not a number above 0.
        UsageError: `prompts` is one prompt.

    Raises, while results are iterated:
        AuthenticationError, NotTheService: as described above.
        RateLimited, ServiceFailed: the service refused ten times in a row, with a pause after each
            refusal.
        ConnectError, ServiceFailed: the service could not be reached ten times in a row; if it
            never could, as often as `retry` says.
        UsageError: the client is closed, or belongs to another event loop.
        Exception: what iterating over `prompts` raised, after the results of the prompts before.
    """
    if isinstance(prompts, (str, bytes, Mapping, Message, Prompt)):
        raise UsageError("ask_many takes a list of prompts, or anything else that yields them")
    check_count("batch", "concurrency", concurrency)
    if max_calls is not None:
        check_count("batch", "max_calls", max_calls)
    if max_seconds is not None:
        check_number("batch", "max_seconds", max_seconds, zero=False)
    return Results(
        Run(
            client,
            prompts,
            concurrency,
            ordered=ordered,
            retry=retry or RetryPolicy(),
            max_calls=max_calls,
            max_seconds=max_seconds,
        )
    )


class Results(AsyncIterator[Result]):
    """The results of `ask_many`, to be iterated over once.

    All methods must be called on the event loop on which the results are iterated.
    """

    def __init__(self, run: "Run") -> None:
        self._run = run

    @property
    def pace(self) -> Pace:
        """How many calls are under way, how many may be, and until when all pause."""
        return self._run.pace

    @property
    def refusal(self) -> GPROChatError | None:
        """Why the calls paused last; None if they never did."""
        return self._run.refusal

    @property
    def calls(self) -> int:
        """How many attempts have been made, without those of calls under way."""
        return self._run.calls

    @property
    def budget_used(self) -> bool:
        """Whether prompts were left out because `max_calls` or `max_seconds` was reached."""
        return self._run.budget_used

    def stop(self) -> None:
        """Begin no more calls. Those under way go on, and the loop ends after their results."""
        self._run.stop()

    def cancel(self) -> None:
        """Begin no more calls, and end those under way. The loop ends after the results so far."""
        self._run.cancel()

    async def aclose(self) -> None:
        """End all calls and wait for their end; leaving the block does the same."""
        await self._run.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __anext__(self) -> Coroutine[object, object, Result]:
        # The coroutine refers to this object, so that a first `await anext(...)` gets its result.
        return self._run.next(self)

    def __del__(self) -> None:
        self._run.abandon()


class Run:
    """The background task of a `Results`, and what both share.

    The task refers to this object and not to `Results`, so that it ends when `Results` is deleted.
    """

    def __init__(
        self,
        client: Client,
        prompts: Prompts,
        concurrency: int,
        *,
        ordered: bool,
        retry: RetryPolicy,
        max_calls: int | None,
        max_seconds: float | None,
    ) -> None:
        self.pace: Pace = Pace(concurrency)
        self.refusal: GPROChatError | None = None
        self.calls: int = 0
        self.budget_used: bool = False
        self._client = client
        self._prompts = prompts
        self._iterator = None if isinstance(prompts, AsyncIterable) else iter(prompts)
        self._concurrency = concurrency
        self._ordered = ordered
        self._retry = retry
        self._max_calls = inf if max_calls is None else max_calls
        self._max_seconds = inf if max_seconds is None else max_seconds
        self._deadline = inf
        # These two are asyncio's, or trio's. Those of anyio take longer: they first ask which event
        # loop runs.
        self._make_event: Callable[[], Event] = asyncio.Event
        self._let_others_run: Callable[[], Awaitable[None]] = partial(asyncio.sleep, 0)
        self._call_soon: Callable[[Callable[[], object]], object] | None = None
        self._scope: anyio.CancelScope | None = None
        # Two lines of workers: for a prompt, and for a call to begin. Only the first one of a line
        # waits for a change; if all did, each prompt would wake all workers.
        self._prompt_line = anyio.Lock(fast_acquire=True)
        self._call_line = anyio.Lock(fast_acquire=True)
        # What the tasks, and the caller who iterates, wait for; None where nobody waits.
        self._changed: Event | None = None
        self._arrived: Event | None = None
        self._stopping = anyio.Event()
        self._ended = anyio.Event()
        # No more prompts come; no more calls begin.
        self._exhausted = False
        self._stopped = False
        self._error: BaseException | None = None
        self._answers = 0
        # How many prompts have failed since the last reply by an error that may be every prompt's.
        # Before the first reply, none may.
        self._blamed = MAX_BLAMED
        # A prompt of an asynchronous iterable, and what its reader waits for before the next.
        self._incoming: list[tuple[Prompt | Conversation, Event]] = []
        # Results by the number of their prompt.
        self._ready: dict[int, Result] = {}
        # How many prompts have been taken, and how many results handed over.
        self._taken = 0
        self._handed_over = 0
        self._room = concurrency * (ORDERED_ROOM if ordered else ROOM)

    async def next(self, _results: Results) -> Result:
        """Return the next result; the first call starts the background task."""
        if self._arrived is not None:
            raise UsageError("another task iterates over these results; do it in one task")
        if self._call_soon is None and not self._ended.is_set():
            self._start()
        while not self._ready or (self._ordered and self._handed_over not in self._ready):
            if self._ended.is_set():
                if self._ready:
                    break
                error, self._error = self._error, None
                try:
                    raise error or StopAsyncIteration
                finally:
                    # The error's traceback holds this frame: without it there is no cycle.
                    del error
            self._arrived = self._make_event()
            try:
                await self._arrived.wait()
            except BaseException:
                await self.aclose()
                raise
            finally:
                self._arrived = None
        if not self._ordered:
            number = next(iter(self._ready))
        elif self._handed_over in self._ready:
            number = self._handed_over
        else:
            # Prompts that were given up at the end leave gaps.
            number = min(self._ready)
        self._handed_over += 1
        self._wake()
        return self._ready.pop(number)

    def stop(self) -> None:
        self._stopped = True
        self._stopping.set()
        self._wake()

    def cancel(self) -> None:
        self.stop()
        if self._scope is None:
            self._end()
        elif not self._ended.is_set():
            self._scope.cancel()

    async def aclose(self) -> None:
        self.cancel()
        with anyio.CancelScope(shield=True):
            await self._ended.wait()
        self._ready.clear()
        self._error = None

    def abandon(self) -> None:
        """End the background task soon; any thread may call this, also after the event loop."""
        if self._call_soon is not None and not self._ended.is_set():
            with suppress(RuntimeError):
                self._call_soon(self.cancel)

    def _start(self) -> None:
        self._deadline = monotonic() + self._max_seconds
        self._scope = anyio.CancelScope()
        if running_loop() == "trio":
            import trio

            self._make_event = trio.Event
            self._let_others_run = trio.lowlevel.checkpoint
            self._call_soon = trio.lowlevel.current_trio_token().run_sync_soon
            trio.lowlevel.spawn_system_task(self._main, context=copy_context())
        else:
            loop = asyncio.get_running_loop()
            self._call_soon = loop.call_soon_threadsafe
            self._task = loop.create_task(self._main(), name="gprochat ask_many")

    async def _main(self) -> None:
        assert self._scope is not None
        try:
            with self._scope:
                async with anyio.create_task_group() as readers:
                    if isinstance(self._prompts, AsyncIterable):
                        read = partial(self._read, self._prompts, readers.cancel_scope)
                        readers.start_soon(self._guard, read)
                    async with anyio.create_task_group() as workers:
                        for _ in range(self._concurrency):
                            workers.start_soon(self._guard, self._work)
                    readers.cancel_scope.cancel()
        finally:
            self._end()

    def _end(self) -> None:
        self._ended.set()
        if self._arrived is not None:
            self._arrived.set()

    async def _guard(self, function: Callable[[], Awaitable[None]]) -> None:
        """Run a task; what it raises ends the run, and then the iteration."""
        try:
            await function()
        except Exception as error:
            self._error = self._error or error
            self.cancel()

    async def _read(
        self, prompts: AsyncIterable[Prompt | Conversation], scope: anyio.CancelScope
    ) -> None:
        try:
            async for prompt in prompts:
                taken = self._make_event()
                self._incoming.append((prompt, taken))
                self._wake()
                await taken.wait()
        except BaseException as error:
            # A cancellation may also come out of the iterable: then it is an error like others.
            cancelled = isinstance(error, anyio.get_cancelled_exc_class())
            if cancelled and (scope.cancel_called or self._stopped):
                raise
            self._error = self._error or error
        self._exhausted = True
        self._wake()

    async def _work(self) -> None:
        while not self._stopped:
            taken = None if self._prompt_line.locked() else self._take()
            if taken is None:
                taken = await self._wait_for_prompt()
            if taken is None:
                return
            number, prompt = taken
            if isinstance(prompt, Prompt):
                result = await self._ask(prompt.id, prompt.conversation)
            else:
                result = await self._ask(str(number), prompt)
            if result is None:
                return
            self._ready[number] = result
            if self._arrived is not None:
                self._arrived.set()
            # Lets other workers finish their calls before this one begins the next. Processors are
            # faster if many tasks take the same step one after the other.
            await self._let_others_run()

    async def _wait_for_prompt(self) -> tuple[int, Prompt | Conversation] | None:
        """Return the next prompt with its number; None if there are no more, or after `stop`."""
        async with self._prompt_line:
            while not self._stopped:
                # `_take` may just have found that there are no more prompts. After that, perhaps
                # nothing changes any more.
                if (taken := self._take()) or self._exhausted:
                    return taken
                left = self._deadline - monotonic()
                if left > 0:
                    await self._change(None if left == inf else left)
                else:
                    self._use_up_budget()
        return None

    def _take(self) -> tuple[int, Prompt | Conversation] | None:
        """Return the next prompt with its number; None if there is no room, or none has come."""
        number = self._taken
        if number - self._handed_over >= self._room or self._exhausted:
            return None
        if self._iterator is not None:
            try:
                prompt = next(self._iterator)
            except StopIteration:
                self._exhausted = True
                return None
            except BaseException as error:
                # The calls under way go on, and their results come before the exception.
                self._error = self._error or error
                self._exhausted = True
                return None
        elif self._incoming:
            prompt, taken = self._incoming.pop()
            taken.set()
        else:
            return None
        self._taken += 1
        return number, prompt

    async def _ask(self, prompt_id: str, conversation: Conversation) -> Result | None:
        """Make calls until there is a result; None if no more calls may begin."""
        if not isinstance(conversation, str) and isinstance(conversation, Iterator):
            # It is read for each attempt.
            conversation = list(conversation)
        attempts = failures = refusals = 0
        while True:
            if self._call_line.locked() or self._wait() != 0:
                await self._wait_for_call()
            if self._stopped:
                return None
            answers = self._answers
            start = monotonic()
            began = self.pace.begin(start)
            reply, error = await self._attempt(conversation)
            attempts += 0 if reply is None else reply.attempts
            seconds = monotonic() - start
            if error is None:
                assert reply is not None
                self._answers += 1
                self._blamed = 0
                self.pace.reply(began, start + seconds)
                return Result(prompt_id, reply.text, reply.status, attempts, seconds)
            # If no call was answered meanwhile, the service cannot be reached for any prompt.
            away = is_away(error) and answers == self._answers
            if not is_away(error) and not isinstance(error, InvalidMessages):
                self._answers += 1
            pause = None
            if away or is_refusal(error):
                refusals += 1
                # A prompt that is refused so often while others are answered is itself the reason.
                most = PAUSES.max_attempts
                if refusals < most or self.pace.refusals + 1 >= most:
                    self._pause_all(error, began)
                    continue
            else:
                failures += 1
                pause = await self._judge(error, failures)
            if pause is None:
                partial_text = error.text if isinstance(error, IncompleteReply) else ""
                failure = Failure(type(error).__name__, str(error), partial_text)
                status = None if reply is None else reply.status
                return Result(prompt_id, None, status, attempts, seconds, failure)
            await self._sleep(pause)

    async def _attempt(
        self, conversation: Conversation
    ) -> tuple[Reply | None, GPROChatError | None]:
        """Make a call; return its reply, and its error if it failed."""
        reply: Reply | None = None
        try:
            reply = self._client.stream(conversation, retry=ONCE)
            async with reply:
                async for _ in reply:
                    pass
        except GPROChatError as error:
            return reply, error
        finally:
            self.calls += 0 if reply is None else reply.attempts
            self.pace.end()
            self._wake()
        return reply, None

    async def _judge(self, error: GPROChatError, failures: int) -> float | None:
        """Return the pause before a prompt is asked again, None if it has failed.

        Raises:
            GPROChatError: the error itself, if every prompt would meet it.
        """
        if isinstance(error, FATAL):
            raise error
        if isinstance(error, SUSPECT):
            # A call that is under way may still get a reply.
            while self._blamed >= MAX_BLAMED and self.pace.active:
                await self._change()
            if self._blamed >= MAX_BLAMED:
                raise error
            self._blamed += 1
        return self._retry.delay(error, failures, random())

    async def _wait_for_call(self) -> None:
        """Wait until a call may begin."""
        async with self._call_line:
            while (wait := self._wait()) != 0:
                await self._change(wait)

    def _wait(self) -> float | None:
        """Return what `Pace.wait` returns; 0 too if no more calls may begin."""
        now = monotonic()
        wait = self.pace.wait(now)
        if (
            self.calls + self.pace.active >= self._max_calls
            or now + (wait or 0.0) >= self._deadline
        ) and not self._stopped:
            self._use_up_budget()
        return 0.0 if self._stopped else wait

    def _use_up_budget(self) -> None:
        self.budget_used = True
        self.stop()

    def _pause_all(self, error: GPROChatError, began: int) -> None:
        """Pause after a refusal; raise it if it was the last of too many in a row."""
        self.refusal = error
        now = monotonic()
        # A service that has never been reached is unlikely to be there a minute later.
        never_reached = is_away(error) and not self._answers
        policy = self._retry if never_reached else PAUSES
        refusals, jitter = self.pace.refuse(began, now), uniform(0.5, 1.0)
        pause = policy.delay(error, refusals, jitter)
        if pause is None:
            raise error
        # A service may ask for a shorter wait than helps, such as none.
        self.pace.pause(now + max(pause, policy.back_off(refusals, jitter)))
        self._wake()

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but no longer than calls may begin."""
        with anyio.move_on_after(seconds):
            await self._stopping.wait()

    async def _change(self, seconds: float | None = None) -> None:
        """Wait until something has changed, or some seconds have passed."""
        if self._changed is None:
            self._changed = self._make_event()
        if seconds is None:
            await self._changed.wait()
            return
        with anyio.move_on_after(seconds):
            await self._changed.wait()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None


def is_refusal(error: GPROChatError) -> bool:
    """Tell whether the service asks for fewer requests, whatever the prompt."""
    if isinstance(error, RateLimited):
        return True
    return (
        isinstance(error, ResponseError) and error.retry_after is not None and is_transient(error)
    )


def is_away(error: GPROChatError) -> bool:
    """Tell whether the service was not reached, by its proxy's word too."""
    if isinstance(error, ServiceFailed):
        # The service itself answers 500; the other statuses that may pass are a proxy's.
        return error.status > 500 and is_transient(error)
    return isinstance(error, ConnectError)
