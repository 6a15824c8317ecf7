"""What environment variables say: the service to talk to, and the proxy to reach it through.

An argument that a caller passes always overrides the environment.
"""

import os
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from typing import Final, Literal, TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

from gprochat_core import ConfigurationError, Service
from gprochat_core.service import AUTHORITY

__all__ = [
    "FROM_ENVIRONMENT",
    "Proxy",
    "find_proxy",
    "proxy_secrets",
    "service_from_environment",
    "without_credentials",
]


class FromEnvironment(Enum):
    """The type of `FROM_ENVIRONMENT`."""

    FROM_ENVIRONMENT = "from the environment"


FROM_ENVIRONMENT: Final = FromEnvironment.FROM_ENVIRONMENT
"""The value of an argument `proxy` that means the proxy that the environment names."""

Proxy: TypeAlias = str | Literal[FromEnvironment.FROM_ENVIRONMENT] | None
"""A proxy's URL, None for no proxy, or `FROM_ENVIRONMENT`."""


class ProxyUrl(str):
    """A proxy's URL. Its repr shows neither user nor password: a traceback may show variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<proxy {without_credentials(self)}>"


DEFAULT_PORTS: Final = {"http": 80, "socks5": 1080}


class EnvironmentSecrets:
    """The secrets that environment variables hold. No repr shows them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.secret_key: str | None = environ.get("GPROCHAT_SECRET_KEY")
        self.password: str | None = environ.get("GPROCHAT_PASSWORD")


def service_from_environment(
    environ: Mapping[str, str] = os.environ,
    *,
    url: str | None = None,
    default: Service | None = None,
) -> Service:
    """Return the service in `GPROCHAT_URL`, `GPROCHAT_SECRET_KEY` and `GPROCHAT_PASSWORD`.

    A secret goes only to the deployment that it is for. The variables' secrets are for
    `GPROCHAT_URL`, or for `url` if that variable is not set; the secrets of `default` are for its
    own URL. If only `default` names a URL, `GPROCHAT_SECRET_KEY` is used, and `GPROCHAT_PASSWORD`
    is not. An empty secret key is a key; an empty URL or password counts as not set.

    Args:
        environ: the environment variables.
        url: the deployment's URL, in place of `GPROCHAT_URL`.
        default: the service whose values stand in for variables that are not set.

    Raises:
        ConfigurationError: a value cannot be used, or nothing names a URL.
    """
    theirs = environ.get("GPROCHAT_URL")
    secrets = EnvironmentSecrets(environ)
    # A traceback may be shown with its local variables.
    del environ
    named = url or theirs
    if named:
        service = Service(named) if default is None else replace(default, url=named)
        if default is not None and service.url != default.url:
            service = replace(service, secret_key=None, password=None)
        if theirs and service.url != Service(theirs).url:
            return service
    elif default is not None:
        service = default
    else:
        raise ConfigurationError(
            "no URL: set GPROCHAT_URL to the URL of the deployment, such as https://chat.example"
        )
    return replace(
        service,
        secret_key=service.secret_key if secrets.secret_key is None else secrets.secret_key,
        password=(secrets.password if named else None) or service.password,
    )


def find_proxy(url: str, proxy: Proxy, *, socks5: str = "") -> ProxyUrl | None:
    """Return the URL of the proxy to use for a service, with its port; None for no proxy.

    The environment's proxy is `HTTPS_PROXY` or `HTTP_PROXY` by the scheme of the service's URL,
    else `ALL_PROXY`; the names may be in upper or lower case. There is no proxy for a host that
    `NO_PROXY` names, or for an address in a network that it names, such as `10.0.0.0/8`.

    Args:
        url: the service's URL.
        proxy: the caller's argument.
        socks5: the module that the transport needs for a SOCKS5 proxy; "" for none.

    Raises:
        ConfigurationError: the proxy's URL is malformed, its kind is not supported, or the
            library for its kind is not installed.
    """
    named = proxy_of_environment(url) if proxy is FROM_ENVIRONMENT else proxy
    read = None if named is None else read_proxy_url(named)
    # A traceback may be shown with its local variables, and this one may hold a password.
    del named, proxy
    if read is None:
        return None
    if not isinstance(read, ProxyUrl):
        raise ConfigurationError(
            f"the proxy's URL {read}; it looks like http://user:password@proxy.example:3128 "
            "or socks5://proxy.example:1080"
        )
    # Imported here, because few programs use a proxy.
    from importlib.util import find_spec

    if socks5 and read.startswith("socks5:") and find_spec(socks5) is None:
        raise ConfigurationError(
            f"this kind of proxy needs the library {socks5}: pip install 'gprochat[socks]'"
        )
    return read


