"""The command `gprochat` itself, `gprochat chat`, and the exit codes of all commands."""

import shutil
import sys
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click

from gprochat_core import GPROChatError, Service
from gprochat_core.messages import Encoding
from gprochat_transports.environment import Proxy

from .chat import Chat
from .conversation import converse
from .failures import CLOSED_PIPE, INTERRUPTED, Failed, WrongUsage
from .loops import choose
from .options import (
    encoding_option,
    example,
    find_service,
    proxy_option,
    read_stdin,
    service_options,
    transport_option,
)
from .output import abandon, choose_output, is_terminal
from .record import LOCAL, history_file, kept_conversation
from .session import connect
from .waiting import WaitingLine

__all__ = ["gprochat"]


OTHERS: Final = {
    "batch": "batch",
    "check": "check",
    "completion": "completion",
    "curl": "tools",
    "gateway": "gateway",
    "history": "recall",
    "login": "login",
    "logout": "login",
    "serve": "tools",
    "sign": "tools",
}
"""The modules of the commands besides `chat`, which are imported only when they run."""


class HelpFormatter(click.HelpFormatter):
    """Writes help that fits the terminal; click's own needs 50 columns at least."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.width: int = min(self.width, max(shutil.get_terminal_size().columns - 2, 11))

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        """Write a list of two columns, the first of which takes less than half of the width."""
        super().write_dl(rows, min(col_max, self.width // 2 - 5), col_spacing)


# For the contexts of all commands, also of those of `gprochat history`.
click.Context.formatter_class = HelpFormatter


class Commands(click.Group):
    """Runs a command, and turns every expected exception into an exit code and one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted([*self.commands, *OTHERS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name."""
        if cmd_name in OTHERS:
            module = import_module(f".{OTHERS[cmd_name]}", __package__)
            command: click.Command = getattr(module, cmd_name)
            return command
        return super().get_command(ctx, cmd_name)

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Read the arguments, and print the help or the version if they ask for it."""
        with expecting():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that the arguments name."""
        with expecting():
            return super().invoke(ctx)


@contextmanager
def expecting() -> Generator[None, None, None]:
    """Turn expected exceptions into the end of the command."""
    try:
        yield
    except (GPROChatError, ModuleNotFoundError) as error:
        raise Failed(str(error)) from error
    except click.Abort:
        if not is_terminal(sys.stdin):
            raise WrongUsage("there is no terminal to ask on") from None
        raise click.exceptions.Exit(INTERRUPTED) from None
    except KeyboardInterrupt:
        raise click.exceptions.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        abandon()
        raise click.exceptions.Exit(CLOSED_PIPE) from None
    except OSError as error:
        abandon()
        place = "" if error.filename is None else f"{error.filename}: "
        raise Failed(f"the system reports: {place}{error.strerror or error}") from error


def show_version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if not value:
        return
    # Imported here, because it takes long.
    from importlib.metadata import PackageNotFoundError, version

    try:
        click.echo(f"gprochat {version('gprochat')}")
    except PackageNotFoundError:
        click.echo("gprochat, not installed")
    context.exit()


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=example("export GPROCHAT_URL=https://chat.example", "gprochat chat 'Hello, world!'"),
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_version,
    help="Show the version and exit.",
)
def gprochat() -> None:
    """Chat with a service of the GPROChat family.

    Set $GPROCHAT_URL to its URL, $GPROCHAT_SECRET_KEY to the key that signs requests, and
    $GPROCHAT_PASSWORD to the site password if it has one. No option takes a secret as its value.

    Exit codes: 0 for success, 1 for a failure, 2 for wrong usage, 130 for Ctrl-C, 141 if the
    reader of the output closed it.
    """


def one_prompt(
    _context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]
) -> str | None:
    if len(words) > 1:
        # The words are not shown: one may be a secret, as in `--secret-key KEY Hello`.
        raise click.UsageError("PROMPT is one argument; put the prompt in quotes")
    return words[0] if words else None


def refuse_model(_context: click.Context, _parameter: click.Parameter, model: str | None) -> None:
    if model is not None:
        raise click.UsageError("there is no option --model: the service chooses its model")


@gprochat.command(
    epilog=example(
        "gprochat chat 'Tell me a joke.'",
        "git diff | gprochat chat 'Review this patch:'",
        "gprochat chat --continue 'Explain it.'",
        "gprochat chat --local",
    )
)
@click.argument("prompt", metavar="[PROMPT]", nargs=-1, callback=one_prompt)
@transport_option
@service_options
@proxy_option
@click.option("--system", metavar="TEXT", help="Instructions for the model.")
@click.option(
    "--history",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Continue the conversation in this JSON file, and add to it.",
)
@click.option(
    "-c",
    "--continue",
    "go_on",
    is_flag=True,
    help="Continue the last conversation with the service.",
)
@click.option(
    "--save/--no-save",
    "keep",
    default=True,
    help="Whether to keep the conversation. Default: keep.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON objects, one per line: text, end, error."
)
@click.option("--plain", is_flag=True, help="Bare text, and nothing that moves.")
@click.option("--newline", is_flag=True, help="End the output with a line break in a pipe too.")
@click.option("--local", is_flag=True, help="Chat with a built-in service that echoes.")
@click.option("--model", hidden=True, expose_value=False, callback=refuse_model)
@encoding_option
def chat(
    prompt: str | None,
    transport: str | None,
    url: str | None,
    name: str | None,
    ask_password: bool,
    ask_secret_key: bool,
    proxy: Proxy,
    system: str | None,
    history: Path | None,
    go_on: bool,
    keep: bool,
    as_json: bool,
    plain: bool,
    newline: bool,
    local: bool,
    encoding: Encoding | None,
) -> None:
    """Ask PROMPT and print the reply as it arrives.

    If standard input is not a terminal, what it holds is asked too, after PROMPT and a blank line.
    Without PROMPT, on a terminal, a conversation begins. Ctrl-C ends a reply, and the history keeps
    what has arrived of it. On a terminal a reply ends with a line break; a pipe or a file gets the
    reply's characters and no others, unless --newline is given.

    A conversation is kept in a private file, unless --no-save or --history is given. `gprochat
    history` lists them.
    """
    if history is not None and (go_on or not keep):
        raise click.UsageError("--history FILE names the conversation; leave the other option out")
    if local and (url or name or ask_password or ask_secret_key):
        raise click.UsageError("--local has its own URL and secrets; leave those options out")
    question = read_question(prompt)
    if question is None and (as_json or not is_terminal(sys.stdout)):
        raise click.UsageError("nothing to ask: give a PROMPT, or pipe it in")
    loop = choose(transport)
    output = choose_output(as_json=as_json, plain=plain, newline=newline)
    with ExitStack() as stack:
        try:
            if local:
                proxy = None
                service = stack.enter_context(local_service(encoding))
            else:
                service = find_service(
                    url,
                    name,
                    ask_password=ask_password,
                    ask_secret_key=ask_secret_key,
                    encoding=encoding,
                    prompt=prompt,
                )
            talked_to = LOCAL if local else service.url
            recorded = (
                kept_conversation(talked_to, go_on=go_on, keep=keep)
                if history is None
                else history_file(history)
            )
            record, messages = stack.enter_context(recorded)
            session = stack.enter_context(connect(loop, service, proxy))
            waiting = WaitingLine(plain=plain)
            talk = Chat(session, output, waiting, messages=messages, system=system, record=record)
        except GPROChatError as error:
            output.fail(error)
            raise
        if question is None:
            converse(talk, remember=keep)
        else:
            talk.ask(question)


def read_question(prompt: str | None) -> str | None:
    """Return PROMPT and what is piped in, a blank line between; None to begin a conversation.

    Raises:
        click.UsageError: both are blank.
    """
    parts = [] if prompt is None else [prompt]
    if not is_terminal(sys.stdin):
        # The line break that ends a piped line is not part of the question.
        parts.append(read_stdin().removesuffix("\n").removesuffix("\r"))
    elif prompt is None:
        return None
    question = "\n\n".join(part for part in parts if part.strip())
    if not question:
        where = "standard input" if prompt is None else "the prompt"
        raise click.UsageError(f"nothing to ask: {where} is empty")
    return question


@contextmanager
def local_service(encoding: Encoding | None) -> Generator[Service, None, None]:
    """Run an embedded service in a thread."""
    from .. import server

    with server.in_thread(server.serve(grace=0.0)) as served:
        yield replace(served.service, encoding=encoding or "native")
