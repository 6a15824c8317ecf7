"""Which transport carries the chat, and the event loop that it runs on."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Protocol, TypeVar, cast

import click

from gprochat_core import RetryPolicy, Service
from gprochat_transports.client import Client
from gprochat_transports.environment import Proxy

__all__ = ["TRANSPORTS", "Loop", "choose"]

T = TypeVar("T")


class MakeClient(Protocol):
    """What the adapters' `Client` classes have in common."""

    def __call__(
        self, service: Service, *, proxy: Proxy = ..., retry: RetryPolicy | None = ...
    ) -> Client:
        """Make a client."""
        ...


class Run(Protocol):
    """What runs a coroutine function to its end on an event loop of its own."""

    def __call__(self, function: Callable[[], Coroutine[Any, Any, T]], /) -> T:
        """Run it; Ctrl-C cancels it and raises KeyboardInterrupt."""
        ...


def run_asyncio(function: Callable[[], Coroutine[Any, Any, T]], /) -> T:
    return asyncio.run(function())


def run_trio(function: Callable[[], Coroutine[Any, Any, T]], /) -> T:
    import trio

    try:
        # As on asyncio, Ctrl-C arrives like a cancellation: where the code waits.
        return trio.run(function, restrict_keyboard_interrupt_to_checkpoints=True)
    except BaseExceptionGroup as group:
        # trio connects in a nursery, which wraps what ends it.
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
    """A transport that is installed.

    Attributes:
        make_client: its `Client`.
        run: runs what uses the client.
    """

    make_client: MakeClient
    run: Run


def choose(name: str | None) -> Loop:
    """Return a transport by its name, or the first one that is installed.

    Raises:
        click.UsageError: its library is not installed.
    """
    for each in TRANSPORTS if name is None else [name]:
        try:
            module = import_module(f"gprochat_transports.{each}")
        except ImportError:
            continue
        return Loop(cast("MakeClient", module.Client), TRANSPORTS[each])
    raise click.UsageError(
        f"the library of the transport {name} is not installed: pip install 'gprochat[{name}]'"
        if name
        else "no transport's library is installed: pip install 'gprochat[aiohttp]'"
    )
