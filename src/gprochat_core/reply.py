"""The reply: an answer's status, headers and body bytes in; text out, or a typed error.

A piece of the body may end anywhere, also inside a character. Text is decoded as by the WHATWG
TextDecoder, which the browser's client uses. The service's failure marker at the very end of a body
is not text. So text that may be the beginning of the marker is held back until more arrives, and no
other text is held back. The rules are in docs/protocol.md, "Reply".
"""

from codecs import utf_8_decode
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from .diagnosis import (
    MAX_ERROR_BODY,
    NO_SECRETS,
    diagnose,
    is_html,
    is_settled_by_head,
    read_headers,
)
from .errors import (
    GPROChatError,
    InterruptedReply,
    NotTheService,
    ReplyTooLong,
    ResponseError,
    TruncatedReply,
)
from .messages import Encoding
from .redaction import Redactor

if TYPE_CHECKING:
    from .content_coding import Inflater

__all__ = ["FAILURE_MARKER", "MAX_HEAD_BYTES", "MAX_REPLY_BYTES", "ReplyParser"]

FAILURE_MARKER: Final = "Internal server error"
"""The text that the service appends to a reply that its model did not finish."""

MARKER_BEGIN: Final = FAILURE_MARKER[0]
MARKER_LENGTH: Final = len(FAILURE_MARKER)

MAX_REPLY_BYTES: Final = 16 * 1024 * 1024
"""The default limit of a reply, in bytes; no model writes as much."""

MAX_HEAD_BYTES: Final = 64 * 1024
"""The default limit of a response's headers, in bytes."""

PIECES_A_BLOCK: Final = 256
"""How many pieces of text are joined at a time: many short ones take much more memory than one."""

BYTE_ORDER_MARK: Final = "\ufeff"


