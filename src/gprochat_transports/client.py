"""The client: the one loop that moves the core's bytes over any transport.

A transport is two small protocols, `Transport` and `Response`; all that is particular to a
library is behind them, and every decision is the core's. What is left is here: ask the exchange,
await the transport, hand over the text.
"""

import logging
import warnings
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
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
    RetryPolicy,
    SendLimits,
    Service,
    State,
    Timeouts,
    TransportError,
    UsageError,
)

__all__ = ["Client", "Reply", "Response", "Transport"]

# An enumeration's members are looked up slowly, and these for each piece of text.
REPLY: Final = State.REPLY
DONE: Final = State.DONE

logger = logging.getLogger("gprochat.client")
"""What is sent and decided, at DEBUG; never a text, a key or a password."""


class Response(Protocol):
    """What a transport gives for a request: a head, then a body to read piece by piece."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Iterable[tuple[bytes, bytes]]:
        """Names and values as they came, in any case."""
        ...

    @property
    def sent_at(self) -> float:
        """When the last byte of the request was sent, by `time.monotonic`."""
        ...

    async def read(self, timeout: float | None) -> bytes:
        """Return the next bytes of the body as soon as there are any, b"" at its proper end.

        The bytes are those of the wire: content codings are the core's to undo.

        Args:
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            TransportError: phase READING; bytes that arrived before the failure come first.
        """
        ...

    async def aclose(self) -> None:
        """Release the connection: for further use if the body has been read to its end, else
        by closing it. It does so even where it is cancelled."""
        ...


class Transport(Protocol):
    """What a client needs of an HTTP library."""

    async def send(self, request: Request, limits: SendLimits) -> Response:
        """Send a request and return its response as soon as the head is there.

        A redirect is a response like any other. On any exception, cancellation too, the
        connection has been closed.

        Args:
            request: what to send; only `host` and the body's length are for the transport to add.
            limits: `connect` is for getting a connection, waiting for a free one and the TLS
                handshake included; then, asked anew each time, `reply(time.monotonic())` for
                sending to make progress, and from the last byte sent to the end of the head.

        Raises:
            TransportError: any failure, with its cause, its phase, and whether the connection
                was reused; raised from the library's own exception.
        """
        ...

    def current_loop(self) -> object:
        """Return what stands for the running event loop: equal only within one loop."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Pause, on that event loop."""
        ...

    async def aclose(self) -> None:
        """Close what this transport opened itself; closing twice does nothing."""
        ...


