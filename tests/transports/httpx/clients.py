"""Clients of httpx and httpx2 as a caller makes them, each with the loop that it runs on."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
import httpx2

from gprochat_core import Request
from gprochat_transports import Transport
from gprochat_transports.httpx.blocking import BlockingNetwork
from gprochat_transports.httpx.connection import AnyioNetwork
from gprochat_transports.httpx.given import GivenTransport
from tests.faults.certificates import client_context
from tests.transports.loops import RUN, Main

__all__ = ["KINDS", "Kind", "make_request"]


@dataclass(frozen=True)
class Kind:
    """A kind of client.

    Attributes:
        library: httpx or httpx2.
        blocking: whether the client blocks.
        run: runs a coroutine that uses it.
    """

    library: Any
    blocking: bool
    run: Callable[[Main], None]

    def make(self, **settings: Any) -> Any:
        """Make a client; one context for all, because making one takes long."""
        kind = self.library.Client if self.blocking else self.library.AsyncClient
        return kind(**{"trust_env": False, "verify": client_context(), **settings})

    def use(self, client: Any) -> Transport:
        """Return the transport over a client."""
        return GivenTransport(client, BlockingNetwork() if self.blocking else AnyioNetwork())

    def open(self, **settings: Any) -> AbstractAsyncContextManager[tuple[Any, Transport]]:
        """Make a client and the transport over it; close the client in the end."""

        @asynccontextmanager
        async def opened() -> AsyncGenerator[tuple[Any, Transport], None]:
            client = self.make(**settings)
            try:
                yield client, self.use(client)
            finally:
                if self.blocking:
                    client.close()
                else:
                    await client.aclose()

        return opened()


KINDS: Final = {
    f"{library.__name__} {loop}": Kind(library, loop == "blocking", RUN[loop])
    for library in (httpx, httpx2)
    for loop in ("asyncio", "trio", "blocking")
}


def make_request(url: str, *headers: tuple[str, str]) -> Request:
    """Return a request with a body."""
    return Request("POST", f"{url}/api/generate", headers, b"the body")
