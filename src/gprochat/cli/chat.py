"""A chat with a service: sends each question, shows the reply as it arrives, and remembers both."""

from collections.abc import Sequence
from pathlib import Path

from gprochat_core import GPROChatError, Message, Service
from gprochat_transports.environment import Proxy

from .failures import complain
from .history import save
from .loops import Loop
from .output import Output

__all__ = ["Chat"]


class Chat:
    """A conversation with a service.

    Args:
        service: the service to ask.
        loop: the adapter to use, and its event loop.
        proxy: a proxy, as the clients take it.
        output: where the replies are shown.
        messages: the earlier messages of the conversation.
        system: instructions for the model; they replace the system messages in `messages`.
        history: the file to write the conversation to.

    Attributes:
        service: the service, as given.
        messages: the conversation so far, oldest message first.
    """

    def __init__(
        self,
        service: Service,
        loop: Loop,
        proxy: Proxy,
        output: Output,
        *,
        messages: Sequence[Message] = (),
        system: str | None = None,
        history: Path | None = None,
    ) -> None:
        self.service = service
        self.messages = list(messages)
        if system is not None:
            self.messages = [Message("system", system)]
            self.messages += [message for message in messages if message.role != "system"]
        self._loop = loop
        self._proxy = proxy
        self._output = output
        self._history = history

    def ask(self, prompt: str) -> None:
        """Ask, show the reply, and remember what arrived of the reply, also after a failure.

        Raises:
            GPROChatError: there was no reply, or it is incomplete.
            KeyboardInterrupt: Ctrl-C ended the reply.
            Failed: the history cannot be written.
        """
        output = self._output
        output.begin()
        asked = self.messages
        try:
            asked = [*asked, Message("user", prompt)]
            self._loop.run(lambda: self._stream(asked))
            output.end()
        except (GPROChatError, KeyboardInterrupt) as error:
            output.fail(error)
            raise
        finally:
            if output.text:
                self.messages = [*asked, Message("assistant", output.text)]
                if self._history is not None:
                    save(self._history, self.messages)
        if not output.text:
            complain("the reply is empty: the model said nothing; ask in other words")

    def reset(self) -> None:
        """Forget the conversation, except the system messages."""
        self.messages = [message for message in self.messages if message.role == "system"]

    async def _stream(self, asked: Sequence[Message]) -> None:
        async with (
            self._loop.make_client(self.service, proxy=self._proxy) as client,
            client.stream(asked) as reply,
        ):
            async for text in reply:
                self._output.write(text)
