"""Which adapter a command uses, and the event loop that the adapter runs on."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import click

from gprochat_core import RetryPolicy, Service, Timeouts
from gprochat_transports import Client
from gprochat_transports.environment import Proxy

from ..client import first_installed

__all__ = ["TRANSPORTS", "Loop", "choose"]

T = TypeVar("T")


class MakeClient(Protocol):
    """The `Client` class of any adapter."""

    def __call__(
        self,
        service: Service,
        *,
        proxy: Proxy = ...,
        retry: RetryPolicy | None = ...,
        timeouts: Timeouts | None = ...,
    ) -> Client:
        """Make a client."""
        ...


class Run(Protocol):
    """Runs a coroutine function to its end on an event loop of its own."""

    def __call__(self, function: Callable[[], Coroutine[Any, Any, T]], /) -> T:
        """Run the function; Ctrl-C cancels it and raises KeyboardInterrupt."""
        ...


def run_asyncio(function: Callable[[], Coroutine[Any, Any, T]], /) -> T:
    return asyncio.run(function())


def run_trio(function: Callable[[], Coroutine[Any, Any, T]], /) -> T:
    import trio

    try:
        # As on asyncio, Ctrl-C then interrupts only code that waits.
        return trio.run(function, restrict_keyboard_interrupt_to_checkpoints=True)
    except BaseExceptionGroup as group:
        # trio connects in a nursery, and a nursery raises a group of exceptions.
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        raise KeyboardInterrupt from None


TRANSPORTS: Final[dict[str, Run]] = {
    "aiohttp": run_asyncio,
    "httpx": run_asyncio,
    "trio": run_trio,
}


@dataclass(frozen=True, slots=True)
class Loop:
    """An adapter that is installed.

    Attributes:
        make_client: the adapter's `Client`.
        run: runs a coroutine function on the adapter's event loop.
    """

    make_client: MakeClient
    run: Run


def choose(name: str | None) -> Loop:
    """Return an adapter by its name, or the first adapter that is installed.

    Raises:
        click.UsageError: the adapter's library is not installed, or no adapter's.
    """
    try:
        adapter = first_installed(TRANSPORTS if name is None else [name])
    except ImportError as error:
        raise click.UsageError(str(error)) from None
    return Loop(adapter.Client, TRANSPORTS[adapter.__name__.rpartition(".")[2]])
