"""A chat with a service: asks, shows the reply as it arrives, and remembers both."""

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
    """A conversation, with whom and how it is held.

    Args:
        service: whom to ask.
        loop: the transport that carries it.
        proxy: as the clients take it.
        output: where the replies go.
        messages: what was said before.
        system: instructions for the model; they take the place of those in `messages`.
        history: the file to keep the conversation in.

    Attributes:
        service: as given.
        messages: what has been said, oldest first.
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
        """Ask, show the reply, and keep what arrived of it, however it ended.

        Raises:
            GPROChatError: there was no reply, or not all of it.
            KeyboardInterrupt: Ctrl-C ended it.
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
        """Forget what has been said; the system's instructions stay."""
        self.messages = [message for message in self.messages if message.role == "system"]

    async def _stream(self, asked: Sequence[Message]) -> None:
        async with (
            self._loop.make_client(self.service, proxy=self._proxy) as client,
            client.stream(asked) as reply,
        ):
            async for text in reply:
                self._output.write(text)
