"""Many prompts: `ask_many` asks them, some at a time, and slows down where the service asks for it.

    async with gprochat.Client(service) as client:
        async for result in ask_many(client, ["One?", "Two?"], concurrency=8):
            print(result.id, result.text or result.error)

The extra `batch` installs what this package needs besides an adapter.
"""

from typing import TYPE_CHECKING

from .asking import Prompts, Results, ask_many
from .results import Failure, Prompt, Result

if TYPE_CHECKING:
    from .ray import Ask

__all__ = ["Ask", "Failure", "Prompt", "Prompts", "Result", "Results", "ask_many"]

# Hidden from type checkers, which otherwise would accept any name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name != "Ask":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        # Imported only when needed: it imports numpy.
        from .ray import Ask

        globals()[name] = Ask
        return Ask
