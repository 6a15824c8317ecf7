"""The command `gprochat batch`: the prompts of a file, their results in another file."""

import os
import re
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import isfinite
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from time import monotonic
from types import FrameType
from typing import BinaryIO, Final

import anyio
import anyio.lowlevel
import click

from gprochat_core import Limits
from gprochat_core.messages import Encoding
from gprochat_transports import Client
from gprochat_transports.environment import Proxy

from ..batch import Prompt, Prompts, Results, ask_many
from ..batch.reading import Format, InputError, format_of, read_prompts
from ..batch.records import ANSWERED, MISSING, Counts, OutputError, OutputFile
from .failures import FAILURE, WrongUsage
from .loops import Loop, choose, reports
from .options import (
    encoding_option,
    example,
    find_service,
    proxy_option,
    service_options,
    transport_option,
)
from .output import is_terminal
from .progress import Progress, State, choose_progress, duration

__all__ = ["batch"]

SYNC_EVERY: Final = 1.0
"""Seconds between two times that the output is written through to the disk."""

LOOK_EVERY: Final = 0.02
"""Seconds between two looks at whether a pipe has brought a prompt."""

MAX_CONCURRENCY: Final = 10_000
"""The most calls at once: each takes memory from the beginning of the run."""

SKIPS: Final = 256
"""After how many prompts that are not asked the event loop does something else."""

HANGUP: Final[signal.Signals | None] = getattr(signal, "SIGHUP", None)
"""The signal of a terminal that is closed; Windows has none."""

READ_AHEAD: Final = 100
"""How many prompts are read from a pipe before they are needed."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be spent: attempts, seconds; None for any number."""

    calls: int | None = None
    seconds: float | None = None


def read_budget(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> Budget:
    calls: int | None = None
    seconds: float | None = None
    for value in values:
        number = re.fullmatch(r"(\d+(?:\.\d+)?)m|(\d+)", value)
        if number is None or not float(number[1] or number[2]):
            raise click.BadParameter(
                "give a number of calls, such as 500, or of minutes, as in 30m"
            )
        if number[1]:
            seconds = 60 * float(number[1])
        else:
            calls = int(number[2])
    return Budget(calls, seconds)


def read_grace(_context: click.Context, _parameter: click.Parameter, seconds: float) -> float:
    if not isfinite(seconds):
        raise click.BadParameter("give a number of seconds")
    return seconds


@click.command(
    epilog=example(
        "gprochat batch prompts.jsonl -o replies.jsonl",
        "gprochat batch table.csv --template 'Translate: {text}' -o replies.jsonl",
    )
)
@click.argument(
    "source", metavar="IN", type=click.Path(exists=True, dir_okay=False, allow_dash=True)
)
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file for the results, as lines of JSON. If it exists, the run goes on with it.",
)
@click.option(
    "--format",
    "given_format",
    type=click.Choice(["jsonl", "csv", "text"]),
    help="Default: as the name of IN ends; text for standard input.",
)
@click.option(
    "--column",
    metavar="NAME",
    help="The CSV column of the prompts. Default: prompt, or the only column.",
)
@click.option(
    "--template", metavar="TEXT", help="The prompt, with names of CSV columns in braces: {name}."
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, MAX_CONCURRENCY),
    default=8,
    show_default=True,
    help="How many calls are under way at once at most.",
)
@click.option("--ordered", is_flag=True, help="Write the results of this run in the order of IN.")
@click.option("--retry-failed", is_flag=True, help="Ask prompts again that failed in earlier runs.")
@click.option(
    "--budget",
    metavar="N|Nm",
    multiple=True,
    callback=read_budget,
    help="Begin no call after N attempts, or after N minutes. Can be given once for each.",
)
@click.option(
    "--grace",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    callback=read_grace,
    default=30.0,
    show_default=True,
    help="How long Ctrl-C lets replies under way go on.",
)
@click.option("--quiet", is_flag=True, help="Show no progress and no summary.")
@transport_option
@service_options
@proxy_option
@encoding_option
def batch(
    source: str,
    output: Path,
    given_format: Format | None,
    column: str | None,
    template: str | None,
    concurrency: int,
    ordered: bool,
    retry_failed: bool,
    budget: Budget,
    grace: float,
    quiet: bool,
    transport: str | None,
    url: str | None,
    name: str | None,
    ask_password: bool,
    ask_secret_key: bool,
    proxy: Proxy,
    encoding: Encoding | None,
) -> None:
    """Ask each prompt of the file IN, and write the results to OUT.

    IN is JSON lines with id and prompt, or id and messages, or OpenAI's batch format; or CSV; or
    text with a prompt on each line. With -, it is standard input.

    Run the same command again to go on: it asks the prompts that have no line in OUT yet. All calls
    slow down together when the service refuses one. Ctrl-C lets the replies under way finish; a
    second Ctrl-C ends them.

    The exit code is 0 only if OUT has a reply to every prompt of IN.
    """
    format = given_format or format_of(Path(source).suffix)
    if (column is not None or template is not None) and format != "csv":
        raise click.UsageError("--column and --template are for CSV; add --format csv")
    if column is not None and template is not None:
        raise click.UsageError("--template names the columns; leave --column out")
    if str(output) == "-":
        raise click.UsageError("the results go to a file, not to standard output; name one with -o")
    loop = choose(transport)
    service = find_service(
        url, name, ask_password=ask_password, ask_secret_key=ask_secret_key, encoding=encoding
    )
    with ExitStack() as stack:
        stream = open_input(source)
        if is_file(stream):
            # A pipe could not be closed while a thread waits for what comes from it.
            stack.enter_context(stream)
        if output.exists() and os.path.samestat(os.fstat(stream.fileno()), output.stat()):
            raise click.UsageError("IN and OUT are the same file; name another file with -o")
        try:
            record = stack.enter_context(closing(OutputFile(output, retry_failed=retry_failed)))
            job = Job(record, stream, partial(read_prompts, stream, format, column, template))
        except (InputError, OutputError) as error:
            raise WrongUsage(str(error)) from error
        begun = monotonic()
        try:
            job.run(
                loop,
                partial(
                    loop.make_client,
                    service,
                    proxy=proxy,
                    limits=Limits(max_connections=concurrency),
                ),
                partial(
                    ask_many,
                    concurrency=concurrency,
                    ordered=ordered,
                    max_calls=budget.calls,
                    max_seconds=budget.seconds,
                ),
                choose_progress(quiet=quiet),
                grace,
            )
        except InputError as error:
            raise WrongUsage(str(error)) from error
        finally:
            counts = record.counts()
            if not quiet:
                for line in summary(job, counts, monotonic() - begun, retry_failed=retry_failed):
                    click.echo(line, err=True)
    if job.ended_by:
        # The code that a shell reports for a program that the signal has ended.
        sys.exit(128 + job.ended_by)
    if counts.failed or counts.missing or not job.read_to_end:
        sys.exit(FAILURE)


