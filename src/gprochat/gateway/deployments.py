"""Several deployments behind a few model names: decides which deployment answers a call.

A call goes to the deployment with the fewest live replies. If it fails before its first character,
it goes to the next deployment. A deployment that failed several times in a row rests for a while:
a call goes to it only if all others have failed.
"""

import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Final, Self, TypeAlias, cast

from gprochat_core import (
    ConfigurationError,
    GPROChatError,
    Limits,
    Message,
    RetryPolicy,
    Service,
    Timeouts,
)
from gprochat_core.messages import Encoding
from gprochat_transports import Reply, service_from_environment
from gprochat_transports.aiohttp import Client

from .failures import is_callers

__all__ = [
    "DEFAULT_MODEL",
    "Call",
    "Deployment",
    "Models",
    "Upstreams",
    "models_from_environment",
    "one_model",
    "read_models",
]

DEFAULT_MODEL: Final = "gprochat"
"""The name of the only model if no file names any."""

FAILURES: Final = 3
"""After how many failures in a row a deployment rests."""

REST: Final = 30.0
"""For how many seconds a deployment rests."""

RETRY: Final = RetryPolicy(max_retry_after=10.0)
"""The default: if a deployment asks for a wait of more than 10 seconds, the call fails at once."""

ONCE: Final = RetryPolicy(max_attempts=1)

SECRETS: Final = ("secret_key", "password")

SETTINGS: Final = frozenset({"url", "encoding", "max_history"}).union(
    *({name, f"{name}_env"} for name in SECRETS)
)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment with a name.

    Attributes:
        name: the name that GET /health shows.
        service: its URL, secrets and encoding.
    """

    name: str
    service: Service


Models: TypeAlias = Mapping[str, Sequence[Deployment]]
"""The deployments of each model, one or more; two that are equal are one deployment."""


def models_from_environment(environ: Mapping[str, str] = os.environ) -> Models:
    """Return the models that environment variables describe.

    They are those of the file `GPROCHAT_GATEWAY_CONFIG`; without that variable, one model
    "gprochat" of the deployment in `GPROCHAT_URL`, `GPROCHAT_SECRET_KEY` and `GPROCHAT_PASSWORD`.

    Raises:
        ConfigurationError: a value cannot be used, or is missing.
        OSError: the file cannot be read.
    """
    if path := environ.get("GPROCHAT_GATEWAY_CONFIG"):
        return read_models(Path(path), environ)
    return one_model(service_from_environment(environ))


def one_model(service: Service) -> Models:
    """Return the models of a gateway to one service: the model "gprochat".

    Raises:
        ConfigurationError: the service has no secret key.
    """
    _ = service.signer
    return {DEFAULT_MODEL: (Deployment(DEFAULT_MODEL, service),)}


def read_models(path: Path, environ: Mapping[str, str] = os.environ) -> Models:
    """Read a TOML file of deployments and models.

    Each table `[deployments.NAME]` has a `url`, may have an `encoding` and a `max_history`, and
    names in `secret_key_env` and `password_env` the variables that hold its secrets. A deployment
    is a model of its name. The table `[models]` adds models of several deployments: the value is
    a list of their names.

    A file that only its owner can read, and that belongs to the user, may hold the secrets itself,
    as `secret_key` and `password`.

    Args:
        path: the file.
        environ: the environment variables.

    Raises:
        ConfigurationError: the file is not of this form, or a variable that it names is not set.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        try:
            tables = tomllib.load(file)
        except (ValueError, RecursionError) as error:
            # The message of a UnicodeDecodeError quotes bytes of the file.
            told = error if isinstance(error, tomllib.TOMLDecodeError) else type(error).__name__
            raise ConfigurationError(f"{path} is not valid TOML: {told}") from None
    # Windows has neither owners nor such modes.
    private = os.name != "posix" or (
        status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    )
    if unknown := tables.keys() - {"deployments", "models"}:
        raise ConfigurationError(
            f"{path}: unknown table {min(unknown)}; a file has [deployments.NAME] and [models]"
        )
    deployments = {
        name: Deployment(
            name, read_service(f"{path}: [deployments.{name}]", table, environ, private)
        )
        for name, table in as_table(path, "deployments", tables.get("deployments")).items()
    }
    if not deployments:
        raise ConfigurationError(f"{path} has no table [deployments.NAME]")
    models: dict[str, Sequence[Deployment]] = {name: (it,) for name, it in deployments.items()}
    for name, names in as_table(path, "models", tables.get("models", {})).items():
        if name in deployments:
            raise ConfigurationError(f"{path}: {name} is a deployment, and so a model of its own")
        if not isinstance(names, list) or not names:
            raise ConfigurationError(f"{path}: models.{name} must be a list of deployments' names")
        for each in cast("list[object]", names):
            if not isinstance(each, str) or each not in deployments:
                raise ConfigurationError(
                    f"{path}: models.{name} names {each!r}; the deployments are "
                    f"{', '.join(deployments)}"
                )
        models[name] = tuple(deployments[each] for each in dict.fromkeys(cast("list[str]", names)))
    return models


def as_table(path: Path, name: str, table: object) -> dict[str, object]:
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path} needs a table [{name}]")
    return cast("dict[str, object]", table)


