"""What the environment says: which service, and which proxy stands before it.

A caller's own argument always comes first.
"""

import os
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from importlib.util import find_spec
from typing import Final, Literal, TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

from gprochat_core import GPROCHAT, ConfigurationError, Service

__all__ = [
    "FROM_ENVIRONMENT",
    "Proxy",
    "find_proxy",
    "proxy_secrets",
    "service_from_environment",
    "split_proxy",
]


class FromEnvironment(Enum):
    """The one value that stands for "as the environment says"."""

    FROM_ENVIRONMENT = "from the environment"


FROM_ENVIRONMENT: Final = FromEnvironment.FROM_ENVIRONMENT

Proxy: TypeAlias = str | Literal[FromEnvironment.FROM_ENVIRONMENT] | None
"""A proxy's URL, None for none at all, or `FROM_ENVIRONMENT`."""

DEFAULT_PORTS: Final = {"http": 80, "socks5": 1080}


def service_from_environment(
    environ: Mapping[str, str] = os.environ, *, default: Service = GPROCHAT
) -> Service:
    """Return the service that `GPROCHAT_URL`, `GPROCHAT_SECRET_KEY` and `GPROCHAT_PASSWORD` tell.

    What is not set is as in `default`, so the secret key may be None. An empty secret key is one,
    an empty URL or password is none.

    Raises:
        ConfigurationError: one of them cannot be used.
    """
    return replace(
        default,
        url=environ.get("GPROCHAT_URL") or default.url,
        secret_key=environ.get("GPROCHAT_SECRET_KEY", default.secret_key),
        password=environ.get("GPROCHAT_PASSWORD") or default.password,
    )


def find_proxy(url: str, proxy: Proxy, *, http: str = "", socks5: str = "") -> str | None:
    """Return the URL of the proxy to use for a service's URL, with its port, None for none.

    Args:
        url: the service's URL.
        proxy: what the caller says.
        http, socks5: the module that the transport needs for such a proxy, if any.

    From the environment: `HTTPS_PROXY` or `HTTP_PROXY` by the URL's scheme, else `ALL_PROXY`, in
    upper or lower case, unless `NO_PROXY` names the host.

    Raises:
        ConfigurationError: it is not a proxy's URL, of a kind that is not supported, or one for
            which a library is missing.
    """
    if proxy is FROM_ENVIRONMENT:
        # It brings a whole HTTP client along, so it is imported no sooner than it is needed.
        from urllib.request import getproxies_environment, proxy_bypass

        parts = urlsplit(url)
        proxies = getproxies_environment()
        proxy = proxies.get(parts.scheme) or proxies.get("all")
        # An IPv6 address is written in NO_PROXY with its brackets or without.
        unbracketed = parts.netloc.replace("[", "").replace("]", "")
        if not proxy or proxy_bypass(parts.netloc) or proxy_bypass(unbracketed):
            return None
        if "://" not in proxy:
            proxy = f"http://{proxy}"
    if proxy is None:
        return None
    proxy = read_proxy_url(proxy)
    module = http if proxy.startswith("http:") else socks5
    if module and find_spec(module) is None:
        raise ConfigurationError(
            f"such a proxy needs the library {module}: pip install 'gprochat[socks]'"
        )
    return proxy


def read_proxy_url(proxy: str) -> str:
    def refuse(why: str) -> ConfigurationError:
        # The URL itself is left out: it may hold a password.
        return ConfigurationError(
            f"the proxy's URL {why}; it looks like http://user:password@proxy.example:3128 "
            "or socks5://proxy.example:1080"
        )

    if any(character <= " " or character == "\x7f" for character in proxy):
        raise refuse("holds white space or a control character")
    split = split_url(proxy)
    if split is None:
        raise refuse("has a port or an IPv6 address that is none")
    parts, port = split
    # Both kinds of SOCKS5 URL leave name resolution to the proxy here.
    scheme = "socks5" if parts.scheme == "socks5h" else parts.scheme
    if scheme not in DEFAULT_PORTS:
        raise refuse("must begin with http:// or socks5://")
    if not parts.hostname:
        raise refuse("has no host")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise refuse("goes on after the port; percent-encode the special characters of a password")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    user, at, _ = parts.netloc.rpartition("@")
    return f"{scheme}://{user}{at}{host}:{port or DEFAULT_PORTS[scheme]}"


def split_url(url: str) -> tuple[SplitResult, int | None] | None:
    # Returns None for an error, and does not raise one: the exception at hand quotes the URL.
    try:
        parts = urlsplit(url)
        return parts, parts.port
    except ValueError:
        return None


def split_proxy(proxy: str) -> tuple[str, str, str]:
    """Return a proxy's URL without user and password, the user, and the password; "" for none."""
    parts = urlsplit(proxy)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}", unquote(parts.username or ""), unquote(parts.password or "")


def proxy_secrets(proxy: str | None) -> list[str]:
    """Return the secrets in a proxy's URL: the password, and the credentials of a header."""
    _, user, password = split_proxy(proxy or "")
    if not password:
        return []
    return [password, b64encode(f"{user}:{password}".encode()).decode()]