class Reply:
    """One reply as it arrives: `async with client.stream(...) as reply: async for text in reply`.

    Entering the block sends the request and waits for the reply to begin, over as many attempts
    as the retry policy allows. Iterating gives the text in pieces, never an empty one and never
    half a character. When the block has been left, by any way, the connection has been released.
    """

    def __init__(self, transport: Transport, exchange: Exchange, client: "Client") -> None:
        self._transport = transport
        self._exchange = exchange
        self._client = client
        self._response: Response | None = None
        self._reading = False
        self._closed = False

    @property
    def text(self) -> str:
        """The reply so far."""
        return self._exchange.text

    @property
    def status(self) -> int | None:
        """The HTTP status; None before there is one."""
        return self._exchange.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The response's headers by lower-case name."""
        return self._exchange.headers

    @property
    def attempts(self) -> int:
        """How many requests have been sent for this reply."""
        return self._exchange.attempts

    async def __aenter__(self) -> Self:
        exchange = self._exchange
        if exchange.attempts:
            raise UsageError("a reply is entered once; ask again with client.stream(...)")
        while True:
            if self._closed:
                raise UsageError("this reply was closed before it began")
            self._client.enter(self)
            try:
                await self._attempt()
            except GPROChatError as error:
                await self._release()
                if self._closed:
                    continue
                logger.debug("attempt %d: %s", exchange.attempts, type(error).__name__)
                self._client.redactor.redact_error(error)
                pause = exchange.retry(error, monotonic(), random())
                logger.debug("next attempt in %.2f s", pause)
            except BaseException:
                await self.aclose()
                raise
            else:
                return self
            await self._transport.sleep(pause)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the reply and release its connection; leaving the block does it."""
        self._closed = True
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
            raise UsageError(
                "another task is reading this reply"
                if self._reading
                else "a reply is read inside its block: async with client.stream(...)"
            )
        self._reading = True
        try:
            while exchange.state is REPLY:
                try:
                    data = await response.read(exchange.read_limit(monotonic()))
                except TransportError as error:
                    raise exchange.fail(error, monotonic()) from error.__cause__
                text = exchange.receive(data)
                if not data:
                    logger.debug("reply complete")
                    await self._release()
                if text:
                    return text
        except GPROChatError as error:
            logger.debug("reply ended: %s", type(error).__name__)
            self._client.redactor.redact_error(error)
            raise
        finally:
            self._reading = False
        if exchange.state is DONE:
            raise StopAsyncIteration
        raise UsageError("this reply failed; what arrived of it is in reply.text")

    async def _attempt(self) -> None:
        """Send the request once and take the head of a reply; any other answer is raised."""
        exchange = self._exchange
        request = exchange.attempt(unix_time_ms())
        logger.debug(
            "attempt %d: %d bytes to %s", exchange.attempts, len(request.body), request.url
        )
        try:
            response = self._response = await self._transport.send(
                request, exchange.send_limits(monotonic())
            )
            logger.debug("attempt %d: status %d", exchange.attempts, response.status)
            if self._closed:
                raise TransportError(
                    Cause.LOST, Phase.AWAITING_HEAD, detail="this reply was closed"
                )
            exchange.receive_head(
                response.status, response.headers, sent=response.sent_at, now_ms=unix_time_ms()
            )
            while exchange.state is State.ERROR:
                exchange.receive(await response.read(exchange.read_limit(monotonic())))
        except TransportError as error:
            raise exchange.fail(error, monotonic()) from error.__cause__


class Client:
    """A client of one service over one transport, to be used as `async with Client(...)`.

    One client serves any number of calls, at once too, and reuses their connections.

    Args:
        service: whom to talk to.
        transport: what moves the bytes; closed with the client.
        timeouts, retry, limits: the numbers; None for the defaults.
        secrets: what errors must not tell besides the service's own, such as a proxy's password.

    Raises:
        ConfigurationError: the service has no secret key.

    Attributes:
        service: as given.
        redactor: removes the secrets from errors.
        clock: the correction of this machine's clock, which all replies share.
    """

    def __init__(
        self,
        service: Service,
        transport: Transport,
        *,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        limits: Limits | None = None,
        secrets: Iterable[str] = (),
    ) -> None:
        _ = service.signer
        if service.exposes_password:
            warnings.warn(
                f"the password for {service.url} goes over plain http, for anyone on the way to "
                "read; use https",
                stacklevel=3,
            )
        self.service = service
        self.redactor = Redactor([service.secret_key or "", service.password or "", *secrets])
        self.clock = Clock()
        self._transport = transport
        self._timeouts = timeouts or Timeouts()
        self._retry = retry or RetryPolicy()
        self._limits = limits or Limits()
        self._replies: set[Reply] = set()
        self._loop: object = None
        self._closed = False

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
        """Close the client and end the replies that still stream; closing twice does nothing."""
        self._closed = True
        # All of it is closed even where closing one fails or is cancelled.
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._transport.aclose)
            for reply in self._replies:
                stack.push_async_callback(reply.aclose)

    def check_open(self) -> None:
        """Raise UsageError if the client has been closed."""
        if self._closed:
            raise UsageError("this client has been closed; make a new one")

    def enter(self, reply: Reply) -> None:
        """Take note of a reply that is about to use the transport.

        Raises:
            UsageError: the client has been closed, or has been used on another event loop.
        """
        self.check_open()
        loop = self._transport.current_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop != loop:
            raise UsageError(
                "this client's connections belong to another event loop; make a client for each"
            )
        self._replies.add(reply)

    def leave(self, reply: Reply) -> None:
        """Take note that a reply uses the transport no more."""
        self._replies.discard(reply)

    def stream(self, conversation: Conversation, *, keep_text: bool = True) -> Reply:
        """Ask, and return the reply to enter and iterate; nothing is sent before it is entered.

        Args:
            conversation: a str, a `Message`, or a list of either or of role/content dicts; the
                last message must be the user's.
            keep_text: whether `reply.text`, and the text of an error, is all of the reply. For
                one too long to keep, False: what has been iterated over is then forgotten.

        Raises:
            InvalidMessages: it cannot be sent.
            UsageError: the client has been closed.
        """
        self.check_open()
        exchange = Exchange(
            self.service,
            conversation,
            timeouts=self._timeouts,
            retry=self._retry,
            limits=self._limits,
            keep_text=keep_text,
            now=monotonic(),
            clock=self.clock,
            redactor=self.redactor,
        )
        return Reply(self._transport, exchange, self)

    async def complete(self, conversation: Conversation) -> str:
        """Ask, and return the whole reply.

        Raises:
            GPROChatError: any of the tree; an IncompleteReply carries what arrived.
        """
        async with self.stream(conversation) as reply:
            async for _ in reply:
                pass
            return reply.text


def unix_time_ms() -> int:
    return time_ns() // 1_000_000
