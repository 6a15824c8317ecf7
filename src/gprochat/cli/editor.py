"""The line editor of a conversation: several lines, what was typed before, and completion."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import click

from gprochat_transports.extras import needs

from .folders import data_folder, private_file
from .output import can_move_cursor
from .slash import COMMANDS, FILE_COMMANDS

with needs("cli"):
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
    from prompt_toolkit.document import Document
    from prompt_toolkit.enums import DEFAULT_BUFFER
    from prompt_toolkit.filters import has_focus
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

__all__ = ["BLOCK", "line_editor", "typed_before", "unwrap"]

BLOCK: Final = '"""'
"""A line that begins or ends a text of several lines."""


class SlashCompleter(Completer):
    """Completes the commands of a conversation, and the files that some of them take."""

    def __init__(self) -> None:
        self._files = PathCompleter(expanduser=True)

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """Yield what may stand where the cursor is."""
        text = document.text_before_cursor
        command, blank, argument = text.partition(" ")
        if blank and command in FILE_COMMANDS:
            yield from self._files.get_completions(Document(argument), complete_event)
        elif text.startswith("/") and not blank:
            for name, described in COMMANDS.items():
                if name.startswith(text):
                    yield Completion(
                        f"{name} " if described.argument else name,
                        start_position=-len(text),
                        display_meta=described.help,
                    )


def line_editor(*, remember: bool) -> Callable[[], str]:
    """Return a function that reads what the user types; it may have several lines.

    Args:
        remember: whether to keep what is typed for later conversations, in a private file.
    """
    # prompt_toolkit sends sequences that move the cursor even to a terminal that cannot move it.
    read_line = editing(remember) if can_move_cursor() else without_editing

    def read() -> str:
        text = read_line("> ")
        while in_block(text):
            text += "\n" + read_line("")
        return text

    return read


def without_editing(prompt: str) -> str:
    try:
        return input(prompt)
    except (KeyboardInterrupt, EOFError):
        # The cursor is still on the line that was not finished.
        click.echo()
        raise


def editing(remember: bool) -> Callable[[str], str]:
    bindings = KeyBindings()

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    # Not in the search of Ctrl-R, where Enter takes what was found.
    @bindings.add("enter", filter=has_focus(DEFAULT_BUFFER))
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if in_block(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    session: PromptSession[str] = PromptSession(
        key_bindings=bindings,
        completer=SlashCompleter(),
        complete_while_typing=False,
        history=typed_before() if remember else InMemoryHistory(),
    )
    return session.prompt


class TypedBefore(FileHistory):
    """What was typed, in a file; if the disk is full, only in memory."""

    def store_string(self, string: str) -> None:
        """Append a text to the file."""
        # A disk that is full is no reason not to chat.
        with suppress(OSError):
            super().store_string(string)


def typed_before() -> History:
    """Return the lines that were typed in earlier conversations; a private file keeps them."""
    with suppress(OSError):
        path: Path = private_file(data_folder() / "typed")
        return TypedBefore(path)
    # A folder that cannot be written is no reason not to chat.
    return InMemoryHistory()


def in_block(text: str) -> bool:
    """Return whether a text begins with a line of `BLOCK` and no second one has ended the block."""
    first, *rest = text.split("\n")
    return first.strip() == BLOCK and (not rest or rest[-1].strip() != BLOCK)


def unwrap(text: str) -> str | None:
    """Return what stands between two lines of `BLOCK`; None if the text is no such block."""
    first, *middle = text.split("\n")
    if first.strip() != BLOCK or not middle or middle.pop().strip() != BLOCK:
        return None
    return "\n".join(middle)
