"""`gprochat history`: the conversations that were kept."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from gprochat_core import Message

from .failures import Failed, WrongUsage, complain
from .history import dump
from .kept import Conversation, conversations, in_use
from .output import choose_output, is_terminal, one_line, printable, width_of

__all__ = ["history"]

HEADINGS: Final = {"system": "Instructions", "user": "Question", "assistant": "Reply"}

LAST: Final = "last"

NONE: Final = "no conversation has been kept yet"


class Name(click.ParamType[Conversation]):
    """The name of a conversation, or its beginning."""

    name = "name"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Conversation:
        """Return the conversation."""
        if isinstance(value, Conversation):
            return value
        found = list(conversations())
        if not found:
            raise WrongUsage(NONE)
        if value == LAST:
            return found[0]
        found = [each for each in found if each.name.startswith(str(value))]
        exact = [each for each in found if each.name == value]
        if len(exact or found) == 1:
            return (exact or found)[0]
        if found:
            raise WrongUsage(f"{len(found)} conversations have names that begin with {value}")
        raise WrongUsage(f"there is no conversation {value}; `gprochat history` lists them")


@click.group(
    invoke_without_command=True,
    epilog="\b\nExample:\n  gprochat history search socket\n  gprochat history show last",
)
@click.pass_context
def history(context: click.Context) -> None:
    """List, show, search, export and remove conversations.

    Without a command, list them. A NAME may be shortened to its beginning; "last" is the
    conversation that was continued last.
    """
    if context.invoked_subcommand is None:
        context.invoke(list_all)


@history.command("list")
def list_all() -> None:
    """List all conversations, the last one first."""
    found = False
    for conversation in conversations():
        found = True
        print_line(conversation, conversation.title)
    if not found:
        complain(NONE)


@history.command()
@click.argument("text")
def search(text: str) -> None:
    """List the conversations that contain TEXT, in upper or lower case, and where."""
    wanted = text.casefold()
    found = False
    for conversation in conversations():
        for message in conversation.messages:
            for line in message.text.splitlines():
                if wanted in line.casefold():
                    found = True
                    print_line(conversation, line)
    if not found:
        complain(f"no conversation contains {text}")


@history.command()
@click.argument("conversation", metavar="[NAME]", type=Name(), default=LAST)
@click.option("--plain", is_flag=True, help="Bare text.")
def show(conversation: Conversation, plain: bool) -> None:
    """Show a conversation, by default the last one."""
    output = choose_output(plain=plain)
    output.write(to_markdown(conversation.messages))
    output.end()


@history.command()
@click.argument("conversation", metavar="[NAME]", type=Name(), default=LAST)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["json", "markdown"]),
    default="json",
    show_default=True,
    help="JSON is what `gprochat chat --history` and /load read.",
)
def export(conversation: Conversation, kind: str) -> None:
    """Print a conversation, by default the last one, as JSON or Markdown, in UTF-8."""
    messages = conversation.messages
    data = to_markdown(messages).encode() if kind == "markdown" else dump(messages)
    click.echo(printable(data.decode()) if is_terminal(sys.stdout) else data, nl=False)


@history.command()
@click.argument("chosen", metavar="NAME...", type=Name(), nargs=-1)
@click.option("--all", "every", is_flag=True, help="Remove all conversations, if you confirm.")
def remove(chosen: tuple[Conversation, ...], every: bool) -> None:
    """Remove conversations."""
    if every == bool(chosen):
        raise click.UsageError("give a NAME, or --all")
    if every:
        chosen = tuple(conversations())
        if not chosen:
            complain(NONE)
            return
        if not click.confirm(f"Remove {len(chosen)} conversations?", err=True):
            return
    # A conversation may have been named twice.
    for conversation in {each.name: each for each in chosen}.values():
        if in_use(conversation):
            raise Failed(f"a chat uses the conversation {conversation.name}; end that chat first")
        Path(conversation.path).unlink()


def print_line(conversation: Conversation, text: str) -> None:
    line = f"{conversation.name}  {one_line(text)}"
    if is_terminal(sys.stdout):
        # Imported here, because it takes long, and a pipe gets the whole line.
        from rich.cells import chop_cells

        line = chop_cells(line, max(width_of(sys.stdout) - 1, 1))[0]
    click.echo(line)


def to_markdown(messages: Sequence[Message]) -> str:
    parts = [f"## {HEADINGS[message.role]}\n\n{message.text.rstrip()}\n" for message in messages]
    return "\n".join(parts)
