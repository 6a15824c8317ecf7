"""The embedded service: answers the requests of any client of the protocol, inside your process.

    async with serve() as server:
        ...  # a client of server.service gets its own words back

A service says to a client what a deployment of the family says (docs/protocol.md, "Reply" and
"Errors"); the text of its replies comes from an `Answer`.
"""

from gprochat_transports.extras import needs

with needs("server"):
    from .answers import Answer, echo
    from .bodies import MAX_REQUEST_BYTES
    from .bridge import UpstreamError, openai
    from .lifecycle import Server, serve
from .signals import stop_signal
from .threads import in_thread

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
