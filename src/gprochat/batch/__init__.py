"""Many prompts: `ask_many` asks them, some at a time, and slows down when the service asks for it.

    async with gprochat.Client(service) as client:
        async for result in ask_many(client, ["One?", "Two?"], concurrency=8):
            print(result.id, result.text or result.error)

`Ask` does the same on several machines, in workers of Ray Data. The extra `batch` installs what
this package needs besides an adapter; the extra `ray` installs Ray Data too.
"""

from .asking import Prompts, Results, ask_many
from .ray import Ask
from .results import Failure, Prompt, Result

__all__ = ["Ask", "Failure", "Prompt", "Prompts", "Result", "Results", "ask_many"]
