"""A service listens until its block is left, and then lets the replies under way finish."""

import asyncio
import logging
import secrets
import socket
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any, Final, Literal

from aiohttp import web

from gprochat_core import Acceptance, ConfigurationError, Service
from gprochat_core.acceptance import FRESHNESS_MS
from gprochat_core.policy import check_count, check_number

from .answers import Answer, echo
from .bodies import MAX_REQUEST_BYTES, MAX_UNFINISHED_BYTES, MIN_BODY_RATE, Bodies
from .deployment import Deployment
from .hosts import Hosts
from .listener import Listener, Strangers, bind, default_max_connections
from .replays import Replays
from .requests import Requests, http_logger, send_whole
from .tally import Tally

__all__ = ["REQUEST_TIMEOUT", "Server", "listening", "public_url", "serve"]

LAST_WORDS_TIMEOUT: Final = 1.0
"""Seconds after the grace period in which a client may still read the end of its reply."""

REQUEST_TIMEOUT: Final = 10.0
"""The default of `request_timeout` in seconds."""

LINGERING_TIME: Final = 2.0
"""Seconds in which a client may send the rest of a request that is refused already; only a client
that has sent all of it is sure to read the answer."""

MAX_HEADERS: Final = 64

WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}

ACCESS_LOG_FORMAT: Final = '%t %a "%r" %s %b bytes %Tf s'

logger: logging.Logger = logging.getLogger("gprochat.server")

access_logger: logging.Logger = logging.getLogger("gprochat.server.access")
"""aiohttp logs here each request at INFO: when, from where, what, the status, bytes, seconds."""


