"""The gateways that are measured: each file is a program that serves OpenAI's API.

Run as `python -m benchmarks.gateways.{name} {the peer's URL}`. It prints its URL and its key once
it listens, and ends when its standard input is closed. It has the models of `MODELS`.
"""

import asyncio
import resource
import sys
from collections.abc import Coroutine

from .. import malloc
from ..live import PACE

MODELS = {"live": f"live/{PACE}", "first": "first"}
"""The paths of the peer that answer the models, see `peer.py`."""


def prepare() -> str:
    """Bring the process to the state in which all are measured, and return the peer's URL."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    malloc.settle()
    return sys.argv[1]


def listening(url: str, key: str) -> Coroutine[object, object, str]:
    """Say so, and return an awaitable of the end."""
    print(url, key, flush=True)
    return asyncio.to_thread(sys.stdin.read)
