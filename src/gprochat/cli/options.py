"""The options that commands share, and the service that they and the environment describe.

A secret is never an option's value, because other processes and the shell's history see options.
It comes from the environment, or the command asks for it without echo.
"""

import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from getpass import GetPassWarning
from typing import Any, Final, TextIO, TypeVar

import click

from gprochat_core import Service
from gprochat_core.messages import ENCODINGS, Encoding
from gprochat_transports.environment import FROM_ENVIRONMENT, Proxy, service_from_environment

from .failures import WrongUsage
from .loops import TRANSPORTS

__all__ = [
    "ask_secret",
    "encoding_option",
    "example",
    "find_service",
    "proxy_option",
    "read_stdin",
    "secret_key_option",
    "service_options",
    "transport_option",
]

Command = TypeVar("Command", bound=Callable[..., Any])

transport_option: Final = click.option(
    "--transport", type=click.Choice(list(TRANSPORTS)), help="Default: the first that is installed."
)

encoding_option: Final = click.option(
    "--encoding",
    type=click.Choice(list(ENCODINGS)),
    help="How conversations are written in requests. Default: native, or as kept by login.",
)

secret_key_option: Final = click.option(
    "--secret-key",
    "ask_secret_key",
    is_flag=True,
    help="Ask for the secret key, instead of $GPROCHAT_SECRET_KEY. Takes no value.",
)


def read_proxy(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Proxy:
    if value is None:
        return FROM_ENVIRONMENT
    return None if value == "none" else value


proxy_option: Final = click.option(
    "--proxy",
    metavar="URL",
    callback=read_proxy,
    help="An HTTP or SOCKS5 proxy, or none. Default: $HTTPS_PROXY, $HTTP_PROXY or $ALL_PROXY, "
    "whose password other users cannot see with ps.",
)


def service_options(command: Command) -> Command:
    """Add the options that choose the service: `url`, `name`, `ask_password`, `ask_secret_key`."""
    for option in (
        secret_key_option,
        click.option(
            "--password",
            "ask_password",
            is_flag=True,
            help="Ask for the site password, instead of $GPROCHAT_PASSWORD. Takes no value.",
        ),
        click.option(
            "--service",
            "name",
            metavar="NAME",
            help="A service that `gprochat login` has kept. Default: the last one it kept.",
        ),
        click.option("--url", help="The deployment's URL, instead of $GPROCHAT_URL."),
    ):
        command = option(command)
    return command


def find_service(
    url: str | None,
    name: str | None,
    *,
    ask_password: bool,
    ask_secret_key: bool,
    encoding: Encoding | None = None,
    prompt: str | None = None,
) -> Service:
    """Return the service that options, environment and `gprochat login` describe, with its key.

    The environment's variables override the service that is the default of `gprochat login`. A
    service that `name` names has its own URL; the variables' secrets are used if they are for it.

    Args:
        url, name, ask_password, ask_secret_key, encoding: the options.
        prompt: what is to be asked; it must not be a secret that was typed.

    Raises:
        ConfigurationError: an option or a variable cannot be used.
        WrongUsage: there is no URL, or no secret key and no terminal to ask on; or the prompt is
            a secret.
    """
    if name is not None and url is not None:
        raise WrongUsage("--service has a URL of its own; leave --url out")
    kept = None
    if name is not None or not (url or os.environ.get("GPROCHAT_URL")):
        # Imported here, because most commands need no service that was kept.
        from .services import Services

        kept = Services.load().find(name)
        if kept is None:
            raise WrongUsage(
                "no URL: run `gprochat login`, set GPROCHAT_URL, or pass --url, such as "
                "https://chat.example"
            )
        url = kept.url
    service = service_from_environment(url=url, default=kept)
    if encoding is not None:
        service = replace(service, encoding=encoding)
    if ask_password:
        password = ask_secret(f"Password for {service.url}", with_url("GPROCHAT_PASSWORD", service))
        refuse_secret(prompt, password, "password", "--password", "GPROCHAT_PASSWORD")
        service = replace(service, password=password or None)
    key = service.secret_key
    if key is None or ask_secret_key:
        key = ask_secret(f"Secret key of {service.url}", with_url("GPROCHAT_SECRET_KEY", service))
        refuse_secret(prompt, key, "secret key", "--secret-key", "GPROCHAT_SECRET_KEY")
    return replace(service, secret_key=key)


def with_url(variable: str, service: Service) -> str:
    """Return the name of a secret's variable, with GPROCHAT_URL if that names another service.

    The variables' secrets are for the service that GPROCHAT_URL names, if it is set.
    """
    theirs = os.environ.get("GPROCHAT_URL")
    other = theirs and Service(theirs).url != service.url
    return f"GPROCHAT_URL and {variable}" if other else variable


def refuse_secret(prompt: str | None, typed: str, what: str, option: str, variable: str) -> None:
    """Refuse a prompt that is a secret: in `--secret-key KEY`, KEY is the prompt.

    Raises:
        WrongUsage: the prompt is what was typed.
    """
    if prompt is not None and prompt.strip() == typed.strip() != "":
        raise WrongUsage(
            f"the prompt is the {what}: {option} takes no value, it asks for the {what}; "
            f"or set {variable}"
        )


def ask_secret(what: str, variables: str) -> str:
    """Ask on the terminal, without echo.

    Raises:
        WrongUsage: there is no terminal.
    """
    try:
        with warnings.catch_warnings():
            # getpass warns before it reads a secret with echo.
            warnings.simplefilter("error", GetPassWarning)
            answer: str = click.prompt(
                what, hide_input=True, default="", show_default=False, err=True
            )
    except GetPassWarning:
        raise WrongUsage(f"{what}: set {variables}; there is no terminal to ask on") from None
    return answer


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


def example(*lines: str) -> str:
    """Return lines of a shell as the examples at the end of a command's help."""
    return "\n".join(["\b", "Example:", *(f"  {line}" for line in lines)])
