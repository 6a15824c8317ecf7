"""Many prompts on more than one machine: `Ask`, for `ray.data.Dataset.map_batches`.

Ray Data distributes the prompts, replaces workers that die, and writes the replies. `Ask` is what
runs in a worker. It asks the prompts of all batches in one `ask_many`, over one client, on an event
loop in a thread of its own: what the service's refusals have taught about its limit is then known to
the next batch, and no more than `concurrency` calls are under way even if Ray runs several batches
of a worker at once. Ray would run `async def __call__` on an event loop which it blocks while
results are not fetched, and time limits of calls would pass meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from itertools import count
from threading import Lock, Thread
from typing import TYPE_CHECKING, Final, TypeAlias, cast
from weakref import finalize

from gprochat_core import RetryPolicy, Timeouts, UsageError
from gprochat_core.messages import Conversation
from gprochat_core.policy import check_count
from gprochat_transports import service_from_environment
from gprochat_transports.extras import needs

from ..client import Client
from .asking import ask_many
from .results import Failure, Prompt, Result

with needs("ray"):
    import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Ask", "Batch"]

Batch: TypeAlias = "dict[str, NDArray[np.generic]]"
"""Ray's default format of a batch: columns by name, all of the same length."""

COLUMNS: Final = (
    *("reply", "status", "attempts", "seconds"),
    *("error", "error_message", "partial_reply"),
)
"""The columns that `Ask` adds."""


