"""A chat with a service: sends each question, shows the reply as it arrives, and remembers both."""

from collections.abc import Sequence
from contextlib import closing
from typing import Protocol

from gprochat_core import GPROChatError, Message, Service

from .failures import Failed, complain
from .output import Output
from .session import Retry, Session
from .waiting import WaitingLine

__all__ = ["Chat", "Record"]


class Record(Protocol):
    """Where a chat keeps its conversation."""

    def save(self, messages: Sequence[Message], /) -> None:
        """Keep the conversation as it is now."""
        ...

    def restart(self) -> None:
        """Begin another conversation."""
        ...


class Chat:
    """A conversation with a service.

    Args:
        session: asks the service.
        output: where the replies are shown.
        waiting: says what the chat waits for.
        messages: the earlier messages of the conversation.
        system: instructions for the model; they replace the system messages in `messages`.
        record: where the conversation is kept; None for nowhere.

    Attributes:
        service: the service that the session asks.
        messages: the conversation so far, oldest message first.
    """

    def __init__(
        self,
        session: Session,
        output: Output,
        waiting: WaitingLine,
        *,
        messages: Sequence[Message] = (),
        system: str | None = None,
        record: Record | None = None,
    ) -> None:
        self.service: Service = session.service
        self.messages: list[Message] = list(messages)
        self._unanswered: str | None = None
        if system is not None:
            self.instruct(system)
        self._session = session
        self._output = output
        self._waiting = waiting
        self._record = record

    def ask(self, prompt: str) -> None:
        """Ask, show the reply, and remember what arrived of the reply, also after a failure.

        Raises:
            GPROChatError: there was no reply, or it is incomplete.
            KeyboardInterrupt: Ctrl-C ended the reply.
            Failed: the history cannot be written.
        """
        output, waiting = self._output, self._waiting
        output.begin()
        waiting.begin()
        asked = self.messages
        self._unanswered = prompt
        try:
            asked = [*asked, Message("user", prompt)]
            with closing(self._session.stream(asked)) as reports:
                for report in reports:
                    self._show(report)
            waiting.clear()
            output.end()
        except (GPROChatError, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt) and not output.text:
                waiting.interrupt()
            waiting.clear()
            output.fail(error)
            raise
        finally:
            if output.text:
                self._unanswered = None
                self.messages = [*asked, Message("assistant", output.text)]
                if self._record is not None:
                    self._record.save(self.messages)
        if not output.text:
            complain("the reply is empty: the model said nothing; ask in other words")

    def retry(self) -> None:
        """Ask the last question again; the new reply takes the place of the old one.

        Raises:
            Failed: nothing has been asked yet.
            GPROChatError, KeyboardInterrupt: as `ask`.
        """
        if self._unanswered is not None:
            self.ask(self._unanswered)
            return
        roles = [message.role for message in self.messages]
        if "user" not in roles:
            raise Failed("nothing has been asked yet")
        last = len(roles) - 1 - roles[::-1].index("user")
        before, question = self.messages[:last], self.messages[last].text
        answered, self.messages = self.messages, before
        try:
            self.ask(question)
        finally:
            if self.messages is before:
                # The old reply is better than none.
                self.messages = answered
                self._unanswered = None

    def reset(self) -> None:
        """Forget the conversation, except the system messages."""
        self.replace([message for message in self.messages if message.role == "system"])

    def replace(self, messages: Sequence[Message]) -> None:
        """Go on with another conversation."""
        if self._record is not None:
            self._record.restart()
        self.messages = list(messages)
        self._unanswered = None

    def instruct(self, system: str) -> None:
        """Set the instructions for the model, in place of all system messages.

        Raises:
            InvalidMessages: the text cannot be sent.
        """
        rest = [message for message in self.messages if message.role != "system"]
        self.messages = [Message("system", system), *rest]

    def _show(self, report: str | Retry | None) -> None:
        if isinstance(report, str):
            self._waiting.clear()
            self._output.write(report)
        elif report is not None:
            self._waiting.retry(report)
        else:
            if not self._output.text:
                self._waiting.tick()
            self._output.tick()
