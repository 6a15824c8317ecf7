"""The client: the one loop between the core and a transport.

The loop asks the core's `Exchange` what to do next, awaits the transport, and gives the text to
the caller. The core takes every decision. What is particular to an HTTP library is behind two
small protocols, `Transport` and `Response`.
"""

import logging
import warnings
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from itertools import count
from random import random
from time import monotonic, time_ns
from types import TracebackType
from typing import Final, Protocol, Self

from gprochat_core import (
    Cause,
    Clock,
    Conversation,
    Exchange,
    GPROChatError,
    Limits,
    Phase,
    Redactor,
    Request,
    ResponseError,
    RetryPolicy,
    SendLimits,
    Service,
    State,
    Timeouts,
    TransportError,
    UsageError,
)

from .options import OnRetry, check_types

__all__ = ["Client", "Reply", "Response", "Transport"]

# Python 3.11 calls a function to look up a member of an enumeration.
ERROR: Final = State.ERROR
REPLY: Final = State.REPLY
DONE: Final = State.DONE

logger: logging.Logger = logging.getLogger("gprochat.client")
"""Logs at DEBUG what is sent and decided, and at INFO each retry, never a text, a key or a
password. Each line begins with the number of its call."""

CALLS: Final = count(1)
"""Numbers the calls of this process, so that the log tells concurrent calls apart."""


