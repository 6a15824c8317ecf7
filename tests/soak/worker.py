"""The callers of the soak: many streams at once on one adapter, and what they leave behind.

Run as a program, this file prints one `Result` as JSON.
"""

import ctypes
import gc
import json
import os
import secrets
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final

import anyio

from gprochat_core import GPROChatError, IncompleteReply, Limits, RetryPolicy, Service, Timeouts
from tests.contract.adapters import ADAPTERS, Adapter, Blocking, Client
from tests.soak.faults import FAULTS, Fault, is_fault, prompt_for, reply_to

__all__ = ["Callers", "Result"]

CLIENTS: Final = 4
"""Clients that the streams share."""

WARM_UP: Final = 2000
"""Calls, at most, before memory is measured for the first time."""

SETTLE: Final = 2.0
"""Seconds within which closed connections must be gone from the list of open files."""

SETTINGS: Final[dict[str, Any]] = {
    "timeouts": Timeouts(connect=60.0, first_byte=60.0, idle=2.0),
    "retry": RetryPolicy(max_attempts=2, base_delay=0.01, max_delay=0.01, max_retry_after=1.0),
    "proxy": None,
}


@dataclass
class Result:
    """The result of a run.

    Attributes:
        calls: how many were made after the warm-up.
        faults: how many of them met a fault.
        seconds: how long they took.
        wrong: a line for each call that did not end as it must.
        files: how many more are open when all is closed than before the first call.
        memory: bytes of resident memory gained since the warm-up.
    """

    calls: int = 0
    faults: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list[str])
    files: int = 0
    memory: int = 0


class Callers:
    """Some streams at once, each of which makes one call after the other.

    Args:
        adapter: the transport.
        url: the peer's.
        streams: how many.
        clients: how many clients they share.
        connections: how many connections each client may have; None for as many as streams.
    """

    def __init__(
        self,
        adapter: Adapter,
        url: str,
        streams: int,
        clients: int = CLIENTS,
        connections: int | None = None,
    ) -> None:
        service = Service(url, secret_key=secrets.token_hex())
        limits = Limits(max_connections=connections or streams)
        self._make = partial(adapter.make, service, limits=limits, **SETTINGS)
        self._clients = clients
        self._blocking = isinstance(adapter.loop, Blocking)
        self._backend = "trio" if adapter.name.endswith("@trio") else "asyncio"
        self._streams = streams
        self._numbers: Iterator[int] = iter(())
        self.wrong: list[str] = []

    def run(self, warm_up: int, calls: int) -> Result:
        """Make so many calls for a warm-up, and then those that count."""
        files = open_files()
        if self._blocking:
            result = self._run_in_threads(warm_up, calls)
        else:
            result = anyio.run(self._run_on_a_loop, warm_up, calls, backend=self._backend)
        deadline = monotonic() + SETTLE
        while open_files() > files and monotonic() < deadline:
            pass
        result.files = open_files() - files
        result.faults = sum(is_fault(number) for number in range(calls))
        result.wrong = self.wrong
        return result

    async def _run_on_a_loop(self, warm_up: int, calls: int) -> Result:
        async def make_calls(count: int) -> None:
            self._numbers = iter(range(count))
            async with anyio.create_task_group() as group:
                for stream in range(self._streams):
                    group.start_soon(self._call_on, clients[stream % self._clients])

        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(self._make()) for _ in range(self._clients)]
            await make_calls(warm_up)
            memory = resident_memory()
            begun = monotonic()
            await make_calls(calls)
            seconds = monotonic() - begun
            return Result(calls, seconds=seconds, memory=resident_memory() - memory)

    def _run_in_threads(self, warm_up: int, calls: int) -> Result:
        def call_on(client: Client) -> None:
            Blocking().run(partial(self._call_on, client))

        def make_calls(count: int) -> None:
            self._numbers = iter(range(count))
            # The memory of the threads themselves is freed when they end.
            with ThreadPoolExecutor(self._streams) as threads:
                shared = [clients[stream % self._clients] for stream in range(self._streams)]
                for _ in threads.map(call_on, shared):
                    pass

        clients = [self._make() for _ in range(self._clients)]
        make_calls(warm_up)
        memory = resident_memory()
        begun = monotonic()
        make_calls(calls)
        seconds = monotonic() - begun
        result = Result(calls, seconds=seconds, memory=resident_memory() - memory)
        for client in clients:
            Blocking().run(client.aclose)
        return result

    async def _call_on(self, client: Client) -> None:
        """Make calls until there are no more to make."""
        for number in self._numbers:
            prompt = prompt_for(number)
            try:
                await self._call(client, prompt)
            except Exception as error:
                # The report names this call; the other calls go on.
                self.wrong.append(f"{prompt}: {error!r}"[:300])

    async def _call(self, client: Client, prompt: str) -> None:
        """Make one call; raise AssertionError if it does not end as it must."""
        _, _, name = prompt.partition(" ")
        fault = FAULTS.get(name, Fault())
        expected = reply_to(prompt)[: fault.characters]
        text = ""
        error: GPROChatError | None = None
        try:
            async with client.stream(prompt) as reply:
                async for piece in reply:
                    text += piece
                    if name == "cancelled" and not self._blocking:
                        # The peer sends nothing more.
                        with anyio.move_on_after(0.01):
                            await anext(reply)
                            raise AssertionError("a reply that stands still went on")
                    if name in ("left early", "cancelled"):
                        break
        except GPROChatError as raised:
            error = raised
        if error is None:
            assert not fault.errors, "it should have failed"
            assert text == expected, f"not this text: {text!r}"
        else:
            assert isinstance(error, fault.errors), f"not this error: {error!r}"
            assert expected.startswith(text), f"not this text: {text!r}"
            if isinstance(error, IncompleteReply):
                assert error.text == text, f"the error has {error.text!r}, not {text!r}"


def open_files() -> int:
    """Return how many file descriptors are open."""
    return len(os.listdir("/dev/fd"))


def resident_memory() -> int:
    """Return the resident bytes of this process, after garbage collection and `malloc_trim`."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main(name: str, url: str, calls: str, streams: str) -> None:
    """Run one transport's soak and print its result."""
    adapter = next(each for each in ADAPTERS if each.name == name)
    count = int(calls)
    result = Callers(adapter, url, int(streams)).run(min(WARM_UP, count), count)
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main(*sys.argv[1:])
