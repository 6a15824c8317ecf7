"""One line in the log for each request, when it has been answered.

A line has nothing that a caller chose: no text, no key, no path and no name that is unknown here.
"""

import logging
from dataclasses import dataclass
from time import monotonic
from typing import Final

from aiohttp import web

__all__ = ["LEFT", "RECORD", "Record", "log", "logger"]

LEFT: Final = 499
"""The status in the log of a request whose caller left before the response began."""

logger: logging.Logger = logging.getLogger("gprochat.gateway")


@dataclass(slots=True)
class Record:
    """What the log says of a request.

    Attributes:
        ident: the request id.
        started: when the request arrived, in seconds of `time.monotonic`.
        origin: the request's `Origin`, if its pages may read the response; else "".
        model: the model's name, once it is known to exist.
        mode: "streamed" or "whole".
        code: the code of the error, if there was one.
        received: how many bytes the request's body has.
        sent: how many bytes the response's body has, before it is divided into chunks.
        first: when the reply began; None if it did not.
        streaming: whether the response has begun, so that there can be no other.
    """

    ident: str
    started: float
    origin: str = ""
    model: str = "-"
    mode: str = "-"
    code: object = "-"
    received: int = 0
    sent: int = 0
    first: float | None = None
    streaming: bool = False


RECORD: Final = web.RequestKey("gprochat_gateway_record", Record)


def log(request: web.Request, response: web.StreamResponse | None, record: Record) -> None:
    """Log a request and its response; None if the caller left before there was any."""
    resource = request.match_info.route.resource
    # The path itself may hold anything.
    path = "-" if resource is None else resource.canonical
    if isinstance(response, web.Response) and isinstance(response.body, bytes):
        record.sent += len(response.body)
    now = monotonic()
    first = "-" if record.first is None else f"{(record.first - record.started) * 1000:.0f}"
    logger.info(
        "%s %s %s %d %s model=%s code=%s in=%d out=%d first_ms=%s ms=%.0f",
        record.ident,
        request.method if resource is not None else "-",
        path,
        LEFT if response is None else response.status,
        record.mode,
        record.model,
        record.code,
        record.received,
        record.sent,
        first,
        (now - record.started) * 1000,
    )
