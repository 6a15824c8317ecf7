"""The commands for people who run or debug a deployment: sign, serve, curl."""

import asyncio
import logging
import os
import secrets
import shlex
import sys
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from time import time_ns
from typing import Final

import click

from gprochat_core import Signer
from gprochat_core.acceptance import FRESHNESS_MS
from gprochat_core.messages import Encoding, read_messages
from gprochat_core.request import Draft

from .failures import complain, listening
from .options import (
    ask_secret,
    encoding_option,
    example,
    find_service,
    read_stdin,
    secret_key_option,
    service_options,
)
from .output import is_terminal, say

__all__ = ["curl", "serve", "sign"]


MAX_FRESHNESS: Final = 1e9
"""Seconds; a longer time is a mistake."""

OLLAMA: Final = "http://localhost:11434/v1"


def now_ms() -> int:
    return time_ns() // 1_000_000


@click.command(
    epilog=example(
        "gprochat sign --time 1700000000000 'Hello, world!'", "printf %s 'Hello' | gprochat sign -"
    )
)
@click.argument("text")
@click.option("--time", "time_ms", type=int, metavar="MS", help="Unix time in ms. Default: now.")
@secret_key_option
def sign(text: str, time_ms: int | None, ask_secret_key: bool) -> None:
    """Print the signature of TEXT.

    TEXT is the last message of a conversation; with -, it is read from standard input, unchanged.
    Without --time, the current time is signed, and printed on standard error.
    """
    key = os.environ.get("GPROCHAT_SECRET_KEY")
    if key is None or ask_secret_key:
        key = ask_secret("Secret key", "GPROCHAT_SECRET_KEY")
    signer = Signer(key)
    if text == "-":
        text = read_stdin()
    if time_ms is None:
        time_ms = now_ms()
        click.echo(f"time {time_ms}", err=True)
    click.echo(signer.sign(time_ms, text))


@click.command(epilog=example("gprochat curl 'Hello, world!' | sh"))
@click.argument("prompt")
@service_options
@encoding_option
def curl(
    prompt: str,
    url: str | None,
    name: str | None,
    ask_password: bool,
    ask_secret_key: bool,
    encoding: Encoding | None,
) -> None:
    """Print a signed curl command that asks PROMPT.

    It is signed with the current time. It contains the site password, but not the secret key.
    """
    service = find_service(
        url,
        name,
        ask_password=ask_password,
        ask_secret_key=ask_secret_key,
        encoding=encoding,
        prompt=prompt,
    )
    request = Draft(service, read_messages(prompt)).sign(now_ms())
    lines = [["curl", "--silent", "--show-error", "--no-buffer", "--include", request.url]]
    lines += [["--header", f"{name}: {value}"] for name, value in request.headers]
    lines += [["--data-raw", request.body.decode()]]
    # As bytes, because the service expects UTF-8, whatever the encoding of standard output is.
    click.echo(" \\\n  ".join(map(shlex.join, lines)).encode())
    if service.password is not None:
        complain("this command contains the site password: do not share it")


def read_freshness(_context: click.Context, _option: click.Parameter, text: str) -> int | None:
    """Read a number of seconds as milliseconds, or "none"."""
    if text.lower() == "none":
        return None
    try:
        seconds = float(text)
        if 0 <= seconds <= MAX_FRESHNESS:
            return round(seconds * 1000)
    except ValueError:
        pass
    raise click.BadParameter("give a number of seconds, 0 or more, or none")


@click.command(
    epilog=example(
        "gprochat serve --port 8080",
        "gprochat serve --reply openai --openai-url http://localhost:11434/v1 "
        "--openai-model llama3.2",
    )
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: any free port.")
@click.option(
    "--reply",
    type=click.Choice(["echo", "openai"]),
    default="echo",
    show_default=True,
    help="Repeat the question, or ask an OpenAI-compatible API.",
)
@click.option(
    "--openai-url",
    metavar="URL",
    help=f"The API's base URL. Default: {OLLAMA}. Its key: $GPROCHAT_OPENAI_KEY or "
    "$OPENAI_API_KEY.",
)
@click.option("--openai-model", metavar="NAME", help="The API's name for the model.")
@click.option(
    "--freshness",
    "freshness_ms",
    metavar="SECONDS|none",
    default=f"{FRESHNESS_MS // 1000}",
    show_default=True,
    callback=read_freshness,
    help="How far a request's time may be off.",
)
@click.option(
    "--allow-host",
    "allowed_hosts",
    metavar="NAME",
    multiple=True,
    help="A host name under which a proxy or a page reaches the service, besides this machine's. "
    "Can be repeated.",
)
@click.option("--log", is_flag=True, help="Print a line for each request on standard error.")
def serve(
    host: str,
    port: int,
    reply: str,
    openai_url: str | None,
    openai_model: str | None,
    freshness_ms: int | None,
    allowed_hosts: tuple[str, ...],
    log: bool,
) -> None:
    """Run a service until Ctrl-C or SIGTERM.

    The output is one or two lines for the shell of a client: the first exports the service's URL.
    Its secret key is $GPROCHAT_SECRET_KEY. If that is not set, the command makes a new key, and
    the second line exports it. The site password is $GPROCHAT_PASSWORD, if set.
    """
    if log:
        access_logger = logging.getLogger("gprochat.server.access")
        access_logger.addHandler(logging.StreamHandler())
        access_logger.setLevel(logging.INFO)
    if reply == "openai" and openai_model is None:
        raise click.UsageError("--reply openai needs --openai-model")
    if reply == "echo" and (openai_url or openai_model):
        raise click.UsageError("--openai-url and --openai-model need --reply openai")
    asyncio.run(
        run_server(
            host, port, openai_url or OLLAMA, openai_model, freshness_ms, allowed_hosts or None
        )
    )


async def run_server(
    host: str,
    port: int,
    openai_url: str,
    openai_model: str | None,
    freshness_ms: int | None,
    allowed_hosts: tuple[str, ...] | None,
) -> None:
    from .. import server

    given_key = os.environ.get("GPROCHAT_SECRET_KEY")
    password = os.environ.get("GPROCHAT_PASSWORD") or None
    secret_key = secrets.token_urlsafe(32) if given_key is None else given_key
    answering: AbstractAsyncContextManager[server.Answer] = nullcontext(server.echo)
    if openai_model is not None:
        key = os.environ.get("GPROCHAT_OPENAI_KEY") or os.environ.get("OPENAI_API_KEY")
        answering = server.openai(openai_url, model=openai_model, api_key=key)
    # A signal stops the service properly, even before it listens.
    with server.stop_signal() as stopped:
        async with answering as answer, AsyncExitStack() as stack:
            serving = server.serve(
                answer,
                secret_key=secret_key,
                password=password,
                host=host,
                port=port,
                freshness_ms=freshness_ms,
                allowed_hosts=allowed_hosts,
            )
            with listening(host, port):
                served = await stack.enter_async_context(serving)
            click.echo(f"export GPROCHAT_URL={shlex.quote(served.url)}")
            if given_key is None:
                click.echo(f"export GPROCHAT_SECRET_KEY={shlex.quote(secret_key)}")
            if is_terminal(sys.stdout):
                say("serving; run the above in another terminal; Ctrl-C stops", err=True)
            await stopped
