"""Clients of the GPROChat protocol over sockets.

Pick one by your event loop and the library you already have: `gprochat_transports.aiohttp`,
`.httpx` or `.trio`, each with a `Client` of the same shape. What is here needs none of them:
the clients for a transport of your own, and the settings that the environment makes.
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