@dataclass(frozen=True, slots=True)
class Server:
    """A service that runs.

    Attributes:
        service: its URL and its secrets, as a client needs them.
    """

    service: Service

    @property
    def url(self) -> str:
        """The service's URL."""
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
    allowed_hosts: Collection[str] | None = None,
    freshness_ms: int | None = FRESHNESS_MS,
    replay: Literal["allow", "refuse"] = "allow",
    max_request_bytes: int = MAX_REQUEST_BYTES,
    max_unfinished_bytes: int = MAX_UNFINISHED_BYTES,
    max_connections: int | None = None,
    request_timeout: float = REQUEST_TIMEOUT,
    min_body_rate: float = MIN_BODY_RATE,
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
        allowed_hosts: host names, without ports, that a request's `Host` and `Origin` headers may
            hold besides those of this machine. None: no others if it listens on loopback addresses
            only, else any.
        freshness_ms: how many milliseconds a request's time may differ from this machine's,
            earlier or later; None for any number.
        replay: "refuse" refuses a request whose signature was accepted before; two requests with
            the same last message in the same millisecond have the same signature. "allow" accepts
            a signature any number of times, as the family does.
        max_request_bytes: the largest request body that is accepted.
        max_unfinished_bytes: how many bytes of request bodies that are not accepted yet are held
            at a time; beyond it, the oldest of these requests is refused.
        max_connections: how many connections are open at a time; beyond it, the connection without
            an accepted request that has been silent for the longest is closed. None for 1,000, or
            a third of the descriptors that the process may open if that is less.
        request_timeout: seconds in which a request's head must arrive, after the connection was
            opened or the reply before it has ended; seconds in which its body must arrive, plus
            the time that its bytes take at `min_body_rate`.
        min_body_rate: bytes a second.
        grace: how many seconds the replies under way have to finish when the service stops.

    Raises:
        ConfigurationError: a secret cannot be used, `freshness_ms` is negative, a limit is not a
            number above 0, `allowed_hosts` is a str, or `replay` is neither of its two values.
        OSError: the address or port cannot be listened on.
    """
    if secret_key is None:
        secret_key = secrets.token_urlsafe(32)
    scheme = "http" if ssl_context is None else "https"
    unbound = Service(f"{scheme}://localhost", secret_key=secret_key, password=password)
    acceptance = Acceptance(unbound, freshness_ms=freshness_ms)
    if replay not in ("allow", "refuse"):
        raise ConfigurationError(f'replay={replay!r}: give "allow" or "refuse"')
    if max_connections is None:
        max_connections = default_max_connections()
    check_count("limit", "max_connections", max_connections)
    check_count("limit", "max_request_bytes", max_request_bytes)
    check_count("limit", "max_unfinished_bytes", max_unfinished_bytes)
    check_number("limit", "request_timeout", request_timeout, zero=False)
    check_number("limit", "min_body_rate", min_body_rate, zero=False)
    tally = Tally()
    requests = Requests(Strangers(max_connections))
    bodies = Bodies(
        tally,
        max_bytes=max_request_bytes,
        max_unfinished_bytes=max_unfinished_bytes,
        timeout=request_timeout,
        min_rate=min_body_rate,
    )
    replays = Replays() if replay == "refuse" else None
    Hosts(allowed_hosts)  # raises ConfigurationError before a socket is open
    sockets = await bind(host, port)
    hosts = Hosts.of(sockets, allowed_hosts)
    deployment = Deployment(answer, acceptance, hosts, bodies, requests, replays)
    application = web.Application(middlewares=[deployment.watch])
    application.router.add_post("/api/generate", deployment.generate)
    application.router.add_post("/api/auth", deployment.authenticate)
    url = public_url(scheme, host, sockets)
    async with listening(
        application,
        requests,
        tally,
        sockets,
        max_connections=max_connections,
        ssl_context=ssl_context,
        request_timeout=request_timeout,
        grace=grace,
    ):
        logger.info("serving at %s", url)
        if not secret_key:
            logger.warning("the secret key is empty: anybody can sign requests")
        yield Server(Service(url, secret_key=secret_key, password=password))


@asynccontextmanager
async def listening(
    application: web.Application,
    requests: Requests,
    tally: Tally,
    sockets: Sequence[socket.socket],
    *,
    max_connections: int,
    ssl_context: SSLContext | None,
    request_timeout: float,
    grace: float,
) -> AsyncGenerator[None, None]:
    """Serve an application until the block is left, within limits, and stop it gracefully.

    Args:
        application: has a middleware that counts each request in `requests`.
        requests: the requests under way.
        tally: counts the connections that are closed, and is flushed at the end.
        sockets: what `bind` returned; they are closed.
        max_connections, ssl_context, request_timeout, grace: as in `serve`.
    """
    application.middlewares.insert(0, send_whole)
    runner = web.AppRunner(
        application,
        access_log=access_logger,
        access_log_format=ACCESS_LOG_FORMAT,
        auto_decompress=False,
        handler_cancellation=True,
        # aiohttp closes a connection that has not sent a whole head in this time.
        keepalive_timeout=request_timeout,
        lingering_time=LINGERING_TIME,
        logger=http_logger,
        max_headers=MAX_HEADERS,
        shutdown_timeout=LAST_WORDS_TIMEOUT,
    )
    try:
        await runner.setup()
    except BaseException:
        for each in sockets:
            each.close()
        raise
    assert runner.server is not None  # since setup()
    listener = Listener(
        runner.server,
        sockets,
        requests.strangers,
        tally,
        limit=max_connections,
        ssl_context=ssl_context,
        handshake_timeout=request_timeout,
    )
    try:
        yield
    finally:
        await run_to_end(stop(listener, runner, requests, grace), requests.end_now)
        tally.flush()
        logger.info("stopped")


def public_url(scheme: str, host: str, sockets: Sequence[socket.socket]) -> str:
    """Return the URL of what listens on these sockets, as clients on this machine reach it."""
    host = WILDCARDS.get(host, host)
    port = sockets[0].getsockname()[1]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


async def stop(listener: Listener, runner: web.AppRunner, requests: Requests, grace: float) -> None:
    await listener.close()
    connections = runner.server.connections if runner.server else []
    transports = [each.transport for each in connections if each.transport is not None]
    # A TLS transport that has been closed does not know its socket any more.
    sockets = [each.get_extra_info("socket") for each in transports]
    await requests.end(grace, LAST_WORDS_TIMEOUT)
    await runner.cleanup()
    # A closed connection exists until its client has read what was sent to it; some never do.
    for _ in range(100):
        await asyncio.sleep(0)
        if all(each is None or each.fileno() == -1 for each in sockets):
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
