"""The embedded service: the core's acceptance behind aiohttp's server.

What it says to a client is what a deployment of the family says (docs/protocol.md, "Reply" and
"Errors"); the text of its replies comes from an `Answer`. Each request runs under a time limit
that is unlimited until the service stops, and that is all there is to stopping gracefully.
"""

import asyncio
import logging
import re
import secrets
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext
from time import time_ns
from traceback import extract_tb
from types import FrameType
from typing import Any, Final, TypeAlias, TypeVar

from aiohttp import web

from gprochat_core import Acceptance, Message, Refusal, Service
from gprochat_core.acceptance import FRESHNESS_MS, REPLY_CONTENT_TYPE, error_body, read_object
from gprochat_core.reply import FAILURE_MARKER

from .answers import Answer, UpstreamError, echo, openai

__all__ = [
    "MAX_REQUEST_BYTES",
    "Answer",
    "Server",
    "UpstreamError",
    "echo",
    "in_thread",
    "openai",
    "serve",
    "stop_signal",
]

T = TypeVar("T")

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

logger = logging.getLogger("gprochat.server")

MAX_REQUEST_BYTES: Final = 16 * 1024 * 1024
"""How long a request's body may be unless the caller says otherwise."""

FAREWELL: Final = 1.0
"""Seconds after the grace in which a client may still take the end of its reply."""

JSON_CONTENT_TYPE: Final = "text/plain;charset=UTF-8"

STOPPING: Final = "The service is stopping."

LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")

WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class Server:
    """A service that runs.

    Attributes:
        service: where it is and its secrets, which is what a client needs.
    """

    service: Service

    @property
    def url(self) -> str:
        """Where it is."""
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

    Leaving the block ends it: no new connections, some time for the replies that still stream,
    and for those that need more an end that says so. When the block has been left, nothing of it
    remains. A cancellation meanwhile takes the time away from the replies.

    Args:
        answer: what the replies come from; by default the user's own words.
        secret_key: what requests must be signed with; None to draw one.
        password: the site password; None for none.
        host: the address or name to listen on, by default for this machine only.
        port: 0 for any that is free.
        ssl_context: to serve over TLS.
        freshness_ms: milliseconds that a request's time may be off, either way; None for any.
        max_request_bytes: how long a request's body may be.
        grace: seconds that replies have to finish when the service ends.

    Raises:
        ConfigurationError: a secret that cannot be used, or a negative `freshness_ms`.
        OSError: it cannot listen there.
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
        application, access_log=None, handler_cancellation=True, shutdown_timeout=FAREWELL
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=ssl_context).start()
        url = public_url(scheme, host, runner.addresses[0][1])
        logger.info("serving at %s", url)
        yield Server(Service(url, secret_key=secret_key, password=password))
    finally:
        await insist(stop(runner, deployment, grace), deployment.end_now)
        logger.info("stopped")


def public_url(scheme: str, host: str, port: int) -> str:
    host = WILDCARDS.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


async def stop(runner: web.AppRunner, deployment: "Deployment", grace: float) -> None:
    for site in runner.sites:
        await site.stop()
    connections = runner.server.connections if runner.server else []
    transports = [each.transport for each in connections if each.transport is not None]
    await deployment.end(grace)
    await runner.cleanup()
    # A closed connection stays until its client has taken what was sent, which may be never.
    for _ in range(100):
        await asyncio.sleep(0)
        if all(each.get_extra_info("socket").fileno() == -1 for each in transports):
            return
        await asyncio.sleep(FAREWELL / 100)
    for transport in transports:
        transport.abort()
    await asyncio.sleep(0)


async def insist(work: Coroutine[Any, Any, None], hurry: Callable[[], None]) -> None:
    """Do some work to its end; a cancellation makes it hurry, and goes on only after it."""
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


class Failed(Refusal):
    """A request holds and yet cannot be answered."""

    @property
    def body(self) -> bytes:
        """The answer's body, with the code that the family gives to such errors."""
        return error_body(self.message, "Error")


