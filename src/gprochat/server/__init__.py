"""The embedded service: answers the requests of any client of the protocol, inside your process.

    async with serve() as server:
        ...  # a client of server.service gets its own words back

A service answers a client as a deployment of the family does (docs/protocol.md, "Reply" and
"Errors"); the text of its replies comes from an `Answer`.
"""

from typing import TYPE_CHECKING

from gprochat_transports.extras import needs

with needs("server"):
    from .answers import Answer, echo
    from .bodies import MAX_REQUEST_BYTES
    from .lifecycle import Server, serve
from .signals import stop_signal
from .threads import in_thread

if TYPE_CHECKING:
    from .bridge import UpstreamError, openai

__all__ = [
    "MAX_REQUEST_BYTES",
    "Answer",
    "Server",
    "UpstreamError",
    "echo",
    "in_thread",
    "openai",
    "serve",
    "stop_signal",
]

# Hidden from type checkers, which otherwise would accept any name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in ("UpstreamError", "openai"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        # Imported only when needed: httpx imports rich if rich is installed.
        with needs("server"):
            from . import bridge
        value = getattr(bridge, name)
        globals()[name] = value
        return value
