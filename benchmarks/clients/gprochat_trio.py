"""This project's trio adapter."""

from gprochat_transports.trio import Client as TrioClient

from ._gprochat import Adapter, settings


class Client(Adapter):
    def __init__(self, url: str, streams: int) -> None:
        service, limits = settings(url, streams)
        super().__init__(TrioClient(service, limits=limits, proxy=None))
