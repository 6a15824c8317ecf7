"""Clients of the GPROChat protocol over sockets.

Pick one by your event loop and the library you already have: `gprochat_transports.aiohttp`,
`.httpx` or `.trio`, each with a `Client` of the same shape. This module needs no such library. It
has the parts to build a client over a transport of your own.
"""

from .client import Client, Reply, Response, Transport
from .environment import FROM_ENVIRONMENT, service_from_environment
from .options import ClientOptions, OnRetry, Settings
from .pool import Pool
from .sync import SyncClient, SyncReply

__all__ = [
    "FROM_ENVIRONMENT",
    "Client",
    "ClientOptions",
    "OnRetry",
    "Pool",
    "Reply",
    "Response",
    "Settings",
    "SyncClient",
    "SyncReply",
    "Transport",
    "service_from_environment",
]
