"""Keeps a child process, after `os.fork()`, from using the connections of its parent process.

The child inherits these connections, and each process would read replies that are for the other.
"""

import os
from typing import Final, Protocol
from weakref import WeakSet

__all__ = ["Inherited", "forget_in_child"]


class Inherited(Protocol):
    """Something that a child process inherits, and must not use."""

    def forget(self) -> None:
        """Drop the parent's connections without sending anything to their peers."""
        ...


inherited: Final = WeakSet[Inherited]()


def forget_in_child(owner: Inherited) -> None:
    """Have `owner.forget()` called in each child process, before anything else runs there."""
    inherited.add(owner)


def forget_all() -> None:
    for owner in tuple(inherited):
        owner.forget()


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_all)
