"""Runs the command: in this process, as a process of its own, or on a terminal of its own."""

import asyncio
import fcntl
import json
import multiprocessing
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from codecs import getincrementaldecoder
from collections.abc import (
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import IO, Any, Final

import pyte
from click.testing import CliRunner, Result

from gprochat.cli import main
from gprochat.cli.commands import gprochat
from gprochat.cli.kept import Conversation, Keeper
from gprochat.server import Answer
from gprochat_core import Message, Service
from tests.installations import run_with

__all__ = [
    "COMMAND",
    "LIMIT",
    "PROMPT",
    "Forked",
    "Terminal",
    "answer_of",
    "background",
    "environment",
    "forked",
    "go_on",
    "imported_by",
    "invoke",
    "killed_at_each_call",
    "lines_of",
    "on_terminal",
    "run",
    "run_where_installed",
    "screen_of",
    "stalling_answer",
    "url_of",
]

LIMIT: Final = 30.0
"""Seconds that a test waits for a command before it fails."""

COMMAND: Final = [sys.executable, "-m", "gprochat"]

PROMPT: Final = "\x1b[?2004h"
"""What the line editor sends to the terminal when it begins to read (bracketed paste mode)."""

FORKED: Final = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [
        __name__,
        "gprochat.cli.editor",
        "gprochat.gateway",
        "gprochat_transports.aiohttp",
        "gprochat_transports.httpx",
        "gprochat_transports.trio",
        "rich.markdown",
    ]
)
"""Starts processes that have imported all this already, which takes most of a command's time."""


def environment(service: Service | None = None) -> dict[str, str]:
    """This process's environment, with the settings of a service and no others."""
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    ours = ("GPROCHAT_", "OPENAI_", *proxies, "COLUMNS", "LINES", "NO_COLOR")
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
    """Run a command in this process; its standard input is no terminal."""
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
    """Run a command as a process without a terminal, and wait for its end."""
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
    """Start a command as a process without a terminal; leaving the block kills it."""
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


class Forked:
    """A command in a process that was forked by `FORKED`; it looks like a `subprocess.Popen`."""

    def __init__(self, process: BaseProcess, stdout: IO[str], stderr: IO[str]) -> None:
        self._process = process
        self.stdout = stdout
        self.stderr = stderr

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for the command's end; it prints no more than pipes take in."""
        rest = self.stdout.read(), self.stderr.read()
        self._process.join(timeout)
        return rest


@contextmanager
def forked(
    *arguments: str, service: Service | None = None, variables: Mapping[str, str] | None = None
) -> Generator[Forked, None, None]:
    """Start a command without a terminal, at a tenth of what `background` costs.

    What an interpreter does at its start and its end, the process does not do.
    """
    stdout, stderr = FORKED.Pipe(duplex=False), FORKED.Pipe(duplex=False)
    settings = {**environment(service), **(variables or {})}
    process = FORKED.Process(
        target=run_piped, args=(stdout[1], stderr[1], os.getcwd(), settings, arguments)
    )
    with (
        open(os.dup(stdout[0].fileno()), encoding="utf-8") as output,
        open(os.dup(stderr[0].fileno()), encoding="utf-8") as errors,
    ):
        process.start()
        for end in (*stdout, *stderr):
            end.close()
        try:
            yield Forked(process, output, errors)
        finally:
            process.kill()
            process.join()


def url_of(process: subprocess.Popen[str] | Forked) -> str:
    """The URL that `gprochat serve` exports in the first line of its output."""
    assert process.stdout is not None
    name, _, url = process.stdout.readline().strip().partition("=")
    assert name == "export GPROCHAT_URL"
    return url


class Terminal:
    """The user's side of a terminal that a command runs on."""

    def __init__(self, descriptor: int, process: BaseProcess) -> None:
        self._descriptor = descriptor
        self._process = process
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._read = 0
        self.seen = ""

    def expect(self, text: str) -> None:
        """Wait until the command has shown this text after the text expected before."""
        while text not in self.seen[self._read :]:
            assert self._more(), f"{text!r} did not come: {self.seen!r}"
        self._read = self.seen.index(text, self._read) + len(text)

    def type(self, text: str) -> None:
        """Type these characters."""
        os.write(self._descriptor, text.encode())

    def enter(self, line: str) -> None:
        """Wait for the prompt of the conversation and type a line."""
        self.expect(PROMPT)
        self.type(f"{line}\r")

    def terminate(self) -> None:
        """Send the command SIGTERM."""
        self._process.terminate()

    def hang_up(self) -> int:
        """Close the terminal, wait for the command's end and return its exit code."""
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), self._descriptor)
        return self._join()

    def wait(self) -> int:
        """Wait for the command's end and return its exit code."""
        while self._more():
            pass
        return self._join()

    def _join(self) -> int:
        self._process.join(LIMIT)
        assert self._process.exitcode is not None
        return self._process.exitcode

    def _more(self) -> bool:
        """Read more of what the command shows; return False if the command has ended."""
        ready, _, _ = select.select([self._descriptor, self._process.sentinel], [], [], LIMIT)
        assert ready, f"nothing more came: {self.seen!r}"
        if self._descriptor not in ready:
            return False
        self.seen += self._decoder.decode(os.read(self._descriptor, 65536))
        return True


