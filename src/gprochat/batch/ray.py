"""Many prompts on more than one machine: `Ask`, for `ray.data.Dataset.map_batches`.

Ray Data distributes the prompts, replaces workers that die, and writes the replies: docs/guides/
ray.md shows the whole program. `Ask` is what runs in a worker. It asks the prompts of all batches
in one `ask_many`, over one client, on an event loop in a thread of its own. So what a refusal
taught about the service's limit is known to the next batch, and a worker keeps to its `concurrency`
even if Ray runs several of its batches at once. (Ray would run an `async def __call__` on an
event loop that it blocks while nobody fetches results. Replies would run into time limits.)

Neither Ray nor a library that comes with it is imported: a batch is used by the methods of `Table`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import count
from threading import Lock, Thread
from typing import Protocol, Self, TypeAlias, TypeVar
from weakref import finalize

from gprochat_core import Limits, RetryPolicy, Timeouts, UsageError
from gprochat_core.messages import Conversation
from gprochat_core.policy import check_count
from gprochat_transports import service_from_environment

from ..client import Client
from .asking import ask_many
from .results import Failure, Prompt, Result

__all__ = ["Ask", "Column", "Table"]


Values: TypeAlias = list[str] | list[int] | list[float]


class Column(Protocol):
    """What is used of a `pyarrow.ChunkedArray`."""

    def to_pylist(self) -> list[Conversation]:
        """Return the values."""
        ...


class Table(Protocol):
    """What is used of a `pyarrow.Table`."""

    @property
    def column_names(self) -> Sequence[str]:
        """The names of the columns."""
        ...

    def column(self, i: str) -> Column:
        """Return a column by its name."""
        ...

    def append_column(self, field_: str, column: list[Values]) -> Self:
        """Return a table with one more column, whose values are a list of lists."""
        ...


AnyTable = TypeVar("AnyTable", bound=Table)


class Ask:
    """Asks the prompts of batches: `dataset.map_batches(Ask, batch_format="pyarrow", ...)`.

    Each worker makes one object of this class, from `fn_constructor_kwargs`. It talks to the
    service that the worker's environment names, see `service_from_environment`: this object, and
    what is pickled of it, hold its arguments and no secret.

    A batch is returned with these columns added. They are never null, so all files that are
    written have the same schema:

    * `reply` (str): the whole reply; "" if the prompt failed.
    * `status` (int): the HTTP status of the last attempt; 0 if there was no response.
    * `attempts` (int): how many attempts were made for the prompt.
    * `seconds` (float): how long the last attempt took.
    * `error` (str): the name of the error's class, such as "TruncatedReply"; "" if the prompt was
      answered.
    * `error_message` (str): what the error says, without secrets; "" if there is none.
    * `partial_reply` (str): the part of a failed prompt's reply that arrived.

    Args:
        column: the column of the prompts: texts, or lists of role/content dicts.
        concurrency: how many calls of this worker are under way at once at most. There are fewer
            after a refusal.
        retry: how often a prompt is asked again after a failure that may pass, see `ask_many`.
        timeouts: the time limits of a call.

    Raises:
        ConfigurationError: `concurrency` is not a whole number above 0.

    Raises, when called:
        UsageError: the batch is not a table, has no such column, or has a column that would be
            overwritten.
        ConfigurationError: the environment does not name a service and its secret key.
        Exception: what ends `ask_many`, such as AuthenticationError for a wrong secret key. Each
            later call raises it too.
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

    def __call__(self, batch: AnyTable) -> AnyTable:
        """Ask the prompts of a batch, and return the batch with the replies."""
        if isinstance(batch, Mapping):
            raise UsageError('pass batch_format="pyarrow" to map_batches')
        names = batch.column_names
        if self._column not in names:
            raise UsageError(f"the batch has no column {self._column!r} but {', '.join(names)}")
        if taken := [name for name in columns([]) if name in names]:
            raise UsageError(f"columns would be overwritten: {', '.join(taken)}; rename them")
        results = self._running().ask(batch.column(self._column).to_pylist())
        for name, values in columns(results).items():
            batch = batch.append_column(name, [values])
        return batch

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


def columns(results: list[Result]) -> dict[str, Values]:
    errors = [result.error or Failure("", "", "") for result in results]
    return {
        "reply": [result.text or "" for result in results],
        "status": [result.status or 0 for result in results],
        "attempts": [result.attempts for result in results],
        "seconds": [result.seconds for result in results],
        "error": [error.kind for error in errors],
        "error_message": [error.message for error in errors],
        "partial_reply": [error.text for error in errors],
    }


class Asking:
    """One client and one `ask_many` for all batches, on an event loop in a thread.

    The thread refers to this object and not to `Ask`, so that it ends when the `Ask` is deleted.
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
                Client(
                    service_from_environment(),
                    timeouts=self._timeouts,
                    limits=Limits(max_connections=self._concurrency),
                ) as client,
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
