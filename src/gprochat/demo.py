"""The demonstration: `python -m gprochat.demo`, a chat over each transport in turn.

An embedded service listens on a free port of this machine, with a new secret key. The command
`gprochat chat` talks to it: each turn is a process of its own, which continues the history of the
turn before. If a reply is not the echo of its question, the exit code is 1.
"""

import codecs
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from gprochat_core import Service

from .server import in_thread, serve

__all__ = ["main"]

TRANSPORTS: Final = ("aiohttp", "httpx", "trio")

TURNS: Final = (
    "Привет! Это GPROChat, и каждое слово приходит отдельно, даже смайлики 🙂👋",
    "Hello again! The request holds the history, and its signature covers this line 🚀🎉",
)


def main() -> int:
    """Run the demonstration and return its exit code."""
    with in_thread(serve(grace=0.0)) as server, TemporaryDirectory() as folder:
        print(f"A service at {server.url}, with a new secret key")
        for transport in TRANSPORTS:
            print(f"\n── {transport} ──")
            history = Path(folder) / f"{transport}.json"
            for prompt in TURNS:
                print(f"you      {prompt}\nservice  ", end="", flush=True)
                answer = ask(server.service, transport, history, prompt)
                print()
                if answer != prompt:
                    print(f"{transport}: the reply is not the echo", file=sys.stderr)
                    return 1
            if not is_complete(history):
                print(f"{transport}: the history is wrong", file=sys.stderr)
                return 1
    print(f"\nAll {len(TRANSPORTS)} transports: two turns each, signed and streamed. ✔")
    return 0


def ask(service: Service, transport: str, history: Path, prompt: str) -> str:
    """Ask with the command, print the reply as it arrives, and return it."""
    command = [sys.executable, "-m", "gprochat", "chat"]
    options = ["--transport", transport, "--proxy", "none", "--history", str(history)]
    environment = {
        **os.environ,
        "GPROCHAT_URL": service.url,
        "GPROCHAT_SECRET_KEY": service.secret_key or "",
        "PYTHONIOENCODING": "utf-8",
    }
    environment.pop("GPROCHAT_PASSWORD", None)
    with subprocess.Popen(
        [*command, *options, "--", prompt],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdout is not None
        answer = ""
        for text in decoded(process.stdout.fileno()):
            print(text, end="", flush=True)
            answer += text
    return answer if process.returncode == 0 else ""


def decoded(descriptor: int) -> Iterator[str]:
    """Yield the text that arrives on a pipe, as soon as it arrives."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while data := os.read(descriptor, 4096):
        yield decoder.decode(data)
    yield decoder.decode(b"", final=True)


def is_complete(history: Path) -> bool:
    """Return whether a history file holds every turn and its echo."""
    expected = [
        {"role": role, "content": prompt} for prompt in TURNS for role in ("user", "assistant")
    ]
    return bool(json.loads(history.read_text(encoding="utf-8")) == expected)


if __name__ == "__main__":
    sys.exit(main())
