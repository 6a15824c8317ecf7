"""The reply to one request: pieces of a deployment become events, or one body.

Each piece becomes one event and one write, as soon as it arrives.
"""

from time import monotonic
from typing import Final

from aiohttp import web

from gprochat_core import GPROChatError, IncompleteReply

from ..server.requests import send
from .access_log import Record
from .deployments import Call
from .failures import Failure, failure_of
from .frames import Frames
from .requests import Asked
from .stops import StopCutter

__all__ = ["Generation", "ignored_header"]

SMALL_FRAME: Final = 32 * 1024
"""Bytes that a connection takes at once if it has sent all before them."""


class Generation:
    """The reply to one request, with its text cut at the first stop sequence.

    Args:
        request, record: the request, and what the log says of it.
        asked: what the request asks for.
        call: the call to a deployment, not entered yet.
        frames: the response.
    """

    def __init__(
        self, request: web.Request, record: Record, asked: Asked, call: Call, frames: Frames
    ) -> None:
        self._request = request
        self._record = record
        self._asked = asked
        self._call = call
        self._frames = frames
        self._cutter = StopCutter(asked.stop) if asked.stop else None
        self._texts: list[str] = []
        self._seen = 0

    async def stream(self, response: web.StreamResponse) -> None:
        """Stream the reply, up to the events after the last piece.

        Raises:
            GPROChatError: the reply failed; if `response` is prepared, call `fail`.
            ConnectionError: the caller has gone.
        """
        async with self._call as call:
            response.headers.update(ignored_header(self._asked))
            begin = self._frames.begin() + self._frame(call.first)
            self._record.first = monotonic()
            self._record.streaming = True
            await response.prepare(self._request)
            await self._write(response, begin)
            if not self._stopped:
                async for piece in call.reply:
                    if frame := self._frame(piece):
                        await self._write(response, frame)
                    if self._stopped:
                        break
        await self._write(response, self._held_frame() + self._frames.end())

    async def whole(self) -> bytes:
        """Wait for the reply and return the body of the response.

        Raises:
            GPROChatError: the reply failed.
        """
        async with self._call as call:
            self._record.first = monotonic()
            self._texts.append(self._cut(call.first))
            if not self._stopped:
                async for piece in call.reply:
                    self._texts.append(self._cut(piece))
                    if self._stopped:
                        break
        return self._frames.whole("".join(self._texts) + self._held())

    def failure(self, error: GPROChatError) -> Failure:
        """Return the answer to a reply that failed."""
        partial = ""
        if isinstance(error, IncompleteReply) and not self._asked.stream:
            partial = "".join([*self._texts, self._cut(error.text[self._seen :]), self._held()])
        return failure_of(error, attempts=self._call.attempts, partial_text=partial)

    async def fail(self, response: web.StreamResponse, failure: Failure, error: Exception) -> None:
        """Send the last events of a stream that failed, with the text that was held back.

        Raises:
            ConnectionError: the caller has gone.
        """
        rest = error.text[self._seen :] if isinstance(error, IncompleteReply) else ""
        frames = self._frame(rest) + self._held_frame() + self._frames.fail(failure.error)
        await self._write(response, frames)

    @property
    def _stopped(self) -> bool:
        return self._cutter is not None and self._cutter.stopped

    def _cut(self, piece: str) -> str:
        self._seen += len(piece)
        return piece if self._cutter is None else self._cutter.feed(piece)

    def _held(self) -> str:
        return "" if self._cutter is None else self._cutter.finish()

    def _frame(self, piece: str) -> bytes:
        text = self._cut(piece)
        return self._frames.piece(text) if text else b""

    def _held_frame(self) -> bytes:
        text = self._held()
        return self._frames.piece(text) if text else b""

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        transport = self._request.transport
        if transport is None:
            raise ConnectionError("the caller has gone")
        self._record.sent += len(data)
        if len(data) <= SMALL_FRAME and not transport.get_write_buffer_size():
            # This never waits, so it needs no time limit.
            await response.write(data)
        else:
            await send(self._request, response.write(data))


def ignored_header(asked: Asked) -> dict[str, str]:
    """Return the header that names the parameters that change nothing, if there are any."""
    return {"x-gprochat-ignored": ", ".join(asked.ignored)} if asked.ignored else {}
