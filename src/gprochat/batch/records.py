r"""The output file, which is also the memory of a run: a JSON line for each prompt that is done.

Each line is appended as soon as its result is known, and earlier lines are never changed. A
process that is killed while it writes leaves at most the beginning of a line at the end, which the
next run removes. Lines reach the disk within about a second (`sync`). Only a crash of the whole
machine loses those of the last second; their prompts are asked again.

Each line holds a digest of its prompt, so that the next run notices a prompt that has changed.
What the lines say is kept in a temporary database on the disk, so that memory does not grow with
the number of prompts.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from gprochat_core import GPROChatError

from .reading import InputError
from .results import Prompt, Result

__all__ = [
    "ANSWERED",
    "FAILED",
    "MISSING",
    "Counts",
    "OutputError",
    "OutputFile",
    "digest",
    "dump",
    "load",
]

BEGINNING: Final = b'{"id": '
"""How each line begins."""

MISSING: Final = 0
ANSWERED: Final = 1
FAILED: Final = 2

CACHE_KIB: Final = 4096
"""How much of the database is kept in memory."""


class OutputError(GPROChatError, ValueError):
    """The output file, or the temporary list of prompts, cannot be used; the message says why."""


def digest(prompt: Prompt) -> str:
    """Return 16 hexadecimal digits that tell this prompt's conversation from any other.

    The conversation must be JSON, as `read_prompts` returns it.
    """
    data = json.dumps(prompt.conversation, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()[:16]


def dump(result: Result, of: str) -> bytes:
    """Return a result as a line of the output file.

    Args:
        result: the result.
        of: the digest of its prompt.
    """
    line: dict[str, object] = {"id": result.id}
    if result.error is None:
        line["text"] = result.text
    else:
        error = result.error
        line["error"] = {"kind": error.kind, "message": error.message, "text": error.text}
    line |= {"status": result.status, "attempts": result.attempts}
    line |= {"seconds": round(result.seconds, 3), "digest": of}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def load(line: bytes) -> tuple[str, str, bool]:
    """Return the id, the digest of the prompt, and whether it was answered.

    Raises:
        ValueError: the line is not one of the output file.
    """
    try:
        fields: object = json.loads(line)
    except RecursionError:
        fields = None
    if isinstance(fields, dict):
        found = cast("dict[str, object]", fields)
        name, of = found.get("id"), found.get("digest")
        if (
            isinstance(name, str)
            and isinstance(of, str)
            and ("text" in found) != ("error" in found)
        ):
            return name, of, "text" in found
    raise ValueError("not a result")


@dataclass(frozen=True, slots=True)
class Counts:
    """How many prompts there are of each kind.

    Attributes:
        answered: those with a whole reply.
        failed: those that failed.
        missing: those of the input that have no line in the output.
        foreign: those of the output that are not in the input.
    """

    answered: int
    failed: int
    missing: int
    foreign: int


class OutputFile:
    """The results so far, and the place for those to come.

    Args:
        path: the file; it is made if it does not exist.
        retry_failed: whether prompts that failed count as not asked yet.

    Raises:
        OutputError: the file cannot be read or written, it holds something else than results,
            another run writes to it, or the temporary folder has no room.
    """

    def __init__(self, path: Path, *, retry_failed: bool = False) -> None:
        if path.exists() and not path.is_file():
            raise OutputError(f"{path} is not a regular file")
        self._path = path
        with naming(path):
            self._file = path.open("ab", buffering=0)
        # How many bytes have been written, in earlier runs too, and how many are on the disk.
        self._end = self._synced = 0
        # For an empty name, SQLite makes a temporary file. Another thread may use the database.
        self._ledger = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        try:
            with naming(path):
                self._lock()
            for statement in (
                f"PRAGMA cache_size = -{CACHE_KIB}",
                "PRAGMA journal_mode = OFF",
                "CREATE TABLE prompts (id TEXT PRIMARY KEY, digest, state, seen) WITHOUT ROWID",
                "BEGIN",
            ):
                self._execute(statement)
            with naming(path):
                self._load(MISSING if retry_failed else FAILED)
        except BaseException:
            self.close()
            raise

    def check(self, prompt: Prompt) -> int:
        """Take notice of a prompt of the input, and return what became of it so far.

        Returns:
            MISSING, ANSWERED or FAILED; a prompt is to be asked if it is MISSING.

        Raises:
            InputError: its id has occurred before, or the file has the reply to another prompt
                of this id.
        """
        of = digest(prompt)
        row = self._row(prompt.id)
        if row is None:
            self._execute("INSERT INTO prompts VALUES (?, ?, ?, 1)", prompt.id, of, MISSING)
            return MISSING
        if row[2]:
            raise InputError(
                f"the input has two prompts with the id {prompt.id}; give each prompt its own id"
            )
        if row[0] != of and row[1] == ANSWERED:
            raise InputError(
                f"the prompt {prompt.id} has changed since it was answered in {self._path}; "
                "undo the change, or name another output file"
            )
        # A prompt that failed and has been changed since is a new one.
        state = row[1] if row[0] == of else MISSING
        self._execute(
            "UPDATE prompts SET digest = ?, state = ?, seen = 1 WHERE id = ?", of, state, prompt.id
        )
        return state

    def needs(self, prompt: Prompt) -> bool:
        """Tell whether a prompt that has been checked is to be asked.

        Raises:
            InputError: it has been changed since it was checked.
        """
        row = self._row(prompt.id)
        if row is None or (row[1] == MISSING and row[0] != digest(prompt)):
            raise InputError(
                f"the prompt {prompt.id} was changed in the input during the run; "
                "undo the change, and run the same command again"
            )
        return row[1] == MISSING

    def write(self, result: Result) -> None:
        """Append the result of a prompt that has been checked."""
        row = self._row(result.id)
        self._append(dump(result, "" if row is None else row[0]))
        state = FAILED if result.error else ANSWERED
        self._execute("UPDATE prompts SET state = ? WHERE id = ?", state, result.id)

    def sync(self) -> None:
        """Wait until what has been written is on the disk; may run beside `write`.

        Raises:
            OutputError: another program has replaced, removed or shortened the file, so results
                are lost.
        """
        end = self._end
        if self._synced < end:
            with naming(self._path):
                os.fsync(self._file.fileno())
            self._synced = end
        status = os.fstat(self._file.fileno())
        if (
            status.st_size < end
            or not self._path.exists()
            or not os.path.samestat(self._path.stat(), status)
        ):
            raise OutputError(
                f"{self._path} was replaced, removed or shortened during the run, which an editor "
                "does when it saves; run the same command again: it asks what is not in the file"
            )

    def counts(self) -> Counts:
        """Count the prompts; those of the input are those that have been checked."""
        found: dict[tuple[int, int], int] = {}
        query = "SELECT state, seen, COUNT(*) FROM prompts GROUP BY state, seen"
        for state, seen, count in self._execute(query):
            found[state, seen] = count
        answered, failed, missing = (
            found.get((state, 1), 0) for state in (ANSWERED, FAILED, MISSING)
        )
        return Counts(answered, failed, missing, sum(found.values()) - answered - failed - missing)

    def close(self) -> None:
        """Write everything to the disk, and close the file."""
        try:
            self.sync()
        finally:
            self._ledger.close()
            self._file.close()

    def _row(self, name: str) -> tuple[str, int, int] | None:
        query = "SELECT digest, state, seen FROM prompts WHERE id = ?"
        return cast("tuple[str, int, int] | None", self._execute(query, name).fetchone())

    def _execute(self, statement: str, *values: str | int) -> sqlite3.Cursor:
        try:
            return self._ledger.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise OutputError(
                "the list of the prompts cannot be kept in the temporary folder, TMPDIR or else "
                f"/var/tmp: {error}; set TMPDIR to a folder with more room"
            ) from error

    def _append(self, data: bytes) -> None:
        with naming(self._path):
            while data:
                written = self._file.write(data)
                self._end += written
                data = data[written:]

    def _lock(self) -> None:
        """Keep other runs from the file, until it is closed or the process ends; not on Windows."""
        try:
            from fcntl import LOCK_EX, LOCK_NB, flock
        except ImportError:
            return
        try:
            flock(self._file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"another run writes to {self._path}; wait for its end, or name another file"
            ) from None

    def _load(self, failed: int) -> None:
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line == b"\n":
                    self._end += 1
                    continue
                try:
                    name, of, answered = load(line)
                except ValueError:
                    if not is_torn(line):
                        raise OutputError(
                            f"line {number} of {self._path} is not a result of this command; "
                            "remove the line if the others are, or name another output file"
                        ) from None
                    self._file.truncate(self._end)
                    return
                self._end += len(line)
                state = ANSWERED if answered else failed
                self._execute("INSERT OR REPLACE INTO prompts VALUES (?, ?, ?, 0)", name, of, state)
                if not line.endswith(b"\n"):
                    # It is the last line, and lacks only its line break.
                    self._append(b"\n")
                    return


@contextmanager
def naming(path: Path) -> Generator[None, None, None]:
    """Name the file in errors of the system.

    Raises:
        OutputError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def is_torn(line: bytes) -> bool:
    """Tell whether a line is the beginning of a line of the output file, and no more.

    Whole JSON never is, so a file of something else is not changed.
    """
    try:
        json.loads(line)
    except ValueError:
        ended = line.endswith(b"\n")
        # After a crash of the machine, some file systems leave zeros where a line was to be.
        begin = line.rstrip(b"\0")
        return not ended and (begin.startswith(BEGINNING) or BEGINNING.startswith(begin))
    except RecursionError:
        # JSON that is nested so deeply is no result.
        pass
    return False
