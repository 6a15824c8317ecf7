"""Starting the command line: in this process, as one of its own, and on a terminal of its own."""

import asyncio
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Final

from click.testing import CliRunner, Result

from gprochat.cli.commands import gprochat
from gprochat.server import Answer
from gprochat_core import Message, Service

__all__ = [
    "COMMAND",
    "LIMIT",
    "PROMPT",
    "Terminal",
    "answer_of",
    "background",
    "environment",
    "invoke",
    "on_terminal",
    "run",
    "stalling_answer",
]

LIMIT: Final = 30.0
"""Seconds that anything may take before a test gives up on it."""

COMMAND: Final = [sys.executable, "-m", "gprochat"]

PROMPT: Final = "\x1b[?2004h"
"""What the line editor tells a terminal when it begins to read: mark what is pasted."""

IN_FRONT_OF_TERMINAL: Final = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Makes a process's standard input the terminal that its Ctrl-C comes from."""


def environment(service: Service | None = None) -> dict[str, str]:
    """This process's environment, with a service's settings and nobody else's."""
    ours = ("GPROCHAT_", "OPENAI_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    variables = {
        key: value for key, value in os.environ.items() if not key.upper().startswith(ours)
    }
    if service is not None:
        variables["GPROCHAT_URL"] = service.url
        variables["GPROCHAT_SECRET_KEY"] = service.secret_key or ""
    return variables


def invoke(
    *arguments: str,
    service: Service | None = None,
    variables: Mapping[str, str] | None = None,
    stdin: str | bytes | None = None,
) -> Result:
    """Run a command in this process, where standard input is no terminal."""
    settings: dict[str, str | None] = dict.fromkeys(os.environ)
    settings.update(environment(service))
    settings.update(variables or {})
    return CliRunner().invoke(gprochat, arguments, input=stdin, env=settings)


def run(
    *arguments: str,
    service: Service | None = None,
    variables: Mapping[str, str] | None = None,
    stdin: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a command as a process without any terminal, to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        errors="backslashreplace",
        env={**environment(service), **(variables or {})},
        start_new_session=True,
        timeout=LIMIT,
    )


@contextmanager
def background(
    *arguments: str, service: Service | None = None, variables: Mapping[str, str] | None = None
) -> Generator[subprocess.Popen[str], None, None]:
    """Start a command as a process without any terminal; it is gone when the block is left."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**environment(service), **(variables or {})},
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)


class Terminal:
    """The person's side of a terminal with a command in front of it."""

    def __init__(self, descriptor: int, process: subprocess.Popen[bytes]) -> None:
        self._descriptor = descriptor
        self._process = process
        self._read = 0
        self.seen = ""

    def expect(self, text: str) -> None:
        """Wait until the command has shown this, after all that was expected before."""
        while text not in self.seen[self._read :]:
            assert self._more(), f"{text!r} did not come: {self.seen!r}"
        self._read = self.seen.index(text, self._read) + len(text)

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._descriptor, text.encode())

    def enter(self, line: str) -> None:
        """Type a line at the conversation's prompt, once that is there."""
        self.expect(PROMPT)
        self.type(f"{line}\r")

    def wait(self) -> int:
        """Wait for the command's end and return its exit code."""
        while self._more():
            pass
        return self._process.wait(LIMIT)

    def _more(self) -> bool:
        deadline = monotonic() + LIMIT
        ready, _, _ = select.select([self._descriptor], [], [], max(0.0, deadline - monotonic()))
        assert ready, f"nothing more came: {self.seen!r}"
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:
            # How Linux tells that nobody has the other side any more.
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)


@contextmanager
def on_terminal(
    *arguments: str, service: Service | None = None, variables: Mapping[str, str] | None = None
) -> Generator[Terminal, None, None]:
    """Start a command on a terminal of its own; it is gone when the block is left."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", IN_FRONT_OF_TERMINAL, *COMMAND[1:], *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={
                **environment(service),
                "TERM": "xterm",
                "PROMPT_TOOLKIT_NO_CPR": "1",
                **(variables or {}),
            },
            start_new_session=True,
        )
    finally:
        os.close(theirs)
    try:
        with process:
            try:
                yield Terminal(ours, process)
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
    finally:
        os.close(ours)


def answer_of(*pieces: str, error: Exception | None = None) -> Answer:
    """An answer of these pieces, which then fails or ends."""

    async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
        for piece in pieces:
            yield piece
        if error is not None:
            raise error

    return answer


async def stalling_answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
    """An answer that begins, and never goes on for whoever asks to wait."""
    yield f"{len(messages)} heard: "
    if "wait" in messages[-1].text:
        await asyncio.Event().wait()
    yield messages[-1].text
