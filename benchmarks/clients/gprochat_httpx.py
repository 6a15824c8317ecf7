"""This project's httpx adapter."""

from gprochat_transports.httpx import Client as HttpxClient

from ._gprochat import Adapter, settings


class Client(Adapter):
    def __init__(self, url: str, streams: int) -> None:
        service, limits = settings(url, streams)
        super().__init__(HttpxClient(service, limits=limits, proxy=None))
