"""What runs a test's coroutine: each event loop, and none for coroutines that block."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeAlias

import trio
import uvloop

from gprochat_transports.sync import run

__all__ = ["RUN", "Main"]

Main: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

RUN: Final[Mapping[str, Callable[[Main], None]]] = {
    "asyncio": lambda main: asyncio.run(main()),
    "uvloop": lambda main: uvloop.run(main()),
    "trio": lambda main: trio.run(main),
    "blocking": lambda main: run(main()),
}
