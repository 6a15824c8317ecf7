"""This project's aiohttp adapter."""

from gprochat_transports.aiohttp import Client as AiohttpClient

from ._gprochat import Adapter, settings


class Client(Adapter):
    def __init__(self, url: str, streams: int) -> None:
        service, limits = settings(url, streams)
        super().__init__(AiohttpClient(service, limits=limits, proxy=None))