def is_in_networks(host: str, no_proxy: str) -> bool:
    """Tell whether a host is an address in one of the networks that `NO_PROXY` names."""
    if "/" not in no_proxy:
        return False
    from ipaddress import ip_address, ip_network

    for name in no_proxy.split(","):
        # Most names, and most hosts, are neither addresses nor networks.
        with suppress(ValueError):
            if ip_address(host) in ip_network(name.strip(), strict=False):
                return True
    return False


def proxy_of_environment(url: str) -> str | None:
    # Imported only when needed, because it imports all of http.client.
    from urllib.request import getproxies_environment, proxy_bypass

    parts = urlsplit(url)
    proxies = getproxies_environment()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    # NO_PROXY may hold an IPv6 address with brackets or without.
    unbracketed = parts.netloc.replace("[", "").replace("]", "")
    if not proxy or proxy_bypass(parts.netloc) or proxy_bypass(unbracketed):
        return None
    if is_in_networks(parts.hostname or "", proxies.get("no", "")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def read_proxy_url(proxy: str) -> ProxyUrl | str:
    """Return a proxy's URL with its port, or what is wrong with it, without quoting it."""
    if any(character <= " " or character == "\x7f" for character in proxy):
        return "holds white space or a control character"
    split = split_url(proxy)
    if split is None:
        return "has an invalid port or IPv6 address"
    parts, port = split
    # The transports leave name resolution to the proxy for both schemes.
    scheme = "socks5" if parts.scheme == "socks5h" else parts.scheme
    if scheme not in DEFAULT_PORTS:
        return "must begin with http:// or socks5://"
    if not parts.hostname:
        return "has no host"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if not AUTHORITY.fullmatch(host):
        return "has no valid host; write a host that is not ASCII in its xn-- form"
    if parts.path.strip("/") or parts.query or parts.fragment:
        return "has text after the port; percent-encode special characters in a password"
    credentials = [unquote(parts.username or ""), unquote(parts.password or "")]
    # RFC 1929 asks for both and has a byte for each length; python-socks writes ASCII only.
    usable = all(each.isascii() and 1 <= len(each) <= 255 for each in credentials)
    if scheme == "socks5" and any(credentials) and not usable:
        return "needs a user and a password of 1 to 255 ASCII characters, for SOCKS5"
    user, at, _ = parts.netloc.rpartition("@")
    return ProxyUrl(f"{scheme}://{user}{at}{host}:{port or DEFAULT_PORTS[scheme]}")


def split_url(url: str) -> tuple[SplitResult, int | None] | None:
    # Returns None for a malformed URL. ValueError quotes the URL, and would become the context of
    # an exception raised while it is handled.
    try:
        parts = urlsplit(url)
        return parts, parts.port
    except ValueError:
        return None


def without_credentials(proxy: str) -> str:
    """Return a proxy's URL without user and password."""
    parts = urlsplit(proxy)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def credentials_of(proxy: str) -> tuple[str, str]:
    """Return the user and the password in a proxy's URL; "" for none."""
    parts = urlsplit(proxy)
    return unquote(parts.username or ""), unquote(parts.password or "")


def proxy_secrets(proxy: str | None) -> list[str]:
    """Return the secrets in a proxy's URL: the password, and the credentials of a header."""
    user, password = credentials_of(proxy or "")
    if not password:
        return []
    return [password, b64encode(f"{user}:{password}".encode()).decode()]


def basic_authorization(proxy: str) -> list[tuple[str, str]]:
    """Return the header that tells a proxy the credentials of its URL (RFC 7617), if it has any."""
    user, password = credentials_of(proxy)
    if not (user or password):
        return []
    credentials = b64encode(f"{user}:{password}".encode()).decode()
    return [("Proxy-Authorization", f"Basic {credentials}")]