def open_input(source: str) -> BinaryIO:
    """Open the input; "-" is standard input."""
    return open(0, "rb", closefd=False) if source == "-" else open(source, "rb")


def is_file(stream: BinaryIO) -> bool:
    return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)


class Job:
    """The run of a batch, in the thread of an event loop, and its display, in the main thread.

    Args:
        record: the output file.
        stream: the input file.
        read: reads prompts from it.

    Attributes:
        results: the results as they come; None before the run begins.
        interrupts: how often Ctrl-C was pressed; SIGTERM and SIGHUP count twice.
        ended_by: the number of the last such signal; 0 if there was none.
        read_to_end: whether all prompts of the input are known; those of a pipe may not be.

    Raises:
        InputError: the input cannot be used.
    """

    def __init__(
        self, record: OutputFile, stream: BinaryIO, read: Callable[[], Iterator[Prompt]]
    ) -> None:
        self.results: Results | None = None
        self.interrupts: int = 0
        self.ended_by: int = 0
        self._record = record
        self._read = read
        self._answered = self._failed = 0
        self._total: int | None = None
        self._checked = 0
        self._skipped = 0
        self._is_file = is_file(stream)
        self.read_to_end: bool = self._is_file
        if self._is_file:
            # All is checked, and counted, before the first prompt is asked.
            start = stream.tell()
            for prompt in read():
                record.check(prompt)
                self._checked += 1
            stream.seek(start)
            counts = record.counts()
            self._answered, self._failed = counts.answered, counts.failed
            self._total = counts.answered + counts.failed + counts.missing

    def run(
        self,
        loop: Loop,
        make_client: Callable[[], Client],
        ask: Callable[[Client, Prompts], Results],
        display: Progress,
        grace: float,
    ) -> None:
        """Ask all prompts that are to be asked.

        Args:
            loop: the event loop to use.
            make_client: makes the client.
            ask: `ask_many` with its settings.
            display: shows the progress.
            grace: for how many seconds the replies under way may go on after Ctrl-C.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed three times, or before the run had begun.
            GPROChatError: the run has ended early.
        """

        async def work(_report: Callable[[None], None]) -> None:
            prompts = self.missing() if self._is_file else self._arriving()
            async with make_client() as client, ask(client, prompts) as self.results:
                async for result in self.results:
                    self._record.write(result)
                    self._count(result.error is None)

        handled = 0
        synced = 0.0
        with (
            closing(display),
            loop.thread() as start,
            self._interruptible(),
            closing(reports(start, work)) as ticks,
        ):
            for _ in ticks:
                now = monotonic()
                display.show(self._state(now), now)
                if now - synced >= SYNC_EVERY:
                    self._record.sync()
                    synced = now
                if self.interrupts == handled:
                    continue
                handled = self.interrupts
                if self.results is None:
                    raise KeyboardInterrupt
                if handled == 1:
                    left = duration(grace)
                    display.say(f"ending; replies under way have {left}; Ctrl-C ends them now")
                    start(partial(finish, self.results, grace))
                else:
                    # The loop over the results goes on: it still writes those that have finished.
                    start(partial(finish, self.results, 0.0))

    async def missing(self) -> AsyncIterator[Prompt]:
        """Give the prompts of a file that are to be asked, without those appended meanwhile."""
        for prompt in islice(self._read(), self._checked):
            if self._record.needs(prompt):
                yield prompt
            else:
                await self._skip()

    async def _arriving(self) -> AsyncIterator[Prompt]:
        """Give the prompts of a pipe as they arrive."""
        queue: Queue[Prompt | Exception | None] = Queue(maxsize=READ_AHEAD)

        def read() -> None:
            try:
                for prompt in self._read():
                    queue.put(prompt)
                queue.put(None)
            except Exception as error:
                queue.put(error)

        # A daemon, because nothing can end a read from a pipe.
        Thread(target=read, name="gprochat-input", daemon=True).start()
        while True:
            try:
                item = queue.get_nowait()
            except Empty:
                await anyio.sleep(LOOK_EVERY)
                continue
            if item is None:
                self.read_to_end = True
                return
            if isinstance(item, Exception):
                raise item
            state = self._record.check(item)
            if state == MISSING:
                yield item
            else:
                self._count(state == ANSWERED)
                await self._skip()

    async def _skip(self) -> None:
        """Pass over a prompt. There may be a million, and replies and Ctrl-C must not wait."""
        self._skipped += 1
        if self._skipped % SKIPS == 0:
            await anyio.lowlevel.checkpoint()

    def _count(self, answered: bool) -> None:
        if answered:
            self._answered += 1
        else:
            self._failed += 1

    def _state(self, now: float) -> State:
        if self.results is None:
            return State(self._answered, self._failed, self._total, 0)
        pace = self.results.pace
        return State(
            self._answered,
            self._failed,
            self._total,
            pace.limit,
            max(0.0, pace.paused_until - now),
            self.results.refusal,
        )

    @contextmanager
    def _interruptible(self) -> Generator[None, None, None]:
        """Count two Ctrl-C, or one SIGTERM or SIGHUP; the next one ends the process at once."""
        on_terminal = is_terminal(sys.stderr)

        def interrupt(number: int, _frame: FrameType | None) -> None:
            self.ended_by = number
            self.interrupts += 1 if number == signal.SIGINT else 2
            if number == HANGUP and on_terminal:
                # Writing to a terminal that is closed raises, and results would be lost.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
            if self.interrupts >= 2:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)

        numbers = {signal.SIGINT, signal.SIGTERM}
        if HANGUP is not None and signal.getsignal(HANGUP) != signal.SIG_IGN:
            # Under nohup it is ignored, and the run goes on.
            numbers.add(HANGUP)
        before = {number: signal.signal(number, interrupt) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


async def finish(results: Results, grace: float) -> None:
    """Begin no more calls, and end those that are under way after some seconds."""
    results.stop()
    await anyio.sleep(grace)
    results.cancel()


def summary(job: Job, counts: Counts, seconds: float, *, retry_failed: bool) -> Iterator[str]:
    """Give the lines that a run ends with."""
    calls = 0 if job.results is None else job.results.calls
    done = f"{counts.answered} answered, {counts.failed} failed"
    if job.read_to_end:
        done += f", {counts.missing} not done"
    yield f"{done}; {calls} attempts in {duration(seconds)}"
    if not job.read_to_end:
        yield "the input was not read to its end"
    if job.results is not None and job.results.budget_used:
        yield "the budget is used up"
    if counts.missing or not job.read_to_end or (counts.failed and retry_failed):
        yield "to go on, run the same command again"
    if counts.failed and not retry_failed:
        yield "to ask the failed prompts again, add --retry-failed"
    if counts.foreign and job.read_to_end:
        yield f"{counts.foreign} results in the output are of prompts that are not in the input"
