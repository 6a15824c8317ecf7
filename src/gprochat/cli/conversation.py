"""The interactive conversation: one line a turn, and a few commands of its own."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from gprochat_core import GPROChatError

from .chat import Chat
from .failures import Failed, complain, needing
from .history import load, save

__all__ = ["converse"]

HELP: Final = """\
/help        this
/reset       forget the conversation, and begin anew
/save FILE   write the conversation to a file
/load FILE   go on with the conversation in a file
/quit        leave; so does Ctrl-D
Ctrl-C ends a reply and keeps what has arrived. A line that begins with a blank is never a command.
"""


def converse(chat: Chat) -> None:
    """Hold a conversation on the terminal until the user leaves.

    Raises:
        Failed: the library for line editing is not installed.
    """
    read_line = line_editor()
    click.echo(f"{chat.service.url}: /help for help, Ctrl-D to leave")
    while True:
        try:
            line = read_line()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        try:
            if line == "/quit":
                return
            if line.startswith("/"):
                obey(chat, line)
            elif line.strip():
                chat.ask(line)
        except KeyboardInterrupt:
            # What has arrived is shown and kept.
            pass
        except (GPROChatError, Failed) as error:
            complain(error)


def line_editor() -> Callable[[], str]:
    with needing("cli"):
        from prompt_toolkit import PromptSession
    session: PromptSession[str] = PromptSession("> ")
    return session.prompt


def obey(chat: Chat, line: str) -> None:
    """Do what a line with a command says.

    Raises:
        Failed: there is no such command, or it cannot be done.
    """
    command, _, argument = line.partition(" ")
    argument = argument.strip()
    if command in ("/save", "/load"):
        if not argument:
            raise Failed(f"{command} needs the name of a file")
        path = Path(os.path.expanduser(argument))
        if command == "/save":
            save(path, chat.messages)
            click.echo(f"saved {len(chat.messages)} messages")
        else:
            chat.messages = load(path)
            click.echo(f"loaded {len(chat.messages)} messages")
    elif command == "/reset":
        chat.reset()
        click.echo("the conversation begins anew")
    elif command == "/help":
        click.echo(HELP, nl=False)
    else:
        raise Failed(f"there is no command {command}; /help lists them")
