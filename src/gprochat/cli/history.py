"""A conversation in a file, the history: a JSON list of objects with `role` and `content`.

A history is written to a new file beside the old one. The new file replaces the old one when all
of it is on the disk; a failure before that leaves the old file unchanged.
"""

import json
import os
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from tempfile import mkstemp
from typing import cast

from gprochat_core import InvalidMessages, Message
from gprochat_core.messages import read_messages

from .failures import Failed, WrongUsage
from .folders import PRIVATE

__all__ = ["HistoryFile", "check_writable", "dump", "load", "locked", "save"]


def load(path: Path) -> list[Message]:
    """Return the conversation in a file, oldest message first.

    Raises:
        WrongUsage: the file cannot be read, or holds no conversation.
    """
    try:
        check_kind(path)
        items = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise WrongUsage(f"cannot read the history {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise WrongUsage(f"the history {path} is not JSON; correct or remove it") from None
    if not isinstance(items, list):
        raise WrongUsage(f"the history {path} is not a JSON list; correct or remove it")
    try:
        # read_messages requires a user's message at the end; a history usually ends with a reply.
        return read_messages([*cast("list[object]", items), ""])[:-1]
    except InvalidMessages as error:
        raise WrongUsage(f"the history {path}: {error}; correct or remove it") from None


def check_writable(path: Path) -> None:
    """Check, before anything is asked, that a history can be written.

    Raises:
        WrongUsage: the path is no regular file or cannot be reached, or its folder is not
            writable.
    """
    try:
        check_kind(path)
    except OSError as error:
        raise WrongUsage(f"cannot write the history {path}: {error.strerror}") from None
    folder = path.resolve().parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WrongUsage(f"cannot write the history {path}: {folder} is not a writable folder")


@contextmanager
def locked(path: Path) -> Generator[None, None, None]:
    """Keep other chats from a history while the block runs; not on Windows.

    Raises:
        Failed: another chat has locked the history.
    """
    try:
        from fcntl import LOCK_EX, LOCK_NB, flock
    except ImportError:
        yield
        return
    # The history itself cannot be locked, because each save replaces it by a new file.
    beside = path.resolve().with_name(f".{path.resolve().name}.lock")
    with ExitStack() as stack:
        while True:
            file = stack.enter_context(beside.open("ab"))
            try:
                flock(file, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                raise Failed(
                    f"another chat uses the history {path}; wait for its end, or use another file"
                ) from None
            # A chat that ended after this file was opened has removed it, and the lock with it.
            if os.fstat(file.fileno()).st_nlink:
                break
        stack.callback(beside.unlink)
        yield


def save(path: Path, messages: Sequence[Message]) -> None:
    """Write a conversation to a file: all of it, or nothing.

    The file keeps its permissions; only the owner can read and write a new file.

    Raises:
        Failed: the file cannot be written; it is unchanged.
    """
    data = dump(messages)
    try:
        check_kind(path)
        # With the path resolved, the file behind a link is replaced and not the link.
        replace(path.resolve(), data)
    except OSError as error:
        raise Failed(
            f"cannot write the history {path}: {error.strerror}; the file is unchanged"
        ) from None


def dump(messages: Sequence[Message]) -> bytes:
    """Return a conversation as a history file has it."""
    items = [{"role": message.role, "content": message.text} for message in messages]
    return json.dumps(items, ensure_ascii=False, indent=2).encode() + b"\n"


class HistoryFile:
    """Writes the conversation of a chat to a file.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def save(self, messages: Sequence[Message]) -> None:
        """Write the conversation as it is now; raises as `save`."""
        save(self._path, messages)

    def restart(self) -> None:
        """Begin another conversation, which takes the place of the old one in the file."""


def check_kind(path: Path) -> None:
    """Check that a path is a regular file, or that nothing is there.

    Raises:
        WrongUsage: something else is there.
        OSError: the path cannot be reached.
    """
    # Path.exists() would say that nothing is where a loop of symbolic links is.
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    # Reading a device or a pipe may never end, and a device must never be replaced.
    if not S_ISREG(mode):
        raise WrongUsage(f"the history {path} is not a regular file")


def replace(path: Path, data: bytes) -> None:
    mode = path.stat().st_mode & 0o777 if path.exists() else PRIVATE
    descriptor, temporary = mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
