"""A gateway listens until its block is left, and then lets the replies under way finish."""

import secrets
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ssl import SSLContext

from gprochat_core import ConfigurationError, RetryPolicy, Timeouts
from gprochat_core.policy import check_count

from ..server.bodies import MAX_REQUEST_BYTES
from ..server.hosts import Hosts, is_loopback
from ..server.lifecycle import REQUEST_TIMEOUT, listening, public_url
from ..server.listener import Strangers, bind, default_max_connections
from ..server.requests import Requests
from ..server.tally import Tally
from .access_log import logger
from .app import Gateway, check_key, check_origins
from .deployments import Models, models_from_environment

__all__ = ["Running", "gateway"]


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that runs.

    Attributes:
        url: where it listens, without a path.
        key: the key that callers must send; None if they need none. The repr does not show it.
    """

    url: str
    key: str | None = field(repr=False)

    @property
    def base_url(self) -> str:
        """The URL that OpenAI's clients take as their base URL."""
        return f"{self.url}/v1"


@asynccontextmanager
async def gateway(
    models: Models | None = None,
    *,
    key: str | None = None,
    no_key: bool = False,
    strict: bool = False,
    host: str = "127.0.0.1",
    port: int = 0,
    ssl_context: SSLContext | None = None,
    allowed_hosts: Collection[str] | None = None,
    allowed_origins: Collection[str] = (),
    max_request_bytes: int = MAX_REQUEST_BYTES,
    max_connections: int | None = None,
    timeouts: Timeouts | None = None,
    retry: RetryPolicy | None = None,
    grace: float = 5.0,
) -> AsyncGenerator[Running, None]:
    """Run a gateway until the block is left: `async with gateway() as running: running.base_url`.

    When the block is left, the gateway accepts no more connections, replies under way have `grace`
    seconds to finish, and a reply that takes longer is ended with an error.

    Args:
        models: the deployments of each model; None for those that the environment describes, see
            `models_from_environment`.
        key: the key that callers must send; None for a random one.
        no_key: whether callers need no key; on loopback addresses only.
        strict: whether to refuse parameters that would be ignored.
        host: the address or host name to listen on; by default only this machine can connect.
        port: the port to listen on; 0 for any free one.
        ssl_context: the TLS settings, with a certificate; None for plain HTTP.
        allowed_hosts: host names, without ports, that a request's `Host` and `Origin` headers may
            hold besides those of this machine. None: no others if it listens on loopback addresses
            only, else any.
        allowed_origins: origins, such as "https://app.example", whose pages may call (CORS).
        max_request_bytes: the longest body of a request.
        max_connections: how many connections of callers are open at a time; None for 1,000, or
            a third of the descriptors that the process may open if that is less.
        timeouts, retry: of the calls to deployments.
        grace: how many seconds the replies under way have to finish when the gateway stops.

    Raises:
        ConfigurationError: an argument or a setting of the environment cannot be used, or there is
            to be no key on an address that other machines can reach.
        OSError: the address or port cannot be listened on, or the file of the deployments cannot
            be read.
    """
    if models is None:
        models = models_from_environment()
    if key is not None and no_key:
        raise ConfigurationError("pass a key, or no_key=True, not both")
    if key is None and not no_key:
        key = secrets.token_urlsafe(32)
    if key is not None:
        check_key(key)
    if max_connections is None:
        max_connections = default_max_connections()
    check_count("limit", "max_connections", max_connections)
    check_count("limit", "max_request_bytes", max_request_bytes)
    check_origins(allowed_origins)
    Hosts(allowed_hosts)  # raises ConfigurationError before a socket is open
    tally = Tally()
    requests = Requests(Strangers(max_connections))
    sockets = await bind(host, port)
    try:
        if no_key and not all(is_loopback(each.getsockname()[0]) for each in sockets):
            raise ConfigurationError(
                "without a key, a gateway listens on loopback addresses only; "
                "give it a key, or another host"
            )
        application = Gateway(
            models,
            key=key,
            strict=strict,
            hosts=Hosts.of(sockets, allowed_hosts, allowed_origins),
            allowed_origins=allowed_origins,
            requests=requests,
            tally=tally,
            max_request_bytes=max_request_bytes,
            timeouts=timeouts,
            retry=retry,
        ).application()
    except BaseException:
        for each in sockets:
            each.close()
        raise
    url = public_url("http" if ssl_context is None else "https", host, sockets)
    async with listening(
        application,
        requests,
        tally,
        sockets,
        max_connections=max_connections,
        ssl_context=ssl_context,
        request_timeout=REQUEST_TIMEOUT,
        grace=grace,
    ):
        logger.info("serving at %s", url)
        yield Running(url, key)
