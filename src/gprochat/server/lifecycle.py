"""A service listens until its block is left, and then lets the replies under way finish."""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any, Final

from aiohttp import web

from gprochat_core import Acceptance, Service
from gprochat_core.acceptance import FRESHNESS_MS

from .answers import Answer, echo
from .deployment import MAX_REQUEST_BYTES, Deployment

__all__ = ["Server", "serve"]

LAST_WORDS_TIMEOUT: Final = 1.0
"""Seconds after the grace period in which a client may still read the end of its reply."""

WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}

logger = logging.getLogger("gprochat.server")


@dataclass(frozen=True, slots=True)
class Server:
    """A service that runs.

    Attributes:
        service: its URL and its secrets, as a client needs them.
    """

    service: Service

    @property
    def url(self) -> str:
        """The URL that it serves at."""
        return self.service.url


@asynccontextmanager
async def serve(
    answer: Answer = echo,
    *,
    secret_key: str | None = None,
    password: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    ssl_context: SSLContext | None = None,
    freshness_ms: int | None = FRESHNESS_MS,
    max_request_bytes: int = MAX_REQUEST_BYTES,
    grace: float = 5.0,
) -> AsyncGenerator[Server, None]:
    """Run a service until the block is left: `async with serve(answer) as server: server.url`.

    When the block is left, the service accepts no more connections, replies under way have
    `grace` seconds to finish, and a reply that takes longer is ended with the protocol's failure
    marker. No task and no socket of the service outlives the block. Cancelling the block while
    the service stops ends the grace period at once.

    Args:
        answer: makes the text of the replies; by default it repeats the user's message.
        secret_key: the key that requests must be signed with; None for a random one.
        password: the site password; None for none.
        host: the address or host name to listen on; by default only this machine can connect.
        port: the port to listen on; 0 for any free one.
        ssl_context: the TLS settings, with a certificate; None for plain HTTP.
        freshness_ms: how many milliseconds a request's time may differ from this machine's,
            earlier or later; None for any number.
        max_request_bytes: the largest request body that is accepted.
        grace: how many seconds the replies under way have to finish when the service stops.

    Raises:
        ConfigurationError: a secret cannot be used, or `freshness_ms` is negative.
        OSError: the address or port cannot be listened on.
    """
    if secret_key is None:
        secret_key = secrets.token_urlsafe(32)
    scheme = "http" if ssl_context is None else "https"
    unbound = Service(f"{scheme}://localhost", secret_key=secret_key, password=password)
    deployment = Deployment(answer, Acceptance(unbound, freshness_ms=freshness_ms))
    application = web.Application(middlewares=[deployment.watch], client_max_size=max_request_bytes)
    application.router.add_post("/api/generate", deployment.generate)
    application.router.add_post("/api/auth", deployment.authenticate)
    runner = web.AppRunner(
        application, access_log=None, handler_cancellation=True, shutdown_timeout=LAST_WORDS_TIMEOUT
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=ssl_context).start()
        url = public_url(scheme, host, runner.addresses[0][1])
        logger.info("serving at %s", url)
        yield Server(Service(url, secret_key=secret_key, password=password))
    finally:
        await run_to_end(stop(runner, deployment, grace), deployment.end_now)
        logger.info("stopped")


def public_url(scheme: str, host: str, port: int) -> str:
    host = WILDCARDS.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


async def stop(runner: web.AppRunner, deployment: Deployment, grace: float) -> None:
    for site in runner.sites:
        await site.stop()
    connections = runner.server.connections if runner.server else []
    transports = [each.transport for each in connections if each.transport is not None]
    await deployment.end(grace, LAST_WORDS_TIMEOUT)
    await runner.cleanup()
    # A closed connection exists until its client has read what was sent to it; some never do.
    for _ in range(100):
        await asyncio.sleep(0)
        if all(each.get_extra_info("socket").fileno() == -1 for each in transports):
            return
        await asyncio.sleep(LAST_WORDS_TIMEOUT / 100)
    for transport in transports:
        transport.abort()
    await asyncio.sleep(0)


async def run_to_end(work: Coroutine[Any, Any, None], hurry: Callable[[], None]) -> None:
    """Run a coroutine to its end even if this task is cancelled meanwhile.

    The first cancellation calls `hurry`; the cancellation is raised once the coroutine has ended.
    """
    task = asyncio.create_task(work)
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            if cancellation is None:
                hurry()
            cancellation = error
    task.result()
    if cancellation is not None:
        raise cancellation
