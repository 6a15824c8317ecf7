"""Answers for the embedded service: functions that take a conversation and stream text.

An answer is an asynchronous generator function with one argument, the messages. This file has the
simplest one, `echo`; write your own like it. bridge.py makes one that asks an OpenAI-compatible
API.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from math import ceil
from typing import Final, TypeAlias

from gprochat_core import Message

__all__ = ["Answer", "echo"]

Answer: TypeAlias = Callable[[tuple[Message, ...]], AsyncIterator[str]]
"""Makes the reply to a conversation: takes the messages, the user's last, and yields the pieces of
the reply. An asynchronous generator is closed as soon as its client has gone."""

WORD: Final = re.compile(r"\S{1,12}\s*|\s+")

ECHO_PAUSE: Final = 0.02
ECHO_LENGTH: Final = 2.0
"""Seconds between two pieces, and seconds that the longest reply takes."""


async def echo(messages: tuple[Message, ...]) -> AsyncIterator[str]:
    """Repeat the user's last message, word by word, or several words at once if it is long."""
    words = WORD.findall(messages[-1].text)
    # More pauses, each of them shorter, would take longer: the shortest takes a millisecond.
    at_once = max(1, ceil(len(words) * ECHO_PAUSE / ECHO_LENGTH))
    for start in range(0, len(words), at_once):
        yield "".join(words[start : start + at_once])
        await asyncio.sleep(ECHO_PAUSE)
