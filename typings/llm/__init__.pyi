from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from gprochat_core.messages import Role

from .parts import Part

F = TypeVar("F", bound=Callable[..., object])

def hookimpl(function: F) -> F: ...

class Options: ...

class Message(Protocol):
    role: Role
    parts: Sequence[Part]

class Prompt:
    options: Any
    @property
    def messages(self) -> list[Message]: ...

class KeyModel(ABC):
    @abstractmethod
    def execute(
        self,
        prompt: Prompt,
        stream: bool,
        response: object,
        conversation: object,
        key: str | None,
    ) -> Iterator[str]: ...

class AsyncKeyModel(ABC):
    @abstractmethod
    def execute(
        self,
        prompt: Prompt,
        stream: bool,
        response: object,
        conversation: object,
        key: str | None,
    ) -> AsyncGenerator[str]: ...

# The tests use more, and have the real one.
def __getattr__(name: str) -> Any: ...
