"""A service that listens on this machine only refuses requests from pages of other sites.

A browser sends requests for any page. The `Host` header shows a page whose host name has been
pointed to this machine (DNS rebinding); the `Origin` header shows a page of another site.
"""

import socket
from collections.abc import Collection, Iterable
from ipaddress import ip_address
from typing import Self
from urllib.parse import urlsplit

from aiohttp import web

from gprochat_core import ConfigurationError, Refusal

__all__ = ["Hosts", "is_loopback"]


class Hosts:
    """Decides by the headers `Host` and `Origin` who may call.

    Args:
        allowed: the host names, without ports, that the headers may hold besides those of this
            machine; None for any. If a browser hides an origin, its name is "null".
        origins: origins that are allowed too, with scheme and port.

    Raises:
        ConfigurationError: `allowed` is a single str, or holds something else than host names.
    """

    def __init__(self, allowed: Collection[str] | None, origins: Collection[str] = ()) -> None:
        if isinstance(allowed, str):
            raise ConfigurationError("allowed_hosts is a list of host names, not one")
        for each in allowed or ():
            if "/" in each or each.count(":") == 1:
                raise ConfigurationError(
                    f"{each!r} is not a host name; one looks like chat.example, without a port"
                )
        self._allowed = None if allowed is None else {each.lower() for each in allowed}
        self._origins = frozenset(origins)

    @classmethod
    def of(
        cls,
        sockets: Iterable[socket.socket],
        allowed: Collection[str] | None,
        origins: Collection[str] = (),
    ) -> Self:
        """Return what is allowed on these sockets.

        Args:
            sockets: listen for requests.
            allowed: as above, but None means none if all sockets listen on loopback addresses.
            origins: as above.
        """
        if allowed is None and all(is_loopback(each.getsockname()[0]) for each in sockets):
            allowed = ()
        return cls(allowed, origins)

    def check(self, request: web.Request) -> None:
        """Refuse a request from elsewhere.

        Raises:
            Refusal: `Host` or `Origin` holds another name.
        """
        if self._allowed is None:
            return
        for header, prefix in (("Host", "//"), ("Origin", "")):
            for value in request.headers.getall(header, ()):
                name = host_of(prefix + value)
                if header == "Origin" and value in self._origins:
                    continue
                if name not in self._allowed and not is_loopback(name):
                    raise Refusal(403, f"This service does not answer to this {header}.")


def host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or url
    except ValueError:
        return url


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address stands for this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
