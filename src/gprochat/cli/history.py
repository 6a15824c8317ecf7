"""A conversation in a file: a JSON list of role and content, read and written whole or not at all.

Writing goes to a new file beside the old one, which takes its place only once all of it is on the
disk. Whatever fails until then leaves the old file as it was.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp
from typing import Final, cast

from gprochat_core import InvalidMessages, Message
from gprochat_core.messages import read_messages

from .failures import Failed, WrongUsage

__all__ = ["check_writable", "load", "save"]

PRIVATE: Final = 0o600


def load(path: Path) -> list[Message]:
    """Return the conversation that a file holds, oldest message first.

    Raises:
        WrongUsage: it cannot be read, or holds something else.
    """
    try:
        check_kind(path)
        items = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise WrongUsage(f"cannot read the history {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise WrongUsage(f"the history {path} is not JSON; mend or remove it") from None
    if not isinstance(items, list):
        raise WrongUsage(f"the history {path} is not a JSON list; mend or remove it")
    try:
        # With the next question at its end, any history is a conversation.
        return read_messages([*cast("list[object]", items), ""])[:-1]
    except InvalidMessages as error:
        raise WrongUsage(f"the history {path}: {error}; mend or remove it") from None


def check_writable(path: Path) -> None:
    """Make sure, as far as that can be told before, that a history can be written.

    Raises:
        WrongUsage: it cannot.
    """
    check_kind(path)
    folder = path.resolve().parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WrongUsage(f"cannot write the history {path}: {folder} is no writable folder")


def save(path: Path, messages: Sequence[Message]) -> None:
    """Write a conversation to a file: all of it, or nothing.

    The file keeps its permissions; a new one is for its owner alone.

    Raises:
        Failed: it cannot be written; what was there still is.
    """
    items = [{"role": message.role, "content": message.text} for message in messages]
    data = json.dumps(items, ensure_ascii=False, indent=2).encode() + b"\n"
    check_kind(path)
    try:
        # Resolved, so that a link stays a link.
        replace(path.resolve(), data)
    except OSError as error:
        raise Failed(
            f"cannot write the history {path}: {error.strerror}; it is as it was before"
        ) from None


def check_kind(path: Path) -> None:
    # Reading a device or a pipe may never end, and replacing one would be worse.
    if path.exists() and not path.is_file():
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
