"""`gprochat login`: keep a service and its secrets under a name."""

from dataclasses import replace
from typing import Final

import click

from gprochat_core import Service
from gprochat_core.messages import Encoding
from gprochat_transports.environment import Proxy

from .check import examine, is_accepted, print_findings
from .failures import FAILURE, complain
from .loops import choose
from .options import ask_secret, encoding_option, example, proxy_option, transport_option
from .output import say
from .services import Services

__all__ = ["login", "logout"]

INSTEAD: Final = "GPROCHAT_URL, GPROCHAT_SECRET_KEY and GPROCHAT_PASSWORD in place of a login"


@click.command(epilog=example("gprochat login", "gprochat login work", "gprochat login --list"))
@click.argument("name", default="default")
@click.option("--url", metavar="URL", help="The deployment's URL; else the command asks for it.")
@click.option("--list", "list_only", is_flag=True, help="List the services that are kept.")
@transport_option
@proxy_option
@encoding_option
@click.pass_context
def login(
    context: click.Context,
    name: str,
    url: str | None,
    list_only: bool,
    transport: str | None,
    proxy: Proxy,
    encoding: Encoding | None,
) -> None:
    """Keep a service and its secrets under a name.

    Without NAME, the name is "default". The command asks for the URL, the secret key and the site
    password, checks them against the service, and keeps them if the service accepts them: the
    secrets in the platform's keyring if it works, else in a file that only its owner can read.
    The service is the default one from then on; --service NAME of other commands chooses another.
    The environment's variables override it.
    """
    # A damaged file is reported before anything is asked for.
    services = Services.load()
    if list_only:
        for each, entry in services.entries.items():
            mark = "*" if each == services.default else " "
            click.echo(f"{mark} {each}  {entry['url']}")
        if not services.entries:
            complain("no service has been kept yet; `gprochat login` keeps one")
        return
    loop = choose(transport)
    if url is None:
        url = str(click.prompt("URL, such as https://chat.example", err=True))
    # A URL that cannot be used is refused before a secret is asked for.
    known = Service(url, encoding=encoding or "native")
    key = ask_secret(f"Secret key of {known.url}", INSTEAD)
    password = ask_secret(f"Password for {known.url}, empty for none", INSTEAD)
    service = replace(known, secret_key=key, password=password or None)
    findings = loop.run(lambda: examine(service, loop, proxy))
    print_findings(findings)
    if not is_accepted(findings):
        complain("the service is not kept, because the check does not show that it works")
        context.exit(FAILURE)
    where = Services.keep(name, service)
    say(f"kept {service.url} as {name}, its secrets in {where}")


@click.command(epilog=example("gprochat logout work"))
@click.argument("name", default="default")
def logout(name: str) -> None:
    """Forget a service that login has kept."""
    Services.load().forget(name)
