"""The cases of `core.py`, for pyperf: what the core does, and the bare functions beside it.

Run by pyperf's rules: `python -m benchmarks.core_cases -o FILE`.
"""

import codecs
import hashlib
import json
from collections.abc import Callable

import pyperf

from gprochat_core import ReplyParser, Service, Signer
from gprochat_core.messages import read_messages
from gprochat_core.request import Draft

HEADERS = [(b"content-type", b"text/plain; charset=utf-8")]
TIME = 1700000000000
KEY = "a key made up for the benchmarks"

SCRIPTS = {
    "ASCII": "All happy families are alike. ",
    "Russian": "Все счастливые семьи похожи. ",
    "Chinese": "幸福的家庭都是相似的。",
    "emoji": "🙂🎉🚀🌍",
}

READS = {"64 KiB": (64 * 1024, 16), "11 bytes": (11, 1000)}
"""Of what size, and how many."""


def cut(text: str, size: int, count: int) -> list[bytes]:
    """That much text, cut as sockets cut it: anywhere."""
    data = (text * (count * size // len(text.encode()) + 1)).encode()
    return [data[at : at + size] for at in range(0, count * size, size)]


def parse(pieces: list[bytes]) -> None:
    parser = ReplyParser(200, HEADERS, max_bytes=1 << 30)
    feed = parser.feed
    for piece in pieces:
        feed(piece)
    parser.finish()


def decode(pieces: list[bytes]) -> None:
    """What a user of a bare library writes, the text so far kept as well."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    texts = [decode(piece) for piece in pieces]
    texts.append(decode(b"", True))


def bare_sign(text: str) -> str:
    return hashlib.sha256(f"{TIME}:{text}:{KEY}".encode()).hexdigest()


def bare_build(text: str) -> None:
    """Bare json.dumps of that message, and hashlib: no envelope, no check."""
    json.dumps({"role": "user", "parts": [{"text": text}]})
    bare_sign(text)


def build(service: Service, text: str) -> None:
    Draft(service, read_messages(text)).sign(TIME)


def cases() -> dict[str, tuple[Callable[..., object], object]]:
    found: dict[str, tuple[Callable[..., object], object]] = {}
    for label, (size, count) in READS.items():
        for script, text in SCRIPTS.items():
            pieces = cut(text, size, count)
            found[f"parse, {label}, {script}"] = parse, pieces
            found[f"bare parse, {label}, {script}"] = decode, pieces
    signer = Signer(KEY)
    for size, label in ((1 << 10, "1 KiB"), (1 << 20, "1 MiB")):
        text = "x" * size
        found[f"sign, {label}"] = lambda text: signer.sign(TIME, text), text
        found[f"bare sign, {label}"] = bare_sign, text
    service = Service("https://chat.example", secret_key=KEY)
    for script in ("ASCII", "Russian"):
        text = (SCRIPTS[script] * 100).encode()[:1024].decode(errors="ignore")
        found[f"build, {script}"] = lambda text: build(service, text), text
        found[f"bare build, {script}"] = bare_build, text
    return found


if __name__ == "__main__":
    runner = pyperf.Runner(program_args=("-m", "benchmarks.core_cases"))
    for name, (function, argument) in cases().items():
        runner.bench_func(name, function, argument)
