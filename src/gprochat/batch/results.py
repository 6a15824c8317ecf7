"""What is asked and what comes of it: `Prompt`, `Result`, `Failure`."""

from dataclasses import dataclass

from gprochat_core.messages import Conversation

__all__ = ["Failure", "Prompt", "Result"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation to send, and the name by which its result is found.

    Attributes:
        id: the name; it should be unique in a run.
        conversation: a str, a `Message`, or a list of either or of role/content dicts, as
            `Client.stream` takes it.
    """

    id: str
    conversation: Conversation


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no whole reply.

    Attributes:
        kind: the name of the error's class, such as "TruncatedReply".
        message: what the error says, without secrets.
        text: the part of the reply that arrived; "" if nothing did.
    """

    kind: str
    message: str
    text: str


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a prompt.

    Attributes:
        id: the prompt's id.
        text: the whole reply; None if the prompt failed.
        status: the HTTP status of the last attempt; None if there was no response.
        attempts: how many attempts were made for the prompt, also those that found no connection.
        seconds: how long the last attempt took.
        error: why the prompt failed; None if it was answered.
    """

    id: str
    text: str | None
    status: int | None
    attempts: int
    seconds: float
    error: Failure | None = None
