"""What a call that is over must not have left behind: files, tasks, and complaints."""

import gc
import os
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic

from tests.faults.cancel_loops import Interruptible

__all__ = ["SOON", "Residue", "no_complaints", "quick_collection"]

SOON = 1.0
"""Seconds within which everything must be gone."""


class Residue:
    """The files and tasks that were there before, to be compared with those that are there later.

    Args:
        loop: whose tasks to look at.
        peers: how many files a peer in this process has open then.
    """

    def __init__(self, loop: Interruptible, peers: int = 0) -> None:
        self._loop = loop
        self._peers = peers
        self._files = open_files()
        self._tasks = loop.tasks()

    async def check(self) -> None:
        """Raise AssertionError unless what has come is gone again soon."""
        deadline = monotonic() + SOON
        while left := self._left():
            assert monotonic() < deadline, f"left behind: {left}"
            await self._loop.sleep(0.001)

    def _left(self) -> list[object]:
        tasks = self._loop.tasks() - self._tasks
        files = open_files()
        opened = [files[one] for one in files.keys() - self._files.keys()]
        return [*tasks, *opened] if tasks or len(opened) > self._peers else []


def open_files() -> dict[int, str]:
    """The open file descriptors, and what they are."""
    found: dict[int, str] = {}
    for name in os.listdir("/dev/fd"):
        try:
            found[int(name)] = os.readlink(f"/dev/fd/{name}")
        except OSError:
            # The one that listed them.
            continue
    return found


@contextmanager
def no_complaints(loop: Interruptible) -> Generator[None, None, None]:
    """Raise AssertionError if Python or the loop complain of what is done here, now or later."""
    complaints: list[str] = []
    unraisable = sys.unraisablehook
    sys.unraisablehook = lambda args: complaints.append(
        f"{args.err_msg} {args.object!r}: {args.exc_value!r}"
    )
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield
            gc.collect()
    finally:
        sys.unraisablehook = unraisable
    complaints += loop.complaints
    complaints += [f"{each.category.__name__}: {each.message}" for each in warned]
    # A peer's: wrap_socket leaves one open if its client has gone, and no client has any.
    complaints = [each for each in complaints if "<ssl.SSLSocket " not in each]
    if complaints:
        raise AssertionError("\n".join(complaints))


@contextmanager
def quick_collection() -> Generator[None, None, None]:
    """Let the garbage collector look only at what is made from here on."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
