"""The gateway as an aiohttp application: it checks a request, asks a deployment, and streams.

A response begins with the first piece of the reply: until then an error has a status of its own,
and the call may go to another deployment. After that, an error is an event of the stream.

An application keeps its connections and the health of each deployment, and nothing else. So any
number of applications can run beside each other.
"""

import asyncio
import os
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from pathlib import Path
from time import monotonic, time
from traceback import extract_tb
from typing import Final, TypeAlias

from aiohttp import web

from gprochat_core import (
    ConfigurationError,
    GPROChatError,
    Limits,
    Refusal,
    RetryPolicy,
    Timeouts,
)
from gprochat_core.signing import is_same

from ..server.bodies import MAX_REQUEST_BYTES, MAX_UNFINISHED_BYTES, MIN_BODY_RATE, Bodies
from ..server.hosts import Hosts
from ..server.lifecycle import REQUEST_TIMEOUT
from ..server.listener import Strangers, default_max_connections
from ..server.requests import Requests, send
from ..server.tally import Tally
from .access_log import LEFT, RECORD, Record, log, logger
from .deployments import Models, Upstreams, models_from_environment
from .failures import INTERNAL, Failure, refused
from .frames import encode, frames_for, model_object
from .generation import Generation, ignored_header
from .requests import API, Asked, Invalid, read_request

__all__ = ["Gateway", "check_key", "make_app"]

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

LARGE_BODY: Final = 64 * 1024
"""A body of so many bytes or more is parsed in another thread."""

HEALTH: Final = "health"
"""The name of the only route that needs no key."""

JSON: Final = {"content-type": "application/json"}
EVENTS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    # nginx holds pieces back unless it is told not to.
    "x-accel-buffering": "no",
}
EXPOSED: Final = "retry-after, x-gprochat-ignored, x-request-id, x-should-retry"

ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9.:\[\]_-]+")

KEY: Final = re.compile(r"[!-~]+")


def make_app(
    models: Models | None = None,
    *,
    key: str | None = None,
    strict: bool = False,
    allowed_hosts: Collection[str] | None = (),
    allowed_origins: Collection[str] = (),
    max_request_bytes: int = MAX_REQUEST_BYTES,
    timeouts: Timeouts | None = None,
    retry: RetryPolicy | None = None,
) -> web.Application:
    """Return the gateway as an application, to run under a process manager or to mount.

    An application that mounts it must be run with `handler_cancellation=True`: else a reply whose
    caller has left ends only when its next piece arrives.

    Args:
        models: the deployments of each model; None for those that the environment describes, see
            `models_from_environment`.
        key: the key that callers must send; None for the variable `GPROCHAT_GATEWAY_KEY`.
        strict: whether to refuse parameters that would be ignored.
        allowed_hosts: host names, without ports, that the `Host` and `Origin` of a request may
            hold besides those of this machine; None for any.
        allowed_origins: origins, such as "https://app.example", whose pages may call (CORS).
        max_request_bytes: the longest body of a request.
        timeouts, retry: of the calls to deployments.

    Raises:
        ConfigurationError: a value cannot be used, or there is no key.
        OSError: the file of the deployments cannot be read.
    """
    if key is None:
        key = os.environ.get("GPROCHAT_GATEWAY_KEY")
    if key is None:
        raise ConfigurationError("no key: pass key=..., or set GPROCHAT_GATEWAY_KEY")
    check_origins(allowed_origins)
    return Gateway(
        models_from_environment() if models is None else models,
        key=key,
        strict=strict,
        hosts=Hosts(allowed_hosts, allowed_origins),
        allowed_origins=allowed_origins,
        requests=Requests(Strangers(default_max_connections())),
        tally=Tally(),
        max_request_bytes=max_request_bytes,
        timeouts=timeouts,
        retry=retry,
    ).application()


def check_key(key: str) -> None:
    """Raise ConfigurationError if a key cannot be sent in a header."""
    if not KEY.fullmatch(key):
        raise ConfigurationError(
            "the gateway's key must be ASCII characters without spaces, and not be empty"
        )


