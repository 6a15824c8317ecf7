"""Checks that a call has left nothing behind: no files, no tasks, no complaints."""

import gc
import os
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic

from tests.faults.cancel_loops import Interruptible

__all__ = ["SOON", "Residue", "no_complaints"]

SOON = 3.0
"""Seconds within which everything must be gone, on a busy machine too. An idle connection would be
kept for 4."""


class Residue:
    """Remembers the files and tasks of now, to find those that are left later.

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
        """Raise AssertionError unless all new files and tasks are gone soon."""
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
    """Return the open file descriptors, and the file or socket behind each."""
    found: dict[int, str] = {}
    for name in os.listdir("/dev/fd"):
        try:
            found[int(name)] = os.readlink(f"/dev/fd/{name}")
        except OSError:
            # The descriptor of the folder that was listed is closed again.
            continue
    return found


@contextmanager
def no_complaints(loop: Interruptible) -> Generator[None, None, None]:
    """Raise AssertionError if Python or the loop complain of the block, within it or at its end."""
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
    # Only peers have an SSLSocket: wrap_socket leaves it open if the client has gone.
    complaints = [each for each in complaints if "<ssl.SSLSocket " not in each]
    if complaints:
        raise AssertionError("\n".join(complaints))