class ReplyParser:
    """Parses one answer to a request.

    Args:
        status: the HTTP status.
        headers: names and values as they arrived.
        max_bytes: how long the reply may be, in bytes after decompression.
        max_head_bytes: how long the headers may be, in bytes.
        keep_text: whether `text`, and the `text` of an error, is the whole reply. If False, text
            that has been returned is not kept, and the parser's memory does not grow.
        now: when the answer arrived, Unix time in seconds; None if unknown.
        waited: seconds from the start of the attempt to `now`; the answer's Date may be as old.
        redactor: removes secrets from the texts that an error quotes.
        encoding: how the request was written; a wrong one may be the cause of an error.

    Raises:
        ResponseError: the status and the headers show which error the answer is, or the headers
            are too long, give two lengths of the body, or name a coding that is not known.

    Attributes:
        status: the HTTP status.
        headers: the headers by lower-case name.
    """

    __slots__ = (
        "_begun",
        "_blocks",
        "_encoding",
        "_error_body",
        "_held",
        "_inflater",
        "_keep_text",
        "_max_bytes",
        "_now",
        "_pieces",
        "_redactor",
        "_size",
        "_split",
        "_waited",
        "headers",
        "status",
    )

    def __init__(
        self,
        status: int,
        headers: Iterable[tuple[bytes, bytes]],
        *,
        max_bytes: int = MAX_REPLY_BYTES,
        max_head_bytes: int = MAX_HEAD_BYTES,
        keep_text: bool = True,
        now: float | None = None,
        waited: float = 0.0,
        redactor: Redactor = NO_SECRETS,
        encoding: Encoding = "native",
    ) -> None:
        self.status: int = status
        self.headers: dict[str, str] = read_headers(status, headers, max_head_bytes)
        self._now = now
        self._waited = waited
        self._redactor = redactor
        self._encoding: Encoding = encoding
        self._blocks: list[str] = []
        self._pieces: list[str] = []
        self._keep_text = keep_text
        self._held = ""
        self._split = b""
        self._begun = False
        self._size = 0
        self._max_bytes = max_bytes
        self._error_body: bytearray | None = None
        if status != 200 or is_html(self.headers):
            if is_settled_by_head(status, self.headers):
                raise self._diagnose(b"")
            self._error_body = bytearray()
        coding = self.headers.get("content-encoding", "")
        plain = coding.lower() in ("", "identity")
        self._inflater = None if plain else self._make_inflater(coding)

    @property
    def is_reply(self) -> bool:
        """Whether the body is a reply's text; if not, it is the body of an error."""
        return self._error_body is None

    @property
    def is_marker_alone(self) -> bool:
        """Whether the failure marker is all that has arrived."""
        return self._size == MARKER_LENGTH and self._ends_in_marker()

    @property
    def text(self) -> str:
        """The text that has been returned so far; after an error, all text that arrived."""
        return "".join(self._blocks + self._pieces)

    def feed(self, data: bytes) -> str:
        """Take more bytes of the body; return the text that they complete, or "".

        Raises:
            ReplyTooLong: the reply is longer than `max_bytes`.
            TruncatedReply: a compressed body is corrupt.
            InterruptedReply: it is corrupt behind the failure marker.
            ResponseError: the first `MAX_ERROR_BODY` bytes of an error's body have arrived, or it
                is compressed and corrupt.
        """
        if self._inflater is not None:
            data = self._inflate(self._inflater, data)
        if self._error_body is not None:
            self._error_body += data
            if len(self._error_body) >= MAX_ERROR_BODY:
                raise self._diagnose(self._error_body)
            return ""
        self._size += len(data)
        if self._size > self._max_bytes:
            raise self._too_long(data)
        if self._split:
            data = self._split + data
            self._split = b""
        text, used = utf_8_decode(data, "replace", False)
        if used < len(data):
            self._split = data[used:]
        if not text:
            return ""
        if not self._begun:
            self._begun = True
            if text[0] == BYTE_ORDER_MARK:
                text = text[1:]
        if self._held:
            text = self._held + text
            self._held = ""
        # The first letter of the marker occurs in it once, so only the last one can begin a marker.
        start = text.rfind(MARKER_BEGIN, -MARKER_LENGTH)
        if start >= 0 and FAILURE_MARKER.startswith(text[start:]):
            self._held = text[start:]
            text = text[:start]
        if self._keep_text:
            pieces = self._pieces
            pieces.append(text)
            if len(pieces) == PIECES_A_BLOCK:
                self._blocks.append("".join(pieces))
                pieces.clear()
        return text

    def finish(self) -> str:
        """Take the proper end of the body; return the rest of the text, or "".

        Raises:
            InterruptedReply: the reply ended in the failure marker.
            TruncatedReply: a compressed body is not complete.
            ResponseError: it was the body of an error.
        """
        if self._error_body is not None:
            raise self._diagnose(self._error_body)
        if self._inflater is not None and not self._inflater.complete:
            raise self.cut("its compressed data is not complete")
        if self._split:
            # An incomplete character becomes one U+FFFD, so the text does not end in the marker.
            self._held += utf_8_decode(self._split, "replace", True)[0]
            self._split = b""
        if self._held == FAILURE_MARKER:
            raise self._interrupted()
        text, self._held = self._held, ""
        if self._keep_text:
            self._pieces.append(text)
        return text

    def cut(self, why: str) -> GPROChatError:
        """Return the error that this answer is if its body ends here, too early.

        Args:
            why: the reason, for the message of a TruncatedReply.
        """
        if self._error_body is not None:
            return self._diagnose(self._error_body)
        if self._ends_in_marker():
            return self._interrupted()
        text = self.partial_text()
        return TruncatedReply(
            f"the reply was cut off after {len(text)} characters: {why}", text=text
        )

    def partial_text(self) -> str:
        """Return all text that arrived; call it when nothing more will arrive."""
        if not self._ends_in_marker():
            self._pieces.append(self._held)
        self._held = ""
        return self.text

    def _make_inflater(self, coding: str) -> "Inflater":
        # Imported here, because few replies need it, and it imports zlib.
        from .content_coding import CODINGS, Inflater

        if coding.lower() in CODINGS:
            return Inflater(coding.lower())
        if self._error_body is not None:
            raise self._diagnose(b"")
        shown = self._redactor.redact(coding)[:40]
        raise NotTheService(
            f"the answer is coded as {shown!r}, although plain text was asked for; "
            "check what stands in front of the service",
            status=self.status,
        )

    def _ends_in_marker(self) -> bool:
        # If half a character follows the marker, the marker is text.
        return self._held == FAILURE_MARKER and not self._split

    def _inflate(self, inflater: "Inflater", data: bytes) -> bytes:
        room = self._max_bytes - self._size + 1 if self.is_reply else MAX_ERROR_BODY
        data = inflater.decode(data, room)
        if inflater.corrupt:
            # This text is not returned any more, so the error carries it.
            self._inflater = None
            self._keep_text = True
            self.feed(data)
            raise self.cut("its compressed data is corrupt")
        return data

    def _too_long(self, data: bytes) -> ReplyTooLong:
        # The rest of the text is not returned any more, so the error carries it.
        self._inflater = None
        self._keep_text = True
        self._size -= len(data)
        self.feed(data[: self._max_bytes - self._size])
        # More bytes followed the text that was held back, so it is not the marker.
        self._pieces.append(self._held)
        self._held = ""
        return ReplyTooLong(
            f"the reply is longer than {self._max_bytes} bytes; "
            "to get more of it, raise Limits(max_reply_bytes=...)",
            text=self.text,
        )

    def _interrupted(self) -> InterruptedReply:
        if self.is_marker_alone:
            return InterruptedReply(
                "the service failed before the first word of the reply; try again later"
            )
        text = self.partial_text()
        return InterruptedReply(
            f"the service failed after {len(text)} characters of the reply; ask again for the rest",
            text=text,
        )

    def _diagnose(self, body: bytes | bytearray) -> ResponseError:
        begin = bytes(body[:MAX_ERROR_BODY])
        return diagnose(
            self.status,
            self.headers,
            begin,
            now=self._now,
            waited=self._waited,
            redactor=self._redactor,
            encoding=self._encoding,
        )