def check_origins(origins: Collection[str]) -> None:
    """Raise ConfigurationError if one of these cannot be an origin."""
    if isinstance(origins, str):
        raise ConfigurationError("allowed_origins is a list of origins, not one")
    for origin in origins:
        if not ORIGIN.fullmatch(origin):
            raise ConfigurationError(
                f"{origin!r} is not an origin; one looks like https://app.example, in lower case"
            )


class Gateway:
    """Answers the requests of OpenAI's API.

    Args:
        models: the deployments of each model.
        key: the key that callers must send; None for none.
        strict: whether to refuse parameters that would be ignored.
        hosts: refuses requests from pages of other sites.
        allowed_origins: origins whose pages may call.
        requests: the requests under way.
        tally: counts the requests that are given up.
        max_request_bytes: the longest body.
        timeouts, retry: of the calls to deployments.

    Raises:
        ConfigurationError: a value cannot be used.
    """

    def __init__(
        self,
        models: Models,
        *,
        key: str | None,
        strict: bool,
        hosts: Hosts,
        allowed_origins: Collection[str],
        requests: Requests,
        tally: Tally,
        max_request_bytes: int,
        timeouts: Timeouts | None,
        retry: RetryPolicy | None,
    ) -> None:
        if key is not None:
            check_key(key)
        self._key = None if key is None else key.encode()
        self._strict = strict
        self._hosts = hosts
        self._origins = frozenset(allowed_origins)
        self._requests = requests
        self._bodies = Bodies(
            tally,
            max_bytes=max_request_bytes,
            max_unfinished_bytes=max(max_request_bytes, MAX_UNFINISHED_BYTES),
            timeout=REQUEST_TIMEOUT,
            min_rate=MIN_BODY_RATE,
        )
        self._upstreams = Upstreams(
            models,
            timeouts=timeouts,
            retry=retry,
            limits=Limits(max_connections=default_max_connections()),
        )

    def application(self) -> web.Application:
        """Return the application, whose clients are open while it runs."""
        application = web.Application(
            middlewares=[self.watch], handler_args={"handler_cancellation": True}
        )
        application.router.add_post("/v1/chat/completions", self.chat)
        application.router.add_post("/v1/responses", self.responses)
        application.router.add_get("/v1/models", self.models)
        # A model's name may have a slash.
        application.router.add_get("/v1/models/{id:.+}", self.model)
        application.router.add_get("/health", self.health, name=HEALTH)
        application.cleanup_ctx.append(self._opened)
        application.on_response_prepare.append(self._complete_headers)
        return application

    async def _opened(self, _application: web.Application) -> AsyncIterator[None]:
        async with self._upstreams:
            yield

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer POST /v1/chat/completions."""
        return await self._generate(request, "chat")

    async def responses(self, request: web.Request) -> web.StreamResponse:
        """Answer POST /v1/responses."""
        return await self._generate(request, "responses")

    async def models(self, _request: web.Request) -> web.StreamResponse:
        """Answer GET /v1/models."""
        listed = [model_object(name) for name in self._upstreams.models]
        return json_response({"object": "list", "data": listed})

    async def model(self, request: web.Request) -> web.StreamResponse:
        """Answer GET /v1/models/{id}."""
        name = request.match_info["id"]
        self._check_model(name)
        return json_response(model_object(name))

    async def health(self, request: web.Request) -> web.StreamResponse:
        """Answer GET /health; a caller with the key also gets the state of each deployment."""
        deployments = self._upstreams.health() if self._has_key(request) else None
        shown = {} if deployments is None else {"deployments": deployments}
        return json_response({"status": "ok", **shown})

    @web.middleware
    async def watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Give a request an id, answer it whatever happens, and log it."""
        record = Record(secrets.token_hex(12), monotonic())
        request[RECORD] = record
        with self._requests.answering(request):
            try:
                response = await self._answer(request, handler)
            except BaseException:
                log(request, None, record)
                raise
            log(request, response, record)
            return response

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        record = request[RECORD]
        try:
            self._requests.check()
            self._hosts.check(request)
            origin = request.headers.get("Origin", "")
            if origin in self._origins:
                record.origin = origin
                if request.method == "OPTIONS":
                    return preflight(request)
            if request.match_info.route.name != HEALTH:
                self._check_key(request)
            if request.headers.get("content-encoding", "identity").lower() != "identity":
                raise Refusal(415, "Compressed requests are not accepted.")
            return await handler(request)
        except (Refusal, Invalid) as refusal:
            return failed(request, refused(refusal))
        except web.HTTPException as error:
            # aiohttp's router found no handler.
            method = f"The gateway does not have this {'method' if error.status == 405 else 'URL'}."
            return failed(request, refused(Refusal(error.status, method)))
        except ConnectionError:
            # The caller has gone; aiohttp finds that out when it sends this response.
            return web.Response(status=LEFT)
        except Exception as error:
            # The exception's text may quote the conversation.
            *_, place = extract_tb(error.__traceback__)
            file = Path(place.filename).name
            logger.error("failed: %s at %s:%s", type(error).__name__, file, place.lineno)
            if record.streaming and request.transport is not None:
                request.transport.abort()
            return failed(request, INTERNAL)

    def _has_key(self, request: web.Request) -> bool:
        if self._key is None:
            return True
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        given = key.strip().encode(errors="surrogateescape")
        return is_same(given, self._key) and scheme.lower() == "bearer"

    def _check_key(self, request: web.Request) -> None:
        if not self._has_key(request):
            raise Refusal(401, "Wrong or missing key: send this gateway's key as a bearer token.")

    def _check_model(self, name: str) -> None:
        if name not in self._upstreams.models:
            raise Invalid(
                "There is no such model; GET /v1/models lists the models.",
                "model",
                "model_not_found",
                404,
            )

    async def _complete_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        record = request.get(RECORD)
        if record is None:
            return
        response.headers["x-request-id"] = record.ident
        if record.origin:
            response.headers["access-control-allow-origin"] = record.origin
            response.headers["access-control-expose-headers"] = EXPOSED
        if self._origins:
            response.headers["vary"] = "Origin"

    async def _generate(self, request: web.Request, api: API) -> web.StreamResponse:
        record = request[RECORD]
        response = web.StreamResponse(headers=EVENTS)
        generation: Generation | None = None
        try:
            async with self._requests.until_stopped():
                asked = await self._read(request, api)
                self._requests.strangers.accepted(request.protocol)
                call = self._upstreams.call(asked.model, asked.messages)
                frames = frames_for(api, record.ident, asked.model, int(time()))
                generation = Generation(request, record, asked, call, frames)
                if not asked.stream:
                    headers = {**JSON, **ignored_header(asked)}
                    return web.Response(body=await generation.whole(), headers=headers)
                await generation.stream(response)
        except (GPROChatError, Refusal) as error:
            if generation is None:
                raise
            failure = refused(error) if isinstance(error, Refusal) else generation.failure(error)
            if not response.prepared:
                return failed(request, failure)
            record.code = failure.code
            await generation.fail(response, failure, error)
        await send(request, response.write_eof())
        return response

    async def _read(self, request: web.Request, api: API) -> Asked:
        record = request[RECORD]
        async with self._bodies.read(request) as body:
            record.received = len(body)
            if len(body) < LARGE_BODY:
                asked = read_request(body, api, strict=self._strict)
            else:
                asked = await asyncio.to_thread(read_request, body, api, strict=self._strict)
        self._check_model(asked.model)
        record.model = asked.model
        record.mode = "streamed" if asked.stream else "whole"
        return asked


def json_response(body: dict[str, object]) -> web.Response:
    return web.Response(body=encode(body).encode(), headers=JSON)


def failed(request: web.Request, failure: Failure) -> web.Response:
    request[RECORD].code = failure.code
    headers = {**JSON, **failure.headers}
    if failure.status == 401:
        headers["www-authenticate"] = "Bearer"
    return web.Response(status=failure.status, body=failure.body, headers=headers)


def preflight(request: web.Request) -> web.Response:
    """Answer a browser that asks whether a page may send a request (CORS)."""
    wanted = request.headers.get("Access-Control-Request-Headers", "authorization, content-type")
    return web.Response(
        status=204,
        headers={
            "access-control-allow-methods": "GET, POST",
            "access-control-allow-headers": wanted,
            "access-control-max-age": "600",
        },
    )