class Deployment:
    """What happens to requests.

    Args:
        answer: what the replies come from.
        acceptance: which requests hold.
    """

    def __init__(self, answer: Answer, acceptance: Acceptance) -> None:
        self._answer = answer
        self._acceptance = acceptance
        self._answered: set[asyncio.Future[None]] = set()
        self._limits: set[asyncio.Timeout] = set()
        self._stopping = False

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """Answer `POST /api/generate`."""
        response = web.StreamResponse(headers={"content-type": REPLY_CONTENT_TYPE})
        try:
            async with self._until_stopped():
                body = await read(request)
                messages, _ = self._acceptance.accept(body, time_ns() // 1_000_000)
                logger.debug("accepted %d bytes, %d messages", len(body), len(messages))
                await self._stream(request, response, messages)
        except Refusal:
            if not response.prepared:
                raise
            await response.write(FAILURE_MARKER.encode())
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof()
        return response

    async def authenticate(self, request: web.Request) -> web.Response:
        """Answer `POST /api/auth`."""
        async with self._until_stopped():
            password = read_object(await read(request)).get("pass")
        return say(200, b'{"code":%d}' % (0 if self._acceptance.is_password(password) else -1))

    @web.middleware
    async def watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Keep note of a request until it is answered, and word its refusal."""
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answered.add(answered)
        try:
            if self._stopping:
                raise Failed(503, STOPPING)
            return await handler(request)
        except Refusal as refusal:
            return say(refusal.status, refusal.body)
        finally:
            self._answered.discard(answered)
            answered.set_result(None)

    async def end(self, grace: float) -> None:
        """Give the requests under way some seconds to finish, then end them; wait for that."""
        self._stopping = True
        self._end_at(asyncio.get_running_loop().time() + grace)
        if self._answered:
            logger.info("stopping, %d requests under way", len(self._answered))
            await asyncio.wait(self._answered, timeout=grace + FAREWELL)

    def end_now(self) -> None:
        """End the requests under way without delay."""
        self._end_at(asyncio.get_running_loop().time())

    def _end_at(self, when: float) -> None:
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(when)

    @asynccontextmanager
    async def _until_stopped(self) -> AsyncGenerator[None, None]:
        limit = asyncio.timeout(None)
        self._limits.add(limit)
        try:
            async with limit:
                yield
        except TimeoutError:
            raise Failed(503, STOPPING) from None
        finally:
            self._limits.discard(limit)

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, messages: tuple[Message, ...]
    ) -> None:
        size = 0
        try:
            async with aclosing(encoded(self._answer, messages)) as pieces:
                async for piece in pieces:
                    if not response.prepared:
                        await response.prepare(request)
                    await response.write(piece)
                    size += len(piece)
                    # An answer that never waits must not keep the loop to itself.
                    await asyncio.sleep(0)
        finally:
            logger.debug("streamed %d bytes", size)


async def encoded(answer: Answer, messages: tuple[Message, ...]) -> AsyncGenerator[bytes, None]:
    """Give an answer's pieces in UTF-8, and close it in the end.

    Raises:
        Failed: the answer raised an exception.
    """
    pieces: AsyncIterator[str] | None = None
    try:
        pieces = answer(messages)
        async for piece in pieces:
            if piece:
                yield LONE_SURROGATE.sub("\ufffd", piece).encode()
    except Exception as error:
        log_failure(error)
        raise Failed(500, str(error) or type(error).__name__) from error
    finally:
        if isinstance(pieces, AsyncGenerator):
            try:
                await pieces.aclose()
            except Exception as error:
                log_failure(error)


def log_failure(error: Exception) -> None:
    # Where it happened and not what it says: that may be from a conversation.
    *_, place = extract_tb(error.__traceback__)
    logger.warning(
        "an answer failed: %s at %s:%s", type(error).__name__, Path(place.filename), place.lineno
    )


async def read(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise Refusal(413, "Request body too large.") from None


def say(status: int, body: bytes) -> web.Response:
    logger.debug("answered %d", status)
    return web.Response(status=status, body=body, headers={"content-type": JSON_CONTENT_TYPE})


async def stop_signal() -> signal.Signals:
    """Wait for SIGINT or SIGTERM and return which it was; for the main thread only.

    `async with serve(...) as server: await stop_signal()` is a server for a command line. The
    signals have their earlier meaning again when this returns: a second Ctrl-C cancels.
    """
    loop = asyncio.get_running_loop()
    received: asyncio.Future[signal.Signals] = loop.create_future()

    def set_result(number: int) -> None:
        if not received.done():
            received.set_result(signal.Signals(number))

    def receive(number: int, _frame: FrameType | None) -> None:
        # Wakes the loop, wherever it waits and whichever loop it is.
        loop.call_soon_threadsafe(set_result, number)

    earlier = {each: signal.signal(each, receive) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        return await received
    finally:
        for each, handler in earlier.items():
            signal.signal(each, handler)


@contextmanager
def in_thread(context: AbstractAsyncContextManager[T]) -> Generator[T, None, None]:
    """Enter an asynchronous context in a thread and event loop of its own.

    `with in_thread(serve(answer)) as server:` is a server for code without asyncio, under trio
    for one. An answer then runs in that thread.
    """
    entered: Future[T] = Future()
    leave: Future[None] = Future()

    async def run() -> None:
        async with context as value:
            entered.set_result(value)
            await asyncio.wrap_future(leave)

    with ThreadPoolExecutor(1, "gprochat-server") as executor:
        left = executor.submit(asyncio.run, run())
        either: list[Future[Any]] = [entered, left]
        try:
            wait(either, return_when=FIRST_COMPLETED)
            if entered.done():
                yield entered.result()
        finally:
            leave.set_result(None)
            left.result()
