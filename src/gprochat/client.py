"""The client for the event loop that runs: the first adapter for that loop that is installed."""

import asyncio
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Final, Unpack

import gprochat_transports
from gprochat_core import Service, UsageError
from gprochat_transports.options import ClientOptions

__all__ = ["Client", "first_installed"]

# The adapter for trio needs only trio and h11, and httpx brings h11. So on trio, no program needs
# the adapter for httpx.
ADAPTERS: Final[Mapping[str, tuple[str, ...]]] = {
    "asyncio": ("aiohttp", "httpx"),
    "trio": ("trio",),
}
"""The adapters for each event loop, the preferred one first."""


class Client(gprochat_transports.Client):
    """A client for the event loop that runs, asyncio or trio.

    On asyncio it uses the adapter for aiohttp, or the one for httpx if aiohttp is not installed;
    on trio it uses the adapter for trio. Make it inside `async def`:

        async with gprochat.Client(service) as client:
            print(await client.complete("Hello"))

    To pass a session or client of a library, use that adapter's own `Client`.

    Args:
        service: the deployment to talk to.
        options: see `gprochat_transports.ClientOptions`.

    Raises:
        UsageError: no event loop runs.
        ImportError: no adapter for the event loop is installed; the message names an extra.
        ConfigurationError: the service has no secret key, the proxy cannot be used, or an option
            has a wrong type.
    """

    # A class and not a function, so that annotations and isinstance can name it. An object of it
    # is an instance of the adapter's Client too, whose `__init__` takes the arguments.
    if TYPE_CHECKING:

        def __init__(self, service: Service, **options: Unpack[ClientOptions]) -> None: ...

    else:

        def __new__(cls, service, **settings):
            """Make an instance of this class and of the adapter's `Client`."""
            adapter = first_installed(ADAPTERS[running_loop()])
            return super().__new__(combined((cls, adapter.Client)))


def first_installed(adapters: Iterable[str]) -> ModuleType:
    """Return the first of some adapters, given by name, whose libraries are installed.

    Raises:
        ImportError: the libraries of all of them are missing; the message names the first's extra.
    """
    missing: list[ImportError] = []
    for adapter in adapters:
        try:
            return import_module(f"gprochat_transports.{adapter}")
        except ImportError as error:
            missing.append(error)
    raise missing[0]


def running_loop() -> str:
    """Return the name of the library whose event loop runs in this thread.

    Raises:
        UsageError: no event loop runs.
    """
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        return "trio"
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise UsageError(
            "no event loop runs here: use gprochat.SyncClient in synchronous code, "
            "or make the Client inside `async def`"
        ) from None
    return "asyncio"


@cache
def combined(bases: tuple[type, ...]) -> type:
    return type(bases[0].__name__, bases, {"__doc__": bases[0].__doc__})
