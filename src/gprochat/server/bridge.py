"""An answer from an OpenAI-compatible API.

People who chat with the service see the API's message about an error, but neither its key nor its
address: the owner of the service may want to keep both secret.
"""

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final, cast
from urllib.parse import urlsplit

import httpx
from httpx_sse import EventSource

from gprochat_core import ConfigurationError, Message
from gprochat_core.diagnosis import MAX_ERROR_BODY, one_line, read_error_body
from gprochat_core.redaction import REDACTED, Redactor
from gprochat_core.service import read_url

from .answers import Answer

__all__ = ["UpstreamError", "openai"]

CONNECT_TIMEOUT: Final = 10.0
SILENCE_TIMEOUT: Final = 300.0
END_TIMEOUT: Final = 1.0
"""Seconds to wait for a connection to an API, for its next bytes, and, after its end marker, for
the end of the response."""

MAX_EVENT_BYTES: Final = 1024 * 1024
"""How many bytes an API may send until an event is complete."""

MAX_SAID: Final = 4000
"""How many characters of an API's message are passed on."""

ADDRESS: Final = re.compile(r"://\S+|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?\b", re.ASCII)

OWN_WORDS: Final = {
    401: "API key not valid.",
    403: "The API does not permit this.",
}
"""The message in place of the API's own if it refuses the key: its own may quote a part of it."""

logger: logging.Logger = logging.getLogger("gprochat.server")


class UpstreamError(Exception):
    """The API that an answer asked has failed; clients of the service see the message."""


@asynccontextmanager
async def openai(
    base_url: str, *, model: str, api_key: str | None = None
) -> AsyncGenerator[Answer, None]:
    """Make an answer that streams from an OpenAI-compatible API; it works until the block is left.

    `async with openai("http://localhost:11434/v1", model="llama3.2") as answer, serve(answer)`
    serves a model of Ollama; vLLM and llama.cpp's server work in the same way. All replies share
    one HTTP client. When the API reports an error, clients of the service see the API's message
    without the key and without addresses.

    Args:
        base_url: the API's URL as OpenAI's own clients take it, with its `/v1`; to a URL without
            a path, `/v1` is added.
        model: the name by which the API knows the model.
        api_key: the key, sent as a bearer token; None if the API needs none. Never shown.

    Raises:
        ConfigurationError: the URL or the key cannot be used.
    """
    url = completions_url(base_url)
    headers = {"content-type": "application/json", "accept-encoding": "identity"}
    if api_key is not None:
        headers["authorization"] = f"Bearer {checked_key(api_key)}"
    discretion = Discretion(url, api_key)
    timeout = httpx.Timeout(SILENCE_TIMEOUT, connect=CONNECT_TIMEOUT, pool=None)
    async with httpx.AsyncClient(
        # A cookie of one conversation must not be sent with another.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        headers=headers,
        # No limit here on connections: the service and the API set theirs.
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
        timeout=timeout,
        trust_env=False,
    ) as client:

        async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
            conversation = [{"role": message.role, "content": message.text} for message in messages]
            options = {"model": model, "messages": conversation, "stream": True}
            body = json.dumps(options, ensure_ascii=False).encode()
            try:
                async with client.stream("POST", url, content=body) as response:
                    if response.status_code != 200:
                        raise await read_refusal(response)
                    async with aclosing(read_completion(response)) as texts:
                        async for text in texts:
                            yield text
                return
            except UpstreamError as error:
                failure = discretion.apply(str(error))
            except Exception as error:
                failure = name(error)
                told = Redactor([api_key or ""]).redact(f"{type(error).__name__}: {error}")
                logger.warning("the model's API failed: %s", one_line(told))
            # Raised outside the except clauses: an exception of httpx holds the request's URL and
            # headers, and with them the key.
            raise UpstreamError(failure)

        yield answer


class Discretion:
    """Keeps a key and addresses out of an API's messages.

    Args:
        url: the API's URL.
        api_key: the key, if there is one.
    """

    def __init__(self, url: str, api_key: str | None) -> None:
        parts = urlsplit(url)
        self._redactor = Redactor([api_key or "", parts.netloc, parts.hostname or "", parts.path])
        # APIs quote a key's first and last characters.
        self._key_ends = [api_key[:6], api_key[-4:]] if api_key and len(api_key) >= 16 else []

    def apply(self, text: str) -> str:
        """Return a text without the key, a part of it, or an address."""
        words = ADDRESS.sub(REDACTED, self._redactor.redact(text)).split()
        return " ".join(REDACTED if self._quotes_key(word) else word for word in words)[:MAX_SAID]

    def _quotes_key(self, word: str) -> bool:
        return any(end in word for end in self._key_ends)


