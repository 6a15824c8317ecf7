"""The command `gprochat gateway`: deployments, for programs that speak OpenAI's API."""

import asyncio
import logging
import os
import shlex
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gprochat_core.messages import Encoding

from .failures import listening
from .options import encoding_option, example, find_service, service_options

if TYPE_CHECKING:
    from ..gateway import Models

__all__ = ["gateway"]


def repeatable(name: str, parameter: str, metavar: str, about: str) -> Callable[..., Any]:
    return click.option(
        name, parameter, metavar=metavar, multiple=True, help=f"{about} Can be repeated."
    )


@click.command(
    epilog=example("gprochat gateway --port 8080", "gprochat gateway --config deployments.toml")
)
@service_options
@encoding_option
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: any free port.")
@click.option(
    "--config",
    metavar="FILE",
    envvar="GPROCHAT_GATEWAY_CONFIG",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A TOML file of deployments. Default: $GPROCHAT_GATEWAY_CONFIG, else one deployment, as "
    "the model gprochat.",
)
@click.option("--no-key", is_flag=True, help="Callers need no key; on loopback addresses only.")
@click.option("--strict", is_flag=True, help="Refuse parameters that would be ignored.")
@repeatable(
    "--allow-host",
    "allowed_hosts",
    "NAME",
    "A host name under which a proxy or a page reaches the gateway, besides this machine's.",
)
@repeatable(
    "--allow-origin",
    "allowed_origins",
    "URL",
    "An origin whose pages may call, such as https://app.example.",
)
def gateway(
    url: str | None,
    name: str | None,
    ask_password: bool,
    ask_secret_key: bool,
    encoding: Encoding | None,
    host: str,
    port: int,
    config: Path | None,
    no_key: bool,
    strict: bool,
    allowed_hosts: tuple[str, ...],
    allowed_origins: tuple[str, ...],
) -> None:
    """Serve deployments as OpenAI's API until Ctrl-C or SIGTERM.

    The output is the base URL and the key, as two lines for the shell. The key is
    $GPROCHAT_GATEWAY_KEY; if that is not set, a new one. Each request is a line on standard error.
    """
    from ..gateway.deployments import one_model, read_models

    if config is None:
        service = find_service(
            url, name, ask_password=ask_password, ask_secret_key=ask_secret_key, encoding=encoding
        )
        models = one_model(service)
    elif url or name or ask_password or ask_secret_key or encoding:
        raise click.UsageError(
            f"{config} describes the deployments; leave --url, --service, --password, "
            "--secret-key and --encoding out"
        )
    else:
        models = read_models(config)
    asyncio.run(
        run_gateway(models, host, port, no_key, strict, allowed_hosts or None, allowed_origins)
    )


async def run_gateway(
    models: "Models",
    host: str,
    port: int,
    no_key: bool,
    strict: bool,
    allowed_hosts: tuple[str, ...] | None,
    allowed_origins: tuple[str, ...],
) -> None:
    from .. import gateway, server

    logger = logging.getLogger("gprochat.gateway")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    serving = gateway.gateway(
        models,
        key=None if no_key else os.environ.get("GPROCHAT_GATEWAY_KEY"),
        no_key=no_key,
        strict=strict,
        host=host,
        port=port,
        allowed_hosts=allowed_hosts,
        allowed_origins=allowed_origins,
    )
    # A signal stops the gateway properly, even before it listens.
    with server.stop_signal() as stopped:
        async with AsyncExitStack() as stack:
            with listening(host, port):
                running = await stack.enter_async_context(serving)
            click.echo(f"export OPENAI_BASE_URL={running.base_url}")
            # OpenAI's clients insist on a key.
            click.echo(f"export OPENAI_API_KEY={shlex.quote(running.key or 'none')}")
            await stopped
