"""A process that writes results to an output file as fast as it can, until it is killed.

Run as `python -m tests.gprochat.batch.writer OUT PROMPTS`. Each run goes on where the last ended.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from gprochat.batch import Prompt, Result
from gprochat.batch.records import OutputFile

__all__ = ["TEXT", "prompts"]

TEXT = "Слово. " * 1000
"""Long enough for a write to be interrupted."""


def prompts(number: int) -> Iterator[Prompt]:
    for each in range(number):
        yield Prompt(f"id {each}", f"prompt {each}")


def main(path: str, number: str) -> None:
    record = OutputFile(Path(path))
    for prompt in prompts(int(number)):
        record.check(prompt)
    print("begun", flush=True)
    for prompt in filter(record.needs, prompts(int(number))):
        record.write(Result(prompt.id, f"{prompt.id} {TEXT}", 200, 1, 0.5))
    record.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