class Response(Protocol):
    """What a transport returns for a request: a head, and a body to read piece by piece."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Iterable[tuple[bytes, bytes]]:
        """The names and values of the headers as they arrived, in any case."""
        ...

    @property
    def sent_at(self) -> float:
        """When the last byte of the request was sent, in seconds of `time.monotonic`."""
        ...

    async def read(self, timeout: float | None) -> bytes:
        """Return the next bytes of the body as soon as there are any, b"" at its proper end.

        The bytes are still compressed if the body is: the core decodes content codings.

        Args:
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            TransportError: the transport failed in the phase READING. Bytes that arrived before
                the failure are returned first.
        """
        ...

    async def aclose(self) -> None:
        """Release the connection, even if the caller is cancelled.

        A connection whose body has been read to its end may be reused; any other is closed.
        """
        ...


class Transport(Protocol):
    """What a client needs of an HTTP library."""

    async def send(self, request: Request, limits: SendLimits) -> Response:
        """Send a request and return its response as soon as the head has arrived.

        A redirect is returned like any other response. When this method raises any exception,
        also because of a cancellation, it has closed the connection.

        Args:
            request: what to send. The transport adds the headers `host` and `content-length`;
                a session of the caller's may add its own.
            limits: `limits.connect` covers waiting for a free connection, connecting and the TLS
                handshake. After that, `limits.reply(time.monotonic())` is the limit for sending
                to make progress, and from the last byte sent to the end of the head; it changes,
                so call it for each wait.

        Raises:
            TransportError: the transport failed; raised from the library's own exception.
        """
        ...

    def current_loop(self) -> object:
        """Return a token of the running event loop: two tokens of one loop are equal.

        Raises:
            RuntimeError: no event loop runs, or one that the HTTP library does not know.
        """
        ...

    async def sleep(self, seconds: float, /) -> None:
        """Pause."""
        ...

    async def aclose(self) -> None:
        """Close what this transport opened itself; a second call does nothing."""
        ...


class Reply:
    """One reply as it arrives: `async with client.stream(...) as reply: async for text in reply`.

    Entering the block sends the request and waits until the reply begins; it makes as many
    attempts as the retry policy allows. Iterating yields the text in pieces, never an empty piece
    and never half a character. Leaving the block releases the connection, also on an exception or
    a cancellation.

    Raises:
        ConnectError, ResponseError, ReplyTimeout: no reply began; raised when the block is
            entered. If the body was the service's failure marker alone, and the attempts after it
            failed too, the error is raised while the reply is iterated.
        IncompleteReply: the reply did not end well; the error's `text` is what arrived.
        UsageError: the reply is entered twice, read outside its block, by two tasks at once or
            after it failed, or the client is closed or belongs to another event loop.
    """

    __slots__ = (
        "_client",
        "_closed",
        "_exchange",
        "_logged",
        "_number",
        "_reading",
        "_response",
        "_transport",
    )

    def __init__(self, transport: Transport, exchange: Exchange, client: "Client") -> None:
        self._transport = transport
        self._exchange = exchange
        self._client = client
        self._number = next(CALLS)
        # A reply asks the logger once. Each call of `logger.debug` would ask again, and a call that
        # logs nothing takes a quarter of the time of signing a request.
        self._logged = logger.isEnabledFor(logging.DEBUG)
        self._response: Response | None = None
        self._reading = False
        self._closed = False

    @property
    def text(self) -> str:
        """The text that has arrived so far."""
        return self._exchange.text

    @property
    def status(self) -> int | None:
        """The HTTP status; None before a response has arrived."""
        return self._exchange.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The response's headers by lower-case name."""
        return self._exchange.headers

    @property
    def attempts(self) -> int:
        """How many attempts have been made, also those that found no connection."""
        return self._exchange.attempts

    async def __aenter__(self) -> Self:
        if self._exchange.attempts:
            raise UsageError("a reply can be entered once only; call client.stream(...) again")
        await self._begin()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the reply and release its connection; leaving the block does the same."""
        self._closed = True
        # Without a response there is nothing to release, or a task in `_begin` releases it.
        if self._response is not None:
            await self._release()

    async def _release(self) -> None:
        self._client.leave(self)
        response, self._response = self._response, None
        if response is not None:
            await response.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        exchange = self._exchange
        response = self._response
        if response is None or self._reading:
            if exchange.state is DONE:
                raise StopAsyncIteration
            if self._reading:
                raise UsageError(
                    "another task is reading this reply; read it in one task at a time"
                )
            self._client.check_open()
            raise UsageError(
                "read a reply inside its block: async with client.stream(...) as reply"
            )
        self._reading = True
        try:
            while exchange.state is REPLY:
                try:
                    try:
                        # The bytes may echo a secret, and a traceback may show variables.
                        text = exchange.receive(
                            await response.read(exchange.read_limit(monotonic()))
                        )
                    except TransportError as error:
                        raise exchange.fail(error, monotonic()) from error.__cause__
                except GPROChatError as error:
                    logger.debug("call %d: reply ended: %s", self._number, type(error).__name__)
                    # Only a reply that failed before its first word gets another attempt.
                    pause = self._pause_after(error)
                else:
                    if exchange.state is not REPLY:
                        if self._logged:
                            logger.debug("call %d: reply complete", self._number)
                        await self._release()
                    if text:
                        return text
                    continue
                await self._release()
                await self._transport.sleep(pause)
                response = await self._begin()
        finally:
            self._reading = False
        if exchange.state is DONE:
            raise StopAsyncIteration
        raise UsageError("this reply failed; the text that arrived is in reply.text")

    async def _begin(self) -> Response:
        """Make attempts until a reply begins; return its response, or raise the last error."""
        exchange = self._exchange
        while True:
            if self._closed:
                raise UsageError("this reply was closed before it began; call client.stream(...)")
            self._client.enter(self)
            try:
                return await self._attempt()
            except GPROChatError as error:
                await self._release()
                if self._closed or self._client.closed:
                    continue
                logger.debug(
                    "call %d: attempt %d: %s",
                    *(self._number, exchange.attempts, type(error).__name__),
                )
                pause = self._pause_after(error)
            except BaseException:
                await self._release()
                raise
            await self._transport.sleep(pause)

    def _pause_after(self, error: GPROChatError) -> float:
        """Return the pause before the next attempt; raise the error if there is to be none."""
        try:
            self._client.redactor.redact_error(error)
            pause = self._exchange.retry(error, monotonic(), random())
            attempt = self._exchange.attempts + 1
            logger.info(
                "call %d: attempt %d in %.2f s, after %s%s",
                *(self._number, attempt, pause, type(error).__name__),
                f" with status {error.status}" if isinstance(error, ResponseError) else "",
            )
            if self._client.on_retry is not None:
                self._client.on_retry(attempt, pause, error)
            return pause
        finally:
            # The error's traceback holds this frame: without it there is no cycle.
            del error

    async def _attempt(self) -> Response:
        """Send the request once and receive the head of a reply; raise the error if none comes."""
        exchange = self._exchange
        request = exchange.attempt(unix_time_ms())
        if self._logged:
            logger.debug(
                "call %d: attempt %d: %d bytes to %s",
                *(self._number, exchange.attempts, len(request.body), request.url),
            )
        try:
            response = self._response = await self._transport.send(
                request, exchange.send_limits(monotonic())
            )
            if self._logged:
                logger.debug(
                    "call %d: attempt %d: status %d",
                    *(self._number, exchange.attempts, response.status),
                )
            if self._closed:
                raise TransportError(
                    Cause.LOST, Phase.AWAITING_HEAD, detail="this reply was closed"
                )
            exchange.receive_head(
                response.status, response.headers, sent=response.sent_at, now_ms=unix_time_ms()
            )
            while exchange.state is ERROR:
                exchange.receive(await response.read(exchange.read_limit(monotonic())))
        except TransportError as error:
            raise exchange.fail(error, monotonic()) from error.__cause__
        return response


class Client:
    """A client of one service over one transport, to be used as `async with Client(...)`.

    A client makes any number of calls, also several at once, and reuses their connections.

    Args:
        service: the deployment to talk to.
        transport: sends the requests; the client closes it.
        timeouts: how long to wait; `Timeouts()` by default.
        retry: when to make another attempt; `RetryPolicy()` by default.
        on_retry: called before each wait for another attempt; see `gprochat_transports.OnRetry`.
        limits: how much to receive; `Limits()` by default. The transport limits connections.
        secrets: secrets, besides the service's key and password, that no error may show, such as
            a proxy's password.

    Raises:
        ConfigurationError: the service has no secret key, or an argument has a wrong type.

    Attributes:
        service: the deployment.
        redactor: removes the secrets from errors.
        clock: the time that requests are signed with, which all replies share.
        on_retry: as given.
        closed: whether the client has been closed.
    """

    def __init__(
        self,
        service: Service,
        transport: Transport,
        *,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        on_retry: OnRetry | None = None,
        limits: Limits | None = None,
        secrets: Iterable[str] = (),
    ) -> None:
        try:
            check_types(
                service=service, timeouts=timeouts, retry=retry, on_retry=on_retry, limits=limits
            )
            self.redactor: Redactor = Redactor(
                [service.secret_key or "", service.password or "", *secrets]
            )
        finally:
            # A traceback may be shown with its local variables.
            del secrets
        _ = service.signer
        if service.exposes_password:
            warnings.warn(
                f"the password for {service.url} goes over plain http, where anyone on the way can "
                "read it; use https",
                stacklevel=3,
            )
        self.service = service
        self.clock: Clock = Clock()
        self.on_retry = on_retry
        self._transport = transport
        self._timeouts = timeouts or Timeouts()
        self._retry = retry or RetryPolicy()
        self._limits = limits or Limits()
        self._replies: set[Reply] = set()
        self.closed: bool = False
        self._loop: object = None

    async def __aenter__(self) -> Self:
        self.check_open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the client and end its unfinished replies; a second call does nothing.

        Raises:
            UsageError: the client has been used on another event loop, and is still open.
        """
        if self._loop is not None and not self.closed:
            self.check_loop()
        self.closed = True
        # The stack closes all replies even if closing one fails or is cancelled.
        async with AsyncExitStack() as stack:
            # A copy, because another thread may enter a reply meanwhile.
            for reply in tuple(self._replies):
                stack.push_async_callback(reply.aclose)
            # Runs first: else the slot of a reply that ends here would go to a waiting call, which
            # would still send its request.
            stack.push_async_callback(self._transport.aclose)

    def check_open(self) -> None:
        """Raise UsageError if the client has been closed."""
        if self.closed:
            raise UsageError("this client has been closed; make a new one")

    def check_loop(self) -> None:
        """Raise UsageError on another event loop than the one of the client's first call."""
        try:
            loop: object = self._transport.current_loop()
        except RuntimeError:
            # The transport's library does not know the event loop that runs.
            loop = None
            if self._loop is None:
                raise UsageError(
                    "this client cannot run on this event loop; on asyncio use the Client of "
                    "gprochat_transports.aiohttp or .httpx, on trio that of .httpx or .trio"
                ) from None
        if self._loop is None:
            self._loop = loop
        if self._loop != loop:
            raise UsageError(
                "this client belongs to another event loop; make a client for each event loop, "
                "and close it there"
            )

    def enter(self, reply: Reply) -> None:
        """Register a reply that is about to use the transport.

        Raises:
            UsageError: the client has been closed, or has been used on another event loop.
        """
        self.check_open()
        self.check_loop()
        self._replies.add(reply)

    def leave(self, reply: Reply) -> None:
        """Unregister a reply that no longer uses the transport."""
        self._replies.discard(reply)

    def stream(
        self,
        conversation: Conversation,
        *,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        keep_text: bool = True,
    ) -> Reply:
        """Return a reply to enter and to iterate; entering it sends the request.

        Args:
            conversation: a str, a `Message`, or a list of either or of role/content dicts; the
                last message must be the user's.
            timeouts: how long to wait in this call; None for the client's timeouts.
            retry: when to make another attempt in this call; None for the client's policy.
            keep_text: whether `reply.text`, and the `text` of an error, is the whole reply. Pass
                False for a reply that is too long to keep in memory: text that has been iterated
                over is then discarded.

        Raises:
            InvalidMessages: the conversation cannot be sent.
            ConfigurationError: `timeouts` or `retry` has a wrong type.
            UsageError: the client has been closed.
        """
        self.check_open()
        check_types(timeouts=timeouts, retry=retry)
        exchange = Exchange(
            self.service,
            conversation,
            timeouts=timeouts or self._timeouts,
            retry=retry or self._retry,
            limits=self._limits,
            keep_text=keep_text,
            now=monotonic(),
            clock=self.clock,
            redactor=self.redactor,
        )
        return Reply(self._transport, exchange, self)

    async def complete(
        self,
        conversation: Conversation,
        *,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
    ) -> str:
        """Send a conversation and return the whole reply.

        Args:
            conversation, timeouts, retry: as in `stream`.

        Raises:
            GPROChatError: any error of `stream` and of `Reply`; the `text` of an IncompleteReply
                is what arrived.
        """
        async with self.stream(conversation, timeouts=timeouts, retry=retry) as reply:
            async for _ in reply:
                pass
            return reply.text


def unix_time_ms() -> int:
    return time_ns() // 1_000_000
