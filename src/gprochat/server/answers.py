"""Answers for the embedded service: functions that take a conversation and stream text.

An answer is an asynchronous generator function with one argument, the messages. This file has
two: `echo`, and the answer that `openai` makes, which asks an OpenAI-compatible API. Write your
own like `echo`.
"""

import asyncio
import codecs
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from io import BytesIO, IncrementalNewlineDecoder
from typing import Final, TypeAlias, cast

import aiohttp

from gprochat_core import ConfigurationError, Message
from gprochat_core.diagnosis import MAX_ERROR_BODY, read_error_body
from gprochat_core.service import read_url

__all__ = ["Answer", "EventStream", "UpstreamError", "echo", "openai"]

Answer: TypeAlias = Callable[[tuple[Message, ...]], AsyncIterator[str]]
"""Makes the reply to a conversation: takes the messages, the user's last, and yields the pieces of
the reply. An asynchronous generator is closed as soon as its client has gone."""

WORD: Final = re.compile(r"\S{1,12}\s*|\s+")

ECHO_PAUSE: Final = 0.02
ECHO_LENGTH: Final = 2.0
"""Seconds between two words at most, and seconds that the longest reply takes."""

CONNECT_TIMEOUT: Final = 10.0
SILENCE_TIMEOUT: Final = 300.0
END_TIMEOUT: Final = 1.0
"""Seconds to wait for a connection to an API, for its next bytes, and, after its end marker, for
the end of the response."""


async def echo(messages: tuple[Message, ...]) -> AsyncIterator[str]:
    """Repeat the user's last message, word by word."""
    words = WORD.findall(messages[-1].text)
    for word in words:
        yield word
        await asyncio.sleep(min(ECHO_PAUSE, ECHO_LENGTH / len(words)))


class UpstreamError(Exception):
    """The API that an answer asked has failed; clients of the service see the message."""


@asynccontextmanager
async def openai(
    base_url: str, *, model: str, api_key: str | None = None
) -> AsyncGenerator[Answer, None]:
    """Make an answer that streams from an OpenAI-compatible API; it works until the block is left.

    `async with openai("http://localhost:11434/v1", model="llama3.2") as answer, serve(answer)`
    serves a model of Ollama; vLLM and llama.cpp's server work in the same way. All replies share
    one session. When the API reports an error, clients of the service see the API's message.

    Args:
        base_url: the API's URL as OpenAI's own clients take it, with its `/v1`; to a URL without
            a path, `/v1` is added.
        model: the name by which the API knows the model.
        api_key: the key, sent as a bearer token; None if the API needs none. Never shown.

    Raises:
        ConfigurationError: the URL or the key cannot be used.
    """
    url = completions_url(base_url)
    headers = {"Content-Type": "application/json"}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {checked_key(api_key)}"
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=CONNECT_TIMEOUT, sock_read=SILENCE_TIMEOUT
    )
    async with aiohttp.ClientSession(
        # No limit here on connections: the service and the API set theirs.
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers,
        timeout=timeout,
    ) as session:

        async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
            conversation = [{"role": message.role, "content": message.text} for message in messages]
            options = {"model": model, "messages": conversation, "stream": True}
            # A file, because aiohttp warns if a body of bytes is large.
            body = BytesIO(json.dumps(options, ensure_ascii=False).encode())
            completion = Completion()
            try:
                async with session.post(url, data=body, allow_redirects=False) as response:
                    if response.status != 200:
                        raise await read_refusal(response)
                    async for data in response.content.iter_any():
                        for text in completion.feed(data):
                            yield text
                        if completion.done:
                            await read_to_end(response)
                            break
                completion.finish()
                return
            except UpstreamError as error:
                failure = str(error)
            except (aiohttp.ClientError, TimeoutError) as error:
                failure = f"The model's API failed: {error}"
            # Raised outside the except clauses: an exception of aiohttp's holds the request's
            # headers, and with them the key. Some APIs quote the key that they refuse.
            raise UpstreamError(failure.replace(api_key, "…") if api_key else failure)

        yield answer


async def read_refusal(response: aiohttp.ClientResponse) -> UpstreamError:
    headers = {name.lower(): value for name, value in response.headers.items()}
    message, _ = read_error_body(headers, await response.content.read(MAX_ERROR_BODY))
    return upstream_error(response.status, message)


async def read_to_end(response: aiohttp.ClientResponse) -> None:
    # A connection can be reused only when its response has been read to the end.
    with suppress(TimeoutError):
        async with asyncio.timeout(END_TIMEOUT):
            await response.read()


def upstream_error(status: int, message: str) -> UpstreamError:
    """Write an API's error as the family's own model does; clients recognise a rate limit by it."""
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    return UpstreamError(f"[{status}{phrase}] {message or 'The API gave no reason.'}")


class Completion:
    """Parses a streamed completion: bytes of the API's response in, text of the reply out.

    Attributes:
        done: whether the API's end marker, `[DONE]`, has arrived.
    """

    def __init__(self) -> None:
        self._events = EventStream()
        self._finished = False
        self.done = False

    def feed(self, data: bytes) -> Iterator[str]:
        """Take the next bytes of the response and yield the pieces of text in them.

        Raises:
            UpstreamError: the bytes report an error, or are no completion.
        """
        for event in self._events.feed(data):
            self.done = self.done or event == "[DONE]"
            if self.done:
                return
            text = self._read_chunk(event)
            if text:
                yield text

    def finish(self) -> None:
        """Take the end of the response.

        Raises:
            UpstreamError: the completion is not finished.
        """
        if not self.done and not self._finished:
            raise UpstreamError("The model's API ended its response too early.")

    def _read_chunk(self, event: str) -> str:
        try:
            chunk: object = json.loads(event)
        except ValueError:
            raise UpstreamError("The model's API sent an event that is not JSON.") from None
        if member(chunk, "error"):
            message, code = read_error_body({}, event.encode(errors="replace"))
            if code is not None and code.isdecimal():
                raise upstream_error(int(code), message)
            raise UpstreamError(message)
        # The last chunk may report only the usage, with an empty list of choices.
        choices = member(chunk, "choices")
        choice = cast("list[object]", choices)[0] if isinstance(choices, list) and choices else None
        reason = member(choice, "finish_reason")
        if reason == "content_filter":
            raise UpstreamError("The model's answer was blocked.")
        self._finished = self._finished or reason is not None
        text = member(member(choice, "delta"), "content")
        return text if isinstance(text, str) else ""


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


class EventStream:
    """Parses server-sent events, from bytes that are split anywhere (WHATWG HTML, section 9.2)."""

    def __init__(self) -> None:
        utf8 = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._decoder = IncrementalNewlineDecoder(utf8, translate=True)
        self._line: list[str] = []
        self._data: list[str] = []

    def feed(self, data: bytes) -> Iterator[str]:
        """Take the next bytes of the stream and yield the data of each event that is complete."""
        rest, *lines = self._decoder.decode(data).split("\n")
        self._line.append(rest)
        for rest in lines:
            line = "".join(self._line)
            self._line = [rest]
            field, _, value = line.partition(":")
            if field == "data":
                self._data.append(value.removeprefix(" "))
            elif not line and self._data:
                event, self._data = "\n".join(self._data), []
                yield event