def name(error: Exception) -> str:
    """Say what failed, without the words of a library."""
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        return "The model's API cannot be reached."
    if isinstance(error, httpx.TimeoutException):
        return "The model's API did not answer in time."
    return "The connection to the model's API broke."


async def read_refusal(response: httpx.Response) -> UpstreamError:
    body = b""
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) >= MAX_ERROR_BODY:
            break
    return upstream_error(response.status_code, said(body[:MAX_ERROR_BODY])[0])


def said(body: bytes) -> tuple[str, str | None]:
    # Only JSON is the API's own message. Other text is said to be HTML, which is left out: it comes
    # from a server in front of the API, and tells of the network there.
    return read_error_body({"content-type": "text/html"}, body)


def upstream_error(status: int, message: str) -> UpstreamError:
    """Write an API's error as the family's own model does; clients recognise a rate limit by it."""
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    words = OWN_WORDS.get(status) or message or "The API gave no reason."
    return UpstreamError(f"[{status}{phrase}] {words}")


async def read_completion(response: httpx.Response) -> AsyncGenerator[str, None]:
    """Yield the pieces of text of a streamed completion.

    Raises:
        UpstreamError: the response reports an error, is no completion, or ends too early.
    """
    finished = False
    async with aclosing(read_events(response)) as events:
        async for event in events:
            if event == "[DONE]":
                finished = True
                break
            text, reason = read_chunk(event)
            finished = finished or reason
            if text:
                yield text
        # A connection can be reused only when its response has been read to the end.
        with suppress(TimeoutError, UpstreamError, httpx.HTTPError):
            async with asyncio.timeout(END_TIMEOUT):
                async for _ in events:
                    pass
    if not finished:
        raise UpstreamError("The model's API ended its response too early.")


async def read_events(response: httpx.Response) -> AsyncGenerator[str, None]:
    """Yield the data of each event of a response.

    Raises:
        UpstreamError: an event is longer than `MAX_EVENT_BYTES`.
    """
    pending = 0

    async def limited() -> AsyncIterator[bytes]:
        nonlocal pending
        async for data in response.aiter_bytes():
            pending += len(data)
            if pending > MAX_EVENT_BYTES:
                raise UpstreamError("The model's API sent an event that is too long.")
            yield data

    # The parser reads a response of httpx; this one has the same bytes, counted.
    counted = httpx.Response(
        200,
        headers={"content-type": "text/event-stream"},
        content=limited(),
        default_encoding="utf-8-sig",
    )
    async for event in EventSource(counted).aiter_sse():
        pending = 0
        if event.data:
            yield event.data


def read_chunk(event: str) -> tuple[str, bool]:
    """Return the text of an event, and whether it is the last one with text.

    Raises:
        UpstreamError: the event reports an error, or is no chunk of a completion.
    """
    try:
        chunk: object = json.loads(event)
    except (ValueError, RecursionError):
        raise UpstreamError("The model's API sent an event that is not JSON.") from None
    if member(chunk, "error"):
        message, code = said(event.encode(errors="replace"))
        if code == "invalid_api_key":
            code = "401"
        if code is not None and re.fullmatch("[1-9][0-9]{2}", code):
            raise upstream_error(int(code), message)
        raise UpstreamError(message or "The model's API reports an error.")
    # The last chunk may report only the usage, with an empty list of choices.
    choices = member(chunk, "choices")
    choice = cast("list[object]", choices)[0] if isinstance(choices, list) and choices else None
    reason = member(choice, "finish_reason")
    if reason == "content_filter":
        raise UpstreamError("The model's answer was blocked.")
    text = member(member(choice, "delta"), "content")
    return (text if isinstance(text, str) else "", reason is not None)


def member(value: object, name: str) -> object:
    return cast("dict[str, object]", value).get(name) if isinstance(value, dict) else None


def completions_url(base_url: str) -> str:
    try:
        url, origin = read_url(base_url)
    except ConfigurationError as error:
        raise ConfigurationError(
            "the API's base URL cannot be used; it looks like http://localhost:11434/v1"
        ) from error
    return f"{url}/v1/chat/completions" if url == origin else f"{url}/chat/completions"


def checked_key(api_key: str) -> str:
    if not api_key.isascii() or not api_key.isprintable():
        raise ConfigurationError("the API key must be printable ASCII, because a header holds it")
    return api_key