def read_service(place: str, table: object, environ: Mapping[str, str], private: bool) -> Service:
    if not isinstance(table, dict):
        raise ConfigurationError(f"{place} must be a table")
    settings = cast("dict[str, object]", table)
    if unknown := settings.keys() - SETTINGS:
        raise ConfigurationError(f"{place}: unknown setting {min(unknown)}")
    secrets: dict[str, str | None] = {}
    for name in SECRETS:
        secret, variable = settings.get(name), settings.get(f"{name}_env")
        if secret is not None and variable is not None:
            raise ConfigurationError(f"{place}: give {name} or {name}_env, not both")
        if secret is not None and not private:
            raise ConfigurationError(
                f"{place} holds a secret, and others can read the file: run chmod 600, or name a "
                f"variable as {name}_env"
            )
        if variable is not None:
            secret = environ.get(variable) if isinstance(variable, str) else None
            if secret is None:
                raise ConfigurationError(
                    f"{place}: the environment variable that {name}_env names is not set"
                )
        if secret is not None and not isinstance(secret, str):
            raise ConfigurationError(f"{place}: {name} must be a string")
        secrets[name] = secret
    if secrets["secret_key"] is None:
        raise ConfigurationError(f"{place} needs secret_key_env")
    try:
        return Service(
            cast("str", settings.get("url", "")),
            **secrets,
            encoding=cast("Encoding", settings.get("encoding", "native")),
            max_history=cast("int | None", settings.get("max_history")),
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"{place}: {error}") from None


class Upstream:
    """A deployment in use.

    Attributes:
        name: the deployment's name.
        live: how many replies of it are under way.
    """

    def __init__(self, name: str, client: Client) -> None:
        self.name = name
        self.client = client
        self.live = 0
        self._failures = 0
        self._rests_until = 0.0

    def resting(self, now: float) -> float:
        """Return for how many seconds from `now` the deployment rests."""
        return max(0.0, self._rests_until - now)

    def succeeded(self) -> None:
        """Take note of a complete reply."""
        self._failures = 0
        self._rests_until = 0.0

    def failed(self, now: float) -> None:
        """Take note of a reply that failed."""
        self._failures += 1
        if self._failures >= FAILURES:
            self._rests_until = now + REST

    def state(self, now: float) -> dict[str, object]:
        """Return what GET /health shows of the deployment."""
        rest = self.resting(now)
        state = "resting" if rest else "failing" if self._failures else "ok"
        return {
            "state": state,
            "live_replies": self.live,
            "failures_in_a_row": self._failures,
            "rests_for_seconds": round(rest, 1),
        }


class Upstreams:
    """The deployments in use, each with one client: `async with Upstreams(models, ...)`.

    Args:
        models: the deployments of each model.
        timeouts, limits: of the clients.
        retry: of a call to a model of one deployment; by default it waits 10 seconds at most if
            the deployment asks for a wait. With several deployments, the next one is asked at once.

    Raises:
        ConfigurationError: there is no model, or a model without a deployment.
    """

    def __init__(
        self,
        models: Models,
        *,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        limits: Limits | None = None,
    ) -> None:
        if not models or not all(models.values()):
            raise ConfigurationError("a gateway needs models, and each model needs a deployment")
        self._models = models
        self._timeouts = timeouts
        self._retry = retry or RETRY
        self._limits = limits
        self._of_model: dict[str, list[Upstream]] = {}
        self._stack = AsyncExitStack()

    @property
    def models(self) -> list[str]:
        """The names of the models."""
        return list(self._models)

    async def __aenter__(self) -> Self:
        opened: dict[Deployment, Upstream] = {}
        async with AsyncExitStack() as stack:
            for deployment in dict.fromkeys(chain.from_iterable(self._models.values())):
                client = Client(deployment.service, timeouts=self._timeouts, limits=self._limits)
                await stack.enter_async_context(client)
                opened[deployment] = Upstream(deployment.name, client)
            self._stack = stack.pop_all()
        self._of_model = {
            name: [opened[each] for each in group] for name, group in self._models.items()
        }
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    def call(self, model: str, messages: Sequence[Message]) -> "Call":
        """Return a call to enter: `async with upstreams.call(...) as call`.

        Args:
            model: one of `models`.
            messages: the conversation.
        """
        now = monotonic()
        # The sort is stable: of deployments that are equally busy, the first in the file answers.
        order = sorted(self._of_model[model], key=lambda each: (each.resting(now), each.live))
        return Call(order, messages, ONCE if len(order) > 1 else self._retry)

    def health(self) -> dict[str, dict[str, object]]:
        """Return the state of each deployment, by its name."""
        now = monotonic()
        return {each.name: each.state(now) for group in self._of_model.values() for each in group}


class Call:
    """One call: it goes from deployment to deployment until a reply has its first character.

    Raises, when the block is entered:
        GPROChatError: the error of the last deployment.

    Attributes:
        first: the first piece of the reply; "" if the reply is empty.
        reply: the reply, to iterate for the other pieces.
        attempts: how many attempts have been made.
    """

    def __init__(
        self, order: Sequence[Upstream], messages: Sequence[Message], retry: RetryPolicy
    ) -> None:
        self._order = order
        self._messages = messages
        self._retry = retry
        self._upstream: Upstream
        self.reply: Reply
        self.first: str = ""
        self.attempts: int = 0

    async def __aenter__(self) -> Self:
        for upstream in self._order:
            try:
                await self._begin(upstream)
            except GPROChatError as error:
                if upstream is self._order[-1] or is_callers(error):
                    raise
            else:
                break
        return self

    async def _begin(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self.reply = upstream.client.stream(self._messages, retry=self._retry)
        upstream.live += 1
        try:
            await self.reply.__aenter__()
            self.first = await anext(self.reply, "")
        except BaseException as error:
            await self._leave(error)
            raise
        finally:
            self.attempts += self.reply.attempts

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._leave(exc)

    async def _leave(self, error: BaseException | None) -> None:
        upstream = self._upstream
        upstream.live -= 1
        if error is None:
            upstream.succeeded()
        elif isinstance(error, GPROChatError) and not is_callers(error):
            upstream.failed(monotonic())
        await self.reply.aclose()
