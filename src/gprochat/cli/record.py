"""Where a chat keeps its conversation: in the file that --history names, or among those kept."""

from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from gprochat_core import Message

from .chat import Record
from .failures import WrongUsage
from .history import HistoryFile, check_writable, load, locked
from .kept import Keeper, last_with

__all__ = ["LOCAL", "history_file", "kept_conversation"]

LOCAL: Final = "local"
"""Stands for the built-in service, whose URL differs each time."""


@contextmanager
def history_file(path: Path) -> Generator[tuple[Record | None, list[Message]], None, None]:
    """Lock a history file while the block runs; yield its record and its messages.

    Raises:
        WrongUsage: the file cannot be read or written.
        Failed: another chat uses the file.
    """
    check_writable(path)
    with locked(path):
        yield HistoryFile(path), load(path) if path.exists() else []


@contextmanager
def kept_conversation(
    service: str, *, go_on: bool, keep: bool
) -> Generator[tuple[Record | None, list[Message]], None, None]:
    """Yield the record of a conversation with a service, and its messages so far.

    Args:
        service: the service's URL, or `LOCAL`.
        go_on: whether to continue the last conversation.
        keep: whether to keep the conversation.

    Raises:
        WrongUsage: there is no conversation to continue.
    """
    continued = last_with(service) if go_on else None
    if go_on and continued is None:
        whom = "the built-in service" if service == LOCAL else service
        raise WrongUsage(f"there is no conversation with {whom} to continue")
    messages = [] if continued is None else continued.messages
    if not keep:
        yield None, messages
        return
    with closing(Keeper(service, continued)) as keeper:
        yield keeper, messages
