"""The commands for people who run or debug a deployment: sign, serve, check, curl."""

import asyncio
import os
import secrets
import shlex
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from time import monotonic, time, time_ns
from typing import Final, NamedTuple, TextIO

import click

from gprochat_core import (
    ConnectError,
    GPROChatError,
    NotTheService,
    PasswordRejected,
    RetryPolicy,
    Service,
    SignatureRejected,
    Signer,
)
from gprochat_core.diagnosis import read_http_date
from gprochat_core.messages import Encoding, read_messages
from gprochat_core.request import Draft
from gprochat_transports.environment import Proxy

from .failures import FAILURE, WrongUsage, complain
from .loops import Loop, choose
from .options import (
    ask_secret,
    encoding_option,
    example,
    find_service,
    proxy_option,
    secret_key_option,
    service_options,
    transport_option,
)
from .output import one_line

__all__ = ["check", "curl", "read_stdin", "serve", "sign"]

TOLERATED_CLOCK_SKEW: Final = 30.0
"""Seconds; a deployment that checks the time allows five minutes."""


def read_stdin() -> str:
    """Return all of standard input; "" if it is closed.

    Raises:
        WrongUsage: standard input is not UTF-8.
    """
    stream: TextIO | None = sys.stdin
    if stream is None:
        return ""
    try:
        return stream.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise WrongUsage("standard input is not UTF-8 text") from None


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
    prompt: str, url: str | None, ask_password: bool, ask_secret_key: bool, encoding: Encoding
) -> None:
    """Print a signed curl command that asks PROMPT.

    It is signed with the current time. It contains the site password, but not the secret key.
    """
    service = find_service(
        url, ask_password=ask_password, ask_secret_key=ask_secret_key, encoding=encoding
    )
    request = Draft(service, read_messages(prompt)).sign(now_ms())
    lines = [["curl", "--silent", "--show-error", "--no-buffer", "--include", request.url]]
    lines += [["--header", f"{name}: {value}"] for name, value in request.headers]
    lines += [["--data-raw", request.body.decode()]]
    click.echo(" \\\n  ".join(map(shlex.join, lines)))
    if service.password is not None:
        complain("this command contains the site password: do not share it")


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
    default="http://localhost:11434/v1",
    show_default=True,
    help="The API's base URL. Its key: $GPROCHAT_OPENAI_KEY or $OPENAI_API_KEY.",
)
@click.option("--openai-model", metavar="NAME", help="The API's name for the model.")
def serve(host: str, port: int, reply: str, openai_url: str, openai_model: str | None) -> None:
    """Run a service until Ctrl-C or SIGTERM.

    The first line of the output is its URL. Its secret key is $GPROCHAT_SECRET_KEY; if that is not
    set, a new key, printed on standard error. Its site password is $GPROCHAT_PASSWORD, if set.
    """
    if reply == "openai" and openai_model is None:
        raise click.UsageError("--reply openai needs --openai-model")
    model = openai_model if reply == "openai" else None
    asyncio.run(run_server(host, port, openai_url, model))


async def run_server(host: str, port: int, openai_url: str, openai_model: str | None) -> None:
    from .. import server

    secret_key = os.environ.get("GPROCHAT_SECRET_KEY")
    password = os.environ.get("GPROCHAT_PASSWORD") or None
    if secret_key is None:
        secret_key = secrets.token_urlsafe(32)
        click.echo(f"export GPROCHAT_SECRET_KEY={secret_key}", err=True)
    # From here on a signal stops the service properly, even before it listens.
    stopped = asyncio.create_task(server.stop_signal())
    await asyncio.sleep(0)
    answering: AbstractAsyncContextManager[server.Answer] = nullcontext(server.echo)
    if openai_model is not None:
        key = os.environ.get("GPROCHAT_OPENAI_KEY") or os.environ.get("OPENAI_API_KEY")
        answering = server.openai(openai_url, model=openai_model, api_key=key)
    async with (
        answering as answer,
        server.serve(
            answer, secret_key=secret_key, password=password, host=host, port=port
        ) as served,
    ):
        click.echo(served.url)
        await stopped


