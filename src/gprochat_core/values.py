"""Frozen values: what a frozen dataclass with slots is, at a fraction of its start.

`dataclasses` brings `inspect` along and compiles the methods of each class anew in each process,
which together take longer than all else that this package does when it is imported.
"""

from typing import ClassVar, Final, Self, dataclass_transform

__all__ = ["Value", "put"]

put: Final = object.__setattr__
"""For a class's `__init__`: `put(self, name, value)`, the one time that a value may be set."""


@dataclass_transform(frozen_default=True)
class Value:
    """A value: it does not change, and equals another of its class that was made of equals.

    A class names its attributes in `__slots__`, and those that are its arguments, by which it is
    compared, copied and shown, in `__match_args__`.
    """

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]] = ()

    SECRETS: ClassVar[tuple[str, ...]] = ()
    """The arguments that are never shown."""

    def replace(self, **changes: object) -> Self:
        """Return another one made of the same arguments, but for some; raises as making it does."""
        return type(self)(**{**self._arguments(), **changes})

    __replace__ = replace

    def _arguments(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__match_args__}

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a {type(self).__name__} does not change; make another by replace()")

    def __delattr__(self, name: str) -> None:
        self.__setattr__(name, None)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._arguments() == other._arguments()

    def __hash__(self) -> int:
        return hash(tuple(self._arguments().values()))

    def __repr__(self) -> str:
        shown = [
            f"{name}={value!r}"
            for name, value in self._arguments().items()
            if name not in self.SECRETS
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __reduce__(self) -> tuple[object, ...]:
        return make, (type(self), self._arguments())


def make(kind: type[Value], arguments: dict[str, object]) -> Value:
    """Make a value again that was pickled or copied."""
    return kind(**arguments)
