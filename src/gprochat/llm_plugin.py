"""The plugin for llm: `llm -m gprochat 'Hello'` talks to a deployment without a gateway.

llm imports this file through the entry point group `llm`; nothing else does. It needs llm 0.32 or
newer, and the extra `httpx` or `httpx2`.

The secret key is llm's key `gprochat`, or else the variable `GPROCHAT_SECRET_KEY`. URL and
password are those of `GPROCHAT_URL` and `GPROCHAT_PASSWORD`. The errors are this project's; llm's
command shows their messages, which are one line each.
"""

from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import replace

import llm
from llm.parts import ReasoningPart, TextPart

from gprochat_core import InvalidMessages, Message, Service
from gprochat_core.messages import Encoding
from gprochat_transports import service_from_environment

__all__ = ["AsyncModel", "Model", "register_models"]


@llm.hookimpl
def register_models(register: Callable[[llm.KeyModel, llm.AsyncKeyModel], None]) -> None:
    """Add the two models to those of llm."""
    register(Model(), AsyncModel())


class Described:
    """The attributes that llm reads of a model, the same for both models.

    The service takes text only, and reports no numbers of tokens.
    """

    model_id = "gprochat"
    can_stream = True
    needs_key = "gprochat"
    key_env_var = "GPROCHAT_SECRET_KEY"

    class Options(llm.Options):
        """The options of a prompt: `llm -m gprochat -o encoding content 'Hello'`.

        Attributes:
            encoding: how the conversation is written in the request.
        """

        encoding: Encoding = "native"


class Model(Described, llm.KeyModel):
    """The model for llm's command and for synchronous code.

    A prompt raises as `gprochat.SyncClient` does, and `llm.NeedsKeyException` without a key.
    """

    def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: object,
        conversation: object,
        key: str | None,
    ) -> Iterator[str]:
        """Yield the pieces of the reply."""
        from gprochat_transports.httpx import SyncClient

        asked = read_messages(prompt)
        with SyncClient(find_service(prompt, key)) as client, client.stream(asked) as reply:
            yield from reply


class AsyncModel(Described, llm.AsyncKeyModel):
    """The model for asynchronous code: `llm.get_async_model("gprochat")`.

    A prompt raises as `gprochat.Client` does, and `llm.NeedsKeyException` without a key.
    """

    async def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: object,
        conversation: object,
        key: str | None,
    ) -> AsyncGenerator[str, None]:
        """Yield the pieces of the reply."""
        from .client import Client

        asked = read_messages(prompt)
        async with Client(find_service(prompt, key)) as client, client.stream(asked) as reply:
            async for text in reply:
                yield text


def find_service(prompt: llm.Prompt, key: str | None) -> Service:
    """Return the service of the environment, with llm's key."""
    service = service_from_environment()
    return replace(service, secret_key=key, encoding=prompt.options.encoding)


def read_messages(prompt: llm.Prompt) -> list[Message]:
    """Return a prompt as a conversation, earlier messages first.

    Raises:
        InvalidMessages: the conversation holds something else than text. It may have been begun
            with another model.
    """
    messages: list[Message] = []
    for index, message in enumerate(prompt.messages):
        texts: list[str] = []
        for part in message.parts:
            if isinstance(part, TextPart):
                texts.append(part.text)
            elif not isinstance(part, ReasoningPart):
                raise InvalidMessages(
                    f"message {index} holds a {type(part).__name__}: the service takes text only",
                    index=index,
                )
        messages.append(Message(message.role, "".join(texts)))
    return messages
