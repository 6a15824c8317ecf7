"""The interactive conversation: each line is a question or one of a few commands."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from gprochat_core import GPROChatError
from gprochat_transports.extras import needs

from .chat import Chat
from .failures import Failed, complain
from .history import load, save

__all__ = ["converse"]

HELP: Final = """\
/help        show this help
/reset       forget the conversation
/save FILE   write the conversation to a file
/load FILE   continue the conversation in a file
/quit        leave, as Ctrl-D does
Ctrl-C ends a reply and keeps what has arrived of it. To ask something that begins with /, type a
space before it.
"""


def converse(chat: Chat) -> None:
    """Hold a conversation on the terminal until the user leaves.

    Raises:
        ModuleNotFoundError: the library for line editing is not installed.
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
            # The chat has shown and remembered what arrived of the reply.
            pass
        except (GPROChatError, Failed) as error:
            complain(error)


def line_editor() -> Callable[[], str]:
    with needs("cli"):
        from prompt_toolkit import PromptSession
    session: PromptSession[str] = PromptSession("> ")
    return session.prompt


def obey(chat: Chat, line: str) -> None:
    """Carry out the command on a line.

    Raises:
        Failed: there is no such command, or the command failed.
    """
    command, _, argument = line.partition(" ")
    argument = argument.strip()
    if command in ("/help", "/quit", "/reset") and argument:
        raise Failed(f"{command} takes no argument; to ask a question, type a space before it")
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
        click.echo("forgot the conversation")
    elif command == "/help":
        click.echo(HELP, nl=False)
    else:
        raise Failed(f"there is no command {command}; /help lists them")
