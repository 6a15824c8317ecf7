"""The command `gprochat` itself, `gprochat chat`, and the exit codes of all commands."""

import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from gprochat_core import GPROChatError, Service
from gprochat_core.messages import Encoding
from gprochat_transports.environment import Proxy

from .chat import Chat
from .check import check
from .conversation import converse
from .failures import CLOSED_PIPE, INTERRUPTED, Failed
from .gateway import gateway
from .history import check_writable, load, locked
from .loops import choose
from .options import (
    encoding_option,
    example,
    find_service,
    proxy_option,
    service_options,
    transport_option,
)
from .output import JSONOutput, TextOutput, abandon, is_terminal
from .tools import curl, read_stdin, serve, sign

__all__ = ["gprochat"]


class Commands(click.Group):
    """Runs a command, and turns every expected exception into an exit code and one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that the arguments name."""
        try:
            return super().invoke(ctx)
        except (GPROChatError, ModuleNotFoundError) as error:
            raise Failed(str(error)) from error
        except (KeyboardInterrupt, click.Abort):
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            abandon()
            ctx.exit(CLOSED_PIPE)
        except OSError as error:
            abandon()
            raise Failed(f"the system reports: {error.strerror or error}") from error


def show_version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if not value:
        return
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


@gprochat.command(
    epilog=example(
        "gprochat chat 'Tell me a joke.'",
        "git diff | gprochat chat --system 'Review this patch.'",
        "gprochat chat --history joke.json 'Explain it.'",
        "gprochat chat --local",
    )
)
@click.argument("prompt", required=False)
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
    "--json", "as_json", is_flag=True, help="Print JSON objects, one per line: text, end, error."
)
@click.option("--local", is_flag=True, help="Chat with a built-in service that echoes.")
@encoding_option
def chat(
    prompt: str | None,
    transport: str | None,
    url: str | None,
    ask_password: bool,
    ask_secret_key: bool,
    proxy: Proxy,
    system: str | None,
    history: Path | None,
    as_json: bool,
    local: bool,
    encoding: Encoding,
) -> None:
    """Ask PROMPT and print the reply as it arrives.

    Without PROMPT, the question is read from standard input; if that is a terminal, a conversation
    begins. Ctrl-C ends a reply, and the history keeps what has arrived of it.
    """
    if local and (url or ask_password or ask_secret_key):
        raise click.UsageError("--local has its own URL and secrets; leave those options out")
    if prompt is None and is_terminal(sys.stdin):
        if as_json or not is_terminal(sys.stdout):
            raise click.UsageError("nothing to ask: give a PROMPT, or pipe it in")
    elif prompt is None:
        # The line break that ends a piped line is not part of the question.
        prompt = read_stdin().removesuffix("\n").removesuffix("\r")
        if not prompt:
            raise click.UsageError("nothing to ask: standard input is empty")
    loop = choose(transport)
    messages = []
    output = JSONOutput() if as_json else TextOutput()
    with ExitStack() as stack:
        if history is not None:
            check_writable(history)
            stack.enter_context(locked(history))
            messages = load(history) if history.exists() else []
        try:
            if local:
                proxy = None
                service = stack.enter_context(local_service(encoding))
            else:
                service = find_service(
                    url,
                    ask_password=ask_password,
                    ask_secret_key=ask_secret_key,
                    encoding=encoding,
                )
            talk = Chat(
                service, loop, proxy, output, messages=messages, system=system, history=history
            )
        except GPROChatError as error:
            output.fail(error)
            raise
        if prompt is None:
            converse(talk)
        else:
            talk.ask(prompt)


@contextmanager
def local_service(encoding: Encoding) -> Generator[Service, None, None]:
    """Run an embedded service in a thread."""
    from .. import server

    with server.in_thread(server.serve(grace=0.0)) as served:
        yield replace(served.service, encoding=encoding)


for command in (sign, serve, gateway, check, curl):
    gprochat.add_command(command)