class Ask:
    """Asks the prompts of batches: `dataset.map_batches(Ask, fn_constructor_kwargs={...}, ...)`.

    Each worker has one object of this class. It talks to the service that the worker's environment
    names, see `service_from_environment`. So no secret is in this object, nor in what is pickled of
    it: only its arguments are.

    A batch that is called with returns with these columns added. None of them holds null, so all
    files that are written of them have one schema:

    * `reply`: the text of the reply; "" if there is no whole reply.
    * `status`: the HTTP status of the last attempt; 0 if there was no response.
    * `attempts`: how many requests were sent for the prompt.
    * `seconds`: how long the last attempt took.
    * `error`: the name of the error's class; "" if the prompt was answered.
    * `error_message`: what the error says.
    * `partial_reply`: what arrived of a reply that is not whole.

    Args:
        column: the column of the prompts: texts, or lists of role/content dicts.
        concurrency: how many calls of this worker are under way at once at most. There are fewer
            after a refusal.
        retry: how often a prompt is asked again after a failure that may pass, see `ask_many`.
        timeouts: the time limits of a call.

    Raises:
        ConfigurationError: `concurrency` is not a whole number above 0.

    Raises, when called:
        UsageError: the batch has no such column, or already has a column that would be added.
        ConfigurationError: the environment does not name a service and its secret key.
        Exception: what `ask_many` raises, such as AuthenticationError for a wrong secret key. Each
            later call then raises it too.
    """

    def __init__(
        self,
        *,
        column: str = "prompt",
        concurrency: int = 8,
        retry: RetryPolicy | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        check_count("batch", "concurrency", concurrency)
        self._column = column
        self._concurrency = concurrency
        self._retry = retry
        self._timeouts = timeouts
        self._lock = Lock()
        self._asking: Asking | None = None
        self._end: Callable[[], object] = bool

    def __call__(self, batch: Batch) -> Batch:
        """Ask the prompts of a batch, and return the batch with the replies."""
        if self._column not in batch:
            raise UsageError(
                f"the batch has no column {self._column!r}; it has {', '.join(batch) or 'none'}"
            )
        if taken := [name for name in COLUMNS if name in batch]:
            raise UsageError(
                f"the replies would overwrite {', '.join(taken)}; rename columns of the dataset"
            )
        results = self._running().ask(map(conversation, batch[self._column].tolist()))
        errors = [result.error or Failure("", "", "") for result in results]
        columns = (
            np.array([result.text or "" for result in results], dtype=object),
            np.array([result.status or 0 for result in results], dtype=np.int64),
            np.array([result.attempts for result in results], dtype=np.int64),
            np.array([result.seconds for result in results], dtype=np.float64),
            np.array([error.kind for error in errors], dtype=object),
            np.array([error.message for error in errors], dtype=object),
            np.array([error.text for error in errors], dtype=object),
        )
        return {**batch, **dict(zip(COLUMNS, columns, strict=True))}

    def __repr__(self) -> str:
        return f"<Ask column={self._column!r} concurrency={self._concurrency}>"

    def __reduce__(self) -> "tuple[partial[Ask], tuple[()]]":
        # Only the arguments; the copy makes a client of its own when it is first called.
        return partial(
            type(self),
            column=self._column,
            concurrency=self._concurrency,
            retry=self._retry,
            timeouts=self._timeouts,
        ), ()

    def close(self) -> None:
        """Close the client and end its thread. The same happens when the object is deleted."""
        with self._lock:
            self._asking = None
            self._end()

    def _running(self) -> "Asking":
        with self._lock:
            if self._asking is None:
                self._asking = Asking(self._concurrency, self._retry, self._timeouts)
                self._end = finalize(self, self._asking.end)
            return self._asking


def conversation(value: object) -> Conversation:
    """Return a value of a column as `ask_many` takes it, which refuses what is no conversation."""
    # Ray makes arrays of lists.
    return cast("Conversation", value.tolist() if isinstance(value, np.ndarray) else value)


class Asking:
    """One client and one `ask_many` for all batches, on an event loop in a thread.

    The thread refers to this object and not to `Ask`, so that it ends where that is deleted.
    """

    def __init__(
        self, concurrency: int, retry: RetryPolicy | None, timeouts: Timeouts | None
    ) -> None:
        self._concurrency = concurrency
        self._retry = retry
        self._timeouts = timeouts or Timeouts()
        self._numbers = count()
        self._prompts = asyncio.Queue[Prompt]()
        self._results: dict[str, asyncio.Future[Result]] = {}
        self._error: Exception | None = None
        self._ended = asyncio.Event()
        # The loop is made here, so that batches can be handed over before the thread runs.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        # A daemon: at the end of the process, Python waits for other threads before it finalizes.
        self._thread = Thread(target=self._run, name="gprochat-ask", daemon=True)
        self._thread.start()

    def ask(self, conversations: Iterable[Conversation]) -> list[Result]:
        """Return the results in the order of the conversations; any thread may call this."""
        return asyncio.run_coroutine_threadsafe(self._ask(conversations), self._loop).result()

    def end(self) -> None:
        """End all calls, close the client, and wait for the thread."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    def _run(self) -> None:
        with self._runner as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        asking = asyncio.create_task(self._ask_many())
        await self._ended.wait()
        asking.cancel()
        await asyncio.wait([asking])

    async def _ask(self, conversations: Iterable[Conversation]) -> list[Result]:
        if self._error is not None:
            raise self._error
        waiting: list[asyncio.Future[Result]] = []
        for conversation in conversations:
            prompt = Prompt(str(next(self._numbers)), conversation)
            self._results[prompt.id] = self._loop.create_future()
            waiting.append(self._results[prompt.id])
            self._prompts.put_nowait(prompt)
        return await asyncio.gather(*waiting)

    async def _ask_many(self) -> None:
        try:
            async with (
                Client(service_from_environment(), timeouts=self._timeouts) as client,
                ask_many(
                    client, self._incoming(), concurrency=self._concurrency, retry=self._retry
                ) as results,
            ):
                async for result in results:
                    self._results.pop(result.id).set_result(result)
        except Exception as error:
            self._error = error
            for future in self._results.values():
                future.set_exception(error)

    async def _incoming(self) -> AsyncIterator[Prompt]:
        while True:
            yield await self._prompts.get()