class Finding(NamedTuple):
    """One line of a check.

    Attributes:
        what: the subject, such as "password".
        ok: whether it works; None if the check cannot know.
        words: the explanation.
    """

    what: str
    ok: bool | None
    words: str


@click.command(epilog=example("gprochat check --url https://chat.example"))
@transport_option
@service_options
@proxy_option
@encoding_option
@click.pass_context
def check(
    context: click.Context,
    transport: str | None,
    url: str | None,
    ask_password: bool,
    ask_secret_key: bool,
    proxy: Proxy,
    encoding: Encoding,
) -> None:
    """Check whether a service works, and if not, what is wrong.

    The check sends one short question and waits for the first byte of the reply. The exit code is
    0 if nothing failed, else 1.
    """
    loop = choose(transport)
    service = find_service(
        url, ask_password=ask_password, ask_secret_key=ask_secret_key, encoding=encoding
    )
    findings = loop.run(lambda: examine(service, loop, proxy))
    for what, ok, words in findings:
        verdict = {True: "ok", False: "FAIL", None: "-"}[ok]
        click.echo(f"{verdict:5} {what:11} {one_line(words)}")
    if any(ok is False for _, ok, _ in findings):
        context.exit(FAILURE)


async def examine(service: Service, loop: Loop, proxy: Proxy) -> list[Finding]:
    """Ask once, and return what the answer shows."""
    first_byte: float | None = None
    error: GPROChatError | None = None
    once = RetryPolicy(max_attempts=1)
    async with loop.make_client(service, proxy=proxy, retry=once) as client:
        reply = client.stream("Hello!")
        asked = monotonic()
        try:
            async with reply:
                async for _ in reply:
                    first_byte = monotonic() - asked
                    break
        except GPROChatError as failure:
            error = failure
    date = read_http_date(reply.headers.get("date", ""))
    skew = None if date is None else date - time()
    findings = judge(service, error, first_byte, accepted=reply.status == 200)
    return [*findings, judge_clock(skew)]


def judge(
    service: Service, error: GPROChatError | None, first_byte: float | None, *, accepted: bool
) -> Iterator[Finding]:
    unknown = "unknown: the service did not get this far"
    reached = not isinstance(error, (ConnectError, NotTheService))
    yield Finding("service", reached, f"answers at {service.url}" if reached else str(error))

    if isinstance(error, PasswordRejected):
        yield Finding("password", False, str(error))
    elif accepted or isinstance(error, SignatureRejected):
        words = "accepted" if service.password else "none set, none needed"
        yield Finding("password", True, words)
    else:
        yield Finding("password", None, unknown)

    if isinstance(error, SignatureRejected):
        yield Finding("signature", False, str(error))
    elif accepted:
        yield Finding("signature", True, "accepted")
    else:
        yield Finding("signature", None, unknown)

    if first_byte is not None:
        yield Finding("first byte", True, f"after {first_byte:.3f} s")
    elif error is None:
        yield Finding("first byte", False, "the reply is empty: the model said nothing")
    elif not reached or isinstance(error, (PasswordRejected, SignatureRejected)):
        yield Finding("first byte", None, unknown)
    else:
        yield Finding("first byte", False, str(error))


def judge_clock(skew: float | None) -> Finding:
    if skew is None:
        return Finding("clock", None, "unknown: the service sends no Date header")
    # A Date header has whole seconds, rounded down.
    if -2 < skew < 1:
        return Finding("clock", True, "within a second or two of the service's")
    words = f"{abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} the service's"
    if abs(skew) <= TOLERATED_CLOCK_SKEW:
        return Finding("clock", True, words)
    return Finding("clock", False, f"{words}; set this machine's clock")
