"""The commands of a conversation, such as /save: lines that begin with a slash."""

import os
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from .chat import Chat
from .failures import Failed
from .history import load, save
from .output import echo, printable, say

__all__ = ["COMMANDS", "FILE_COMMANDS", "Leave", "obey"]

NOTES: Final = """\
Alt-Enter, or Escape and Enter, begins a new line. A line of \"\"\" begins a text of several lines,
and another one ends it. Ctrl-R searches what was typed before. Ctrl-C ends a reply and keeps what
has arrived of it. To ask something that begins with /, type a space before it. The service chooses
its model; no command can choose another one."""


TO_ASK: Final = "to ask a question, type a space before it"


class Leave(Exception):
    """The user wants to leave the conversation."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a conversation.

    Attributes:
        argument: what the argument is, such as "FILE"; "" if the command takes none.
        help: what the command does.
        run: carries it out.
        optional: whether the argument may be left out.
    """

    argument: str
    help: str
    run: Callable[[Chat, str], None]
    optional: bool = False


def obey(chat: Chat, line: str) -> None:
    """Carry out the command on a line.

    Raises:
        Failed: there is no such command, or the command failed.
        Leave: the user wants to leave.
    """
    name, _, argument = line.partition(" ")
    argument = argument.strip()
    # Many other programs call it /exit.
    command = COMMANDS.get("/quit" if name == "/exit" else name)
    if command is None:
        if name == "/model":
            raise Failed("there is no command /model: the service chooses its model")
        raise Failed(f"there is no command {name}; /help lists them; {TO_ASK}")
    if argument and not command.argument:
        raise Failed(f"{name} takes no argument; {TO_ASK}")
    if command.argument and not argument and not command.optional:
        raise Failed(f"{name} needs {command.argument}: {command.help}")
    command.run(chat, argument)


def show_help(_chat: Chat, _argument: str) -> None:
    for name, command in COMMANDS.items():
        say(command.help, head=f"{name} {command.argument}".ljust(14))
    say(NOTES)


def reset(chat: Chat, _argument: str) -> None:
    chat.reset()
    say("forgot the conversation")


def retry(chat: Chat, _argument: str) -> None:
    chat.retry()


def edit(chat: Chat, argument: str) -> None:
    try:
        text = click.edit(argument)
    except UnicodeError:
        raise Failed("the text is not UTF-8; set the editor to save UTF-8") from None
    except OSError as error:
        raise Failed(
            f"cannot edit a temporary file: {error.strerror}; type the question here instead"
        ) from None
    # A ValueError reports quotes in the variable that do not match.
    except (click.ClickException, ValueError) as error:
        # click prefers VISUAL to EDITOR, so setting VISUAL helps whichever of them is set.
        raise Failed(f"{error}; set VISUAL to a program that edits a file") from None
    if text is None or not text.strip():
        say("nothing to ask: the text was not saved, or is empty")
        return
    text = text.removesuffix("\n")
    click.echo(printable(text))
    chat.ask(text)


def copy(chat: Chat, _argument: str) -> None:
    reply = next((each.text for each in reversed(chat.messages) if each.role == "assistant"), None)
    if reply is None:
        raise Failed("there is no reply to copy yet")
    # OSC 52 of xterm: the terminal, which may be far away, sets its own clipboard.
    echo(f"\x1b]52;c;{b64encode(reply.encode()).decode()}\x07")
    say(f"sent {len(reply)} characters to the terminal's clipboard")


def system(chat: Chat, argument: str) -> None:
    if argument:
        chat.instruct(argument)
        say("changed the instructions for the model")
    else:
        texts = [message.text for message in chat.messages if message.role == "system"]
        click.echo(printable("\n\n".join(texts)) or "there are no instructions for the model")


def save_file(chat: Chat, argument: str) -> None:
    save(Path(os.path.expanduser(argument)), chat.messages)
    say(f"saved {len(chat.messages)} messages")


def load_file(chat: Chat, argument: str) -> None:
    chat.replace(load(Path(os.path.expanduser(argument))))
    say(f"loaded {len(chat.messages)} messages")


def leave(_chat: Chat, _argument: str) -> None:
    raise Leave


COMMANDS: Final[Mapping[str, Command]] = {
    "/help": Command("", "show this help", show_help),
    "/edit": Command(
        "TEXT", "write the question in $VISUAL or $EDITOR; TEXT is put into it", edit, True
    ),
    "/retry": Command("", "ask the last question again, in place of its reply", retry),
    "/copy": Command("", "copy the last reply to the clipboard", copy),
    "/system": Command("TEXT", "set the instructions for the model, or show them", system, True),
    "/reset": Command("", "begin a new conversation with the same instructions", reset),
    "/save": Command("FILE", "write the conversation to a file", save_file),
    "/load": Command("FILE", "continue the conversation in a file", load_file),
    "/quit": Command("", "leave, as Ctrl-D does", leave),
}

FILE_COMMANDS: Final = tuple(
    name for name, command in COMMANDS.items() if command.argument == "FILE"
)
