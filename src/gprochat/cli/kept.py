"""The conversations that the command keeps: one private file each, which only grows.

Each line of a file is one change: a JSON object that says how many of the messages before it stay
(`keep`) and which ones follow (`add`). A line is written at once and synced to the disk. A line
that is cut off, because the process was killed or the disk was full, counts for nothing. So a
change is kept either whole or not at all, and no change destroys an earlier one.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from typing import Final, cast

from gprochat_core import InvalidMessages, Message
from gprochat_core.messages import read_messages

from .failures import complain
from .folders import PRIVATE, data_folder, private_folder

__all__ = ["Conversation", "Keeper", "conversations", "in_use", "last_with"]

SUFFIX: Final = ".jsonl"

APPEND: Final = os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation that was kept.

    Attributes:
        path: its file.
        service: the URL of its service, or "local" for the built-in one.
        messages: its messages, oldest first.
    """

    path: Path
    service: str
    messages: list[Message]

    @property
    def name(self) -> str:
        """Its name: when it began, and a few random characters."""
        return self.path.stem

    @property
    def title(self) -> str:
        """The text of the first question."""
        return next((each.text for each in self.messages if each.role == "user"), "")


def conversations() -> Iterator[Conversation]:
    """Yield the conversations that were kept, the one that was continued last first."""
    paths: list[tuple[int, str, Path]] = []
    for path in folder().glob(f"*{SUFFIX}"):
        # Another process may remove a file at any moment.
        with suppress(OSError):
            paths.append((path.stat().st_mtime_ns, path.stem, path))
    for _, _, path in sorted(paths, reverse=True):
        with suppress(OSError):
            conversation = read(path)
            if conversation.messages:
                yield conversation


def last_with(service: str) -> Conversation | None:
    """Return the conversation with a service that was continued last; None if there is none."""
    return next((each for each in conversations() if each.service == service), None)


def folder() -> Path:
    return data_folder() / "conversations"


def read(path: Path) -> Conversation:
    service = ""
    messages: list[Message] = []
    for line in path.read_bytes().split(b"\n"):
        # A line that is cut off is no JSON, and any other damage costs no more than its line.
        with suppress(
            ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidMessages
        ):
            change = cast("dict[str, object]", json.loads(line))
            added = cast("list[object]", change["add"])
            # read_messages requires a user's message at the end.
            read_of_line = read_messages([*added, ""])[:-1]
            messages = [*messages[: cast("int", change["keep"])], *read_of_line]
            service = str(change.get("service", service))
    return Conversation(path, service, messages)


class Keeper:
    """Keeps the conversation of a chat.

    Args:
        service: the URL of the service, or "local".
        continued: the conversation that the chat goes on with; None for a new one. If another
            chat goes on with it at the same time, this chat keeps a copy of its own.
    """

    def __init__(self, service: str, continued: Conversation | None = None) -> None:
        self._service = service
        self._descriptor: int | None = None
        self._kept: list[Message] = []
        self._complained = False
        if continued is not None:
            descriptor = os.open(continued.path, APPEND)
            if lock(descriptor):
                self._descriptor = descriptor
                # Another chat may have gone on with it since it was read.
                self._kept = read(continued.path).messages
            else:
                os.close(descriptor)
                complain("another chat uses this conversation; this chat continues a copy of it")

    def save(self, messages: Sequence[Message]) -> None:
        """Keep the conversation as it is now; complain if that is not possible."""
        same = 0
        while same < min(len(messages), len(self._kept)) and messages[same] == self._kept[same]:
            same += 1
        added = [{"role": each.role, "content": each.text} for each in messages[same:]]
        change: dict[str, object] = {"keep": same, "add": added}
        try:
            if self._descriptor is None:
                self._descriptor = create()
                change["service"] = self._service
            append(self._descriptor, json.dumps(change, ensure_ascii=False).encode())
        except OSError as error:
            if not self._complained:
                complain(f"this conversation is not kept: {error.strerror}")
            self._complained = True
        else:
            self._kept = list(messages)

    def restart(self) -> None:
        """Begin another conversation; the one until now stays as it is."""
        self.close()
        self._kept = []

    def close(self) -> None:
        """Leave the conversation to other chats."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None


def create() -> int:
    """Create the file of a new conversation, locked."""
    # One after the other, because parents that are made implicitly are not private.
    private_folder(data_folder())
    private_folder(folder())
    while True:
        name = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{token_hex(2)}{SUFFIX}"
        with suppress(FileExistsError):
            descriptor = os.open(folder() / name, APPEND | os.O_CREAT | os.O_EXCL, PRIVATE)
            lock(descriptor)
            return descriptor


def append(descriptor: int, line: bytes) -> None:
    """Append a line, and wait until the disk has it."""
    end = os.lseek(descriptor, 0, os.SEEK_END)
    # A line that was cut off must not become a part of this one.
    os.lseek(descriptor, max(end - 1, 0), os.SEEK_SET)
    torn = end > 0 and os.read(descriptor, 1) != b"\n"
    data = memoryview((b"\n" if torn else b"") + line + b"\n")
    while data:
        data = data[os.write(descriptor, data) :]
    os.fsync(descriptor)


def lock(descriptor: int) -> bool:
    """Lock a file until its descriptor is closed; return whether that was possible.

    On Windows nothing is locked: two chats then append to one file, and both are in it.
    """
    try:
        from fcntl import LOCK_EX, LOCK_NB, flock
    except ImportError:
        return True
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    return True


def in_use(conversation: Conversation) -> bool:
    """Return whether a chat goes on with this conversation right now."""
    descriptor = os.open(conversation.path, APPEND)
    try:
        return not lock(descriptor)
    finally:
        os.close(descriptor)