@contextmanager
def on_terminal(
    *arguments: str,
    service: Service | None = None,
    variables: Mapping[str, str] | None = None,
    columns: int = 80,
    lines: int = 24,
) -> Generator[Terminal, None, None]:
    """Start a command on a terminal of its own and of this size; leaving the block kills it."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (lines, columns))
    settings = {
        **environment(service),
        "TERM": "xterm",
        "PROMPT_TOOLKIT_NO_CPR": "1",
        **(variables or {}),
    }
    process = FORKED.Process(target=run_on, args=(os.ttyname(theirs), settings, arguments))
    try:
        process.start()
        try:
            yield Terminal(ours, process)
        finally:
            process.kill()
            process.join()
    finally:
        os.close(theirs)
        os.close(ours)


def run_on(terminal: str, variables: dict[str, str], arguments: tuple[str, ...]) -> None:
    """Run a command in this process, whose terminal this one becomes, so that Ctrl-C reaches it."""
    os.setsid()
    descriptor = os.open(terminal, os.O_RDWR)
    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)
    run_between((descriptor, descriptor, descriptor), variables, arguments)


def run_piped(
    stdout: "Connection[Any, Any]",
    stderr: "Connection[Any, Any]",
    folder: str,
    variables: dict[str, str],
    arguments: tuple[str, ...],
) -> None:
    """Run a command in this process, in this folder, with these pipes."""
    os.setsid()
    os.chdir(folder)
    nothing = os.open(os.devnull, os.O_RDONLY)
    run_between((nothing, stdout.fileno(), stderr.fileno()), variables, arguments)


def run_between(
    descriptors: tuple[int, int, int], variables: dict[str, str], arguments: tuple[str, ...]
) -> None:
    """Run a command in this process, with these standard streams."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    sys.stdin = os.fdopen(0, encoding="utf-8")
    sys.stdout = os.fdopen(1, "w", encoding=variables.get("PYTHONIOENCODING", "utf-8"))
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", buffering=1)
    sys.argv = ["gprochat", *arguments]
    os.environ.clear()
    os.environ.update(variables)
    main()


def die_at(number: int, save: Callable[[], None]) -> None:
    """Call a function, and die by SIGKILL at the call of the system that has this number.

    Of what `os.write` is to write there, half is written.
    """
    calls = 0

    def dying(name: str) -> Callable[..., object]:
        call = getattr(os, name)

        def counted(*arguments: Any, **options: Any) -> object:
            nonlocal calls
            calls += 1
            if calls == number:
                if name == "write":
                    call(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return counted

    for name in ("open", "write", "lseek", "read", "fsync", "chmod", "replace"):
        setattr(os, name, dying(name))
    save()


def killed_at_each_call(save: Callable[[], None]) -> Iterator[bool]:
    """Save in processes that die at the first call of the system, at the second one, and so on.

    Yields:
        after each process, whether it died; the last one did not.
    """
    for number in count(1):
        process = FORKED.Process(target=die_at, args=(number, save))
        process.start()
        process.join(LIMIT)
        assert process.exitcode in (0, -signal.SIGKILL)
        yield process.exitcode != 0
        if process.exitcode == 0:
            return


def go_on(conversation: Conversation, messages: Sequence[Message]) -> None:
    """Continue a conversation that was kept, and keep these messages of it."""
    Keeper(conversation.service, conversation).save(messages)


def screen_of(terminal: Terminal, columns: int = 80, lines: int = 24) -> pyte.Screen:
    """The screen of a terminal of this size after everything that the command has shown."""
    screen = pyte.Screen(columns, lines)
    pyte.Stream(screen).feed(terminal.seen)
    return screen


def answer_of(*pieces: str, error: Exception | None = None) -> Answer:
    """An answer that yields these pieces, and then ends or raises the error."""

    async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
        for piece in pieces:
            yield piece
        if error is not None:
            raise error

    return answer


async def stalling_answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
    """An answer that begins, and then waits for ever if the question has the word "wait"."""
    yield f"{len(messages)} heard: "
    if "wait" in messages[-1].text:
        await asyncio.Event().wait()
    yield messages[-1].text


def run_where_installed(
    requirements: Iterable[str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a command where only these requirements are installed; no service is where it asks."""
    settings = {"GPROCHAT_SECRET_KEY": "k", "GPROCHAT_URL": "http://127.0.0.1:1"}
    return run_with(
        requirements,
        f"import sys; sys.argv[1:] = {arguments!r}; from gprochat.cli import main; main()",
        environment={**environment(), **settings},
    )


def imported_by(*arguments: str) -> set[str]:
    """The top-level modules that a command imports whose output is a pipe."""
    code = (
        "import sys; from gprochat.cli.commands import gprochat;"
        f"gprochat({arguments!r}, standalone_mode=False);"
        "print('\\n', *(name for name in sys.modules if '.' not in name))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT,
    )
    return set(done.stdout.split())


def lines_of(output: str) -> list[dict[str, str]]:
    """The JSON objects that a command printed, one per line."""
    return [json.loads(line) for line in output.splitlines()]
