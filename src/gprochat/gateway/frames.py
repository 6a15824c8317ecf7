"""Pieces of text become responses of OpenAI's API, streamed or whole. Pure: no I/O.

A streamed response is a series of server-sent events. For each piece of text one event is made,
from constant bytes around the piece as a JSON string. Events are ASCII: some clients divide a
stream into lines at any of Unicode's line ends, and JSON's escapes have none.

The service reports no numbers of tokens, so `usage` is null.
"""

import json
from json.encoder import encode_basestring_ascii
from typing import Final, Protocol

__all__ = ["ChatFrames", "Frames", "ResponsesFrames", "error_object", "frames_for", "model_object"]

from .requests import API

DONE: Final = b"data: [DONE]\n\n"

encode: Final = json.JSONEncoder(separators=(",", ":")).encode


class Frames(Protocol):
    """The response to one request."""

    def begin(self) -> bytes:
        """Return the events before the first piece."""
        ...

    def piece(self, text: str) -> bytes:
        """Return the event of a piece of text."""
        ...

    def end(self) -> bytes:
        """Return the events after the last piece of a complete reply."""
        ...

    def fail(self, error: dict[str, object]) -> bytes:
        """Return the events that say that the reply is not complete; no event follows them.

        Args:
            error: as `error_object` returns it.
        """
        ...

    def whole(self, text: str) -> bytes:
        """Return the body of a response that is not streamed."""
        ...


def frames_for(api: API, ident: str, model: str, created: int) -> Frames:
    """Return the frames of a response.

    Args:
        api: which API answers.
        ident: makes the response's id unique.
        model: the model's name.
        created: when the response began, Unix time in seconds.
    """
    kind = ChatFrames if api == "chat" else ResponsesFrames
    return kind(ident, model, created)


class ChatFrames:
    """A response of POST /v1/chat/completions."""

    __slots__ = ("_after", "_before", "_head")

    def __init__(self, ident: str, model: str, created: int) -> None:
        self._head: dict[str, object] = {
            "id": f"chatcmpl-{ident}",
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        # Nothing that a caller chose is divided here: the model's name stands before the mark.
        before, _, after = self._chunk({"content": "?"}, None).rpartition(b'"?"')
        self._before = before
        self._after = after

    def _chunk(self, delta: dict[str, object], reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = {**self._head, "choices": [choice], "usage": None}
        return f"data: {encode(chunk)}\n\n".encode()

    def begin(self) -> bytes:
        """Return the event that names the role."""
        return self._chunk({"role": "assistant", "content": ""}, None)

    def piece(self, text: str) -> bytes:
        """Return the event of a piece of text."""
        return self._before + encode_basestring_ascii(text).encode() + self._after

    def end(self) -> bytes:
        """Return the event with the finish reason, and the end marker."""
        return self._chunk({}, "stop") + DONE

    def fail(self, error: dict[str, object]) -> bytes:
        """Return an event at which OpenAI's clients raise an error."""
        return f"data: {encode({'error': error})}\n\n".encode()

    def whole(self, text: str) -> bytes:
        """Return a `chat.completion`."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        body = {**self._head, "object": "chat.completion", "choices": [choice], "usage": None}
        return encode(body).encode()


class ResponsesFrames:
    """A response of POST /v1/responses."""

    __slots__ = ("_after", "_before", "_created", "_ident", "_item_id", "_model", "_next", "_texts")

    def __init__(self, ident: str, model: str, created: int) -> None:
        self._ident = f"resp_{ident}"
        self._item_id = f"msg_{ident}"
        self._model = model
        self._created = created
        self._next = 0
        self._texts: list[str] = []
        self._before = (
            b"event: response.output_text.delta\n"
            b'data: {"type":"response.output_text.delta","item_id":"%b","output_index":0,'
            b'"content_index":0,"logprobs":[],"delta":' % self._item_id.encode()
        )
        self._after = b',"sequence_number":%d}\n\n'

    def _event(self, kind: str, **fields: object) -> bytes:
        data = {"type": kind, **fields, "sequence_number": self._next}
        self._next += 1
        return f"event: {kind}\ndata: {encode(data)}\n\n".encode()

    def _part(self, text: str) -> dict[str, object]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _item(self, status: str, content: list[dict[str, object]]) -> dict[str, object]:
        return {
            "id": self._item_id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def _response(
        self, status: str, output: list[dict[str, object]], error: object = None
    ) -> dict[str, object]:
        return {
            "id": self._ident,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "background": False,
            "error": error,
            "incomplete_details": None,
            "instructions": None,
            "max_output_tokens": None,
            "metadata": {},
            "model": self._model,
            "output": output,
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "temperature": None,
            "text": {"format": {"type": "text"}},
            "tool_choice": "none",
            "tools": [],
            "top_p": None,
            "truncation": "disabled",
            "usage": None,
        }

    def _place(self) -> dict[str, object]:
        return {"item_id": self._item_id, "output_index": 0, "content_index": 0}

    def begin(self) -> bytes:
        """Return the events that open the response, its message and the message's text."""
        response = self._response("in_progress", [])
        item = self._item("in_progress", [])
        return (
            self._event("response.created", response=response)
            + self._event("response.in_progress", response=response)
            + self._event("response.output_item.added", output_index=0, item=item)
            + self._event("response.content_part.added", **self._place(), part=self._part(""))
        )

    def piece(self, text: str) -> bytes:
        """Return the event of a piece of text."""
        self._texts.append(text)
        number = self._next
        self._next = number + 1
        return self._before + encode_basestring_ascii(text).encode() + self._after % number

    def end(self) -> bytes:
        """Return the events that close the text, the message and the response."""
        text = "".join(self._texts)
        part = self._part(text)
        item = self._item("completed", [part])
        place = self._place()
        return (
            self._event("response.output_text.done", **place, text=text, logprobs=[])
            + self._event("response.content_part.done", **place, part=part)
            + self._event("response.output_item.done", output_index=0, item=item)
            + self._event("response.completed", response=self._response("completed", [item]))
        )

    def fail(self, error: dict[str, object]) -> bytes:
        """Return `response.failed` with the partial text, and an event that OpenAI's clients raise.

        The second event is needed because OpenAI's clients raise no error at the first.
        """
        item = self._item("incomplete", [self._part("".join(self._texts))])
        told = {"code": "server_error", "message": error["message"]}
        response = self._response("failed", [item], told)
        flat = {name: error[name] for name in ("code", "message", "param")}
        return self._event("response.failed", response=response) + self._event(
            "error", **flat, error=error
        )

    def whole(self, text: str) -> bytes:
        """Return a `response`."""
        item = self._item("completed", [self._part(text)])
        return encode(self._response("completed", [item])).encode()


def error_object(message: str, kind: str, code: str, param: str | None = None) -> dict[str, object]:
    """Return an error as OpenAI's API writes it, the value of `error` in a body or an event."""
    return {"message": message, "type": kind, "param": param, "code": code}


def model_object(name: str) -> dict[str, object]:
    """Return a model as GET /v1/models lists it; `created` is 0, because it is not known."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "gprochat"}
