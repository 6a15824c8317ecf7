"""The connections that are made here for aiohttp: what they do besides or instead.

They tell a request's body which of them it goes over, and they resume reading only after a pause.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from .request import Body

__all__ = ["NotingConnector", "Protocol", "TcpConnector"]


class Protocol(ResponseHandler):
    """aiohttp's, without what resuming costs where nothing is paused.

    aiohttp resumes after each read, and has its parser parse nothing once more.
    """

    _is_paused = False

    def pause_reading(self) -> None:
        """Read no more from the socket for now."""
        self._is_paused = True
        super().pause_reading()

    def resume_reading(self, *args: Any, **kwargs: Any) -> None:
        """Go on after a pause."""
        if self._is_paused:
            self._is_paused = False
            super().resume_reading(*args, **kwargs)


class NotingConnector(aiohttp.BaseConnector):
    """Tells a request's body its connection, before what had come on that is taken for an answer.

    Without it, as in a session that the caller made, the body learns it when sending begins.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # What aiohttp makes its connections with is not public; should it go by another name, they
        # are aiohttp's own.
        make: Callable[..., ResponseHandler] = Protocol
        self._factory = partial(make, loop=self._loop)

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """Find or make the connection for a request."""
        connection = await super().connect(req, traces, timeout)
        if isinstance(req.body, Body) and connection.protocol is not None:
            req.body.note(connection.protocol)
        return connection


class TcpConnector(NotingConnector, aiohttp.TCPConnector):
    """aiohttp's own, that tells."""
