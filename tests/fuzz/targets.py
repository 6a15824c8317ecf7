"""What can be fuzzed, and the inputs that are kept for each."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from .acceptance import acceptance
from .reply import reply

Harness = Callable[[bytes], None]

TARGETS: Final[dict[str, Harness]] = {"reply": reply, "acceptance": acceptance}

CORPUS: Final = Path(__file__).parent / "corpus"


def corpus(target: str) -> dict[str, bytes]:
    """The inputs kept for a target, by file name."""
    return {path.name: path.read_bytes() for path in sorted((CORPUS / target).iterdir())}
