"""The cases of `growth.py`: the times of one round, as JSON.

A conversation as a program keeps it, a list of messages that grows at its end: what is measured
is the new message and the whole request.
"""

import json
import time
from collections.abc import Callable
from statistics import median

from gprochat_core import Draft, Message, Service
from gprochat_core.messages import read_messages

from . import malloc

TURNS = (11, 31, 101, 301, 1001)
TEXT = ("Все счастливые семьи похожи друг на друга. " * 60).encode()[:2048].decode(errors="ignore")
SERVICE = Service("https://chat.example", secret_key="a key made up for the benchmarks")
TIME = 1700000000000


def roles(turns: int) -> list[str]:
    return ["assistant" if number % 2 else "user" for number in range(turns)]


def conversation(turns: int) -> list[dict[str, str]]:
    return [{"role": role, "content": f"{n} {TEXT}"} for n, role in enumerate(roles(turns))]


def seconds(function: Callable[[], object]) -> float:
    times: list[float] = []
    for _ in range(9):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return median(times)


def build(history: list[Message], text: str) -> bytes:
    messages = [*history, Message("user", text)]
    return Draft(SERVICE, read_messages(messages)).sign(TIME).body


def measure(turns: int) -> dict[str, float]:
    dicts = conversation(turns)
    history = read_messages(dicts)[:-1]
    text = dicts[-1]["content"]
    body = bytearray(build(history, text))
    return {
        "build": seconds(lambda: build(history, text)),
        "json.dumps": seconds(lambda: json.dumps(dicts)),
        "copy": seconds(lambda: bytes(body)),
    }


if __name__ == "__main__":
    malloc.settle()
    print(json.dumps({str(turns): measure(turns) for turns in TURNS}))
