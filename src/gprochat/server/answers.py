"""Answers for the embedded service: functions that a conversation goes into and text streams out.

An answer is an asynchronous generator function of the messages. Two are here: `echo`, and one
that `openai` makes, which has any OpenAI-compatible API reply. Your own looks like `echo`.
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
"""What a service answers with: takes the conversation, the user's message last, and gives the
reply in pieces. An asynchronous generator is closed as soon as nobody waits for its reply."""

WORD: Final = re.compile(r"\S{1,12}\s*|\s+")

ECHO_PAUSE: Final = 0.02
ECHO_LENGTH: Final = 2.0
"""Seconds from one word to the next, and for the whole reply, about."""

CONNECT_TIMEOUT: Final = 10.0
SILENCE_TIMEOUT: Final = 300.0
END_TIMEOUT: Final = 1.0
"""Seconds to wait for an API's connection, for its next bytes, and for the end it announced."""


async def echo(messages: tuple[Message, ...]) -> AsyncIterator[str]:
    """Answer with the user's last message, word by word."""
    words = WORD.findall(messages[-1].text)
    for word in words:
        yield word
        await asyncio.sleep(min(ECHO_PAUSE, ECHO_LENGTH / len(words)))


class UpstreamError(Exception):
    """The API behind an answer failed; the text is what the chat's user will read."""


@asynccontextmanager
async def openai(
    base_url: str, *, model: str, api_key: str | None = None
) -> AsyncGenerator[Answer, None]:
    """Make an answer that streams from an OpenAI-compatible API, until the block is left.

    `async with openai("http://localhost:11434/v1", model="llama3.2") as answer, serve(answer)`
    serves a model of Ollama; vLLM, llama.cpp's server and the like are no different. All replies
    share one session. What the API says of a failure is what the chat's user reads.

    Args:
        base_url: as OpenAI's own clients take it, with its `/v1`, which is added to a URL that
            has no path.
        model: the model's name there.
        api_key: sent as a bearer token; None where none is needed. Never shown.

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
        # How many replies stream at once is for the service and the API to limit.
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers,
        timeout=timeout,
    ) as session:

        async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
            conversation = [{"role": message.role, "content": message.text} for message in messages]
            options = {"model": model, "messages": conversation, "stream": True}
            # A file, for aiohttp warns of large bytes.
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
            # The exception at hand may hold the request's headers, and some APIs repeat the key
            # that they refuse.
            raise UpstreamError(failure.replace(api_key, "…") if api_key else failure)

        yield answer


async def read_refusal(response: aiohttp.ClientResponse) -> UpstreamError:
    headers = {name.lower(): value for name, value in response.headers.items()}
    message, _ = read_error_body(headers, await response.content.read(MAX_ERROR_BODY))
    return upstream_error(response.status, message)


async def read_to_end(response: aiohttp.ClientResponse) -> None:
    # A connection whose response has been read to its end can be used again.
    with suppress(TimeoutError):
        async with asyncio.timeout(END_TIMEOUT):
            await response.read()


def upstream_error(status: int, message: str) -> UpstreamError:
    """Word it as the family's own model does: clients know a rate limit by these words."""
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    return UpstreamError(f"[{status}{phrase}] {message or 'no reason was given'}")


class Completion:
    """A streamed completion: the API's bytes in, the reply's text out.

    Attributes:
        done: the API has said that no more follows.
    """

    def __init__(self) -> None:
        self._events = EventStream()
        self._finished = False
        self.done = False

    def feed(self, data: bytes) -> Iterator[str]:
        """Give the pieces of text that some more bytes bring.

        Raises:
            UpstreamError: they tell of a failure, or make no sense.
        """
        for event in self._events.feed(data):
            self.done = self.done or event == "[DONE]"
            if self.done:
                return
            text = self._read_chunk(event)
            if text:
                yield text

    def finish(self) -> None:
        """Take the end of the bytes.

        Raises:
            UpstreamError: it came too early.
        """
        if not self.done and not self._finished:
            raise UpstreamError("The model's API broke off.")

    def _read_chunk(self, event: str) -> str:
        try:
            chunk: object = json.loads(event)
        except ValueError:
            raise UpstreamError("The model's API sent something else than JSON.") from None
        if member(chunk, "error"):
            message, code = read_error_body({}, event.encode(errors="replace"))
            if code is not None and code.isdecimal():
                raise upstream_error(int(code), message)
            raise UpstreamError(message)
        # The last chunk may report the usage and have no choice.
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
        raise ConfigurationError("an API key is printable ASCII, for it goes into a header")
    return api_key


class EventStream:
    """The data of server-sent events, from bytes cut anywhere (WHATWG HTML, section 9.2)."""

    def __init__(self) -> None:
        utf8 = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._decoder = IncrementalNewlineDecoder(utf8, translate=True)
        self._line: list[str] = []
        self._data: list[str] = []

    def feed(self, data: bytes) -> Iterator[str]:
        """Give the data of each event that some more bytes complete."""
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
