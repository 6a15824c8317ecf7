"""What a deployment is: its URL, its secrets, the encoding it reads, and the names of its model.

No field of the protocol names a model, so the name that a caller passes is not sent.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from .errors import ConfigurationError
from .messages import ENCODINGS, Encoding
from .signing import Signer, secret_utf8

__all__ = ["DEFAULT_MODEL", "GPROCHAT", "Service", "get_model"]

DEFAULT_MODEL: Final = "gemini-1.5-pro"

DEFAULT_PORTS: Final = {"http": 80, "https": 443}

AUTHORITY: Final = re.compile(
    # A label has at most 63 characters (RFC 1035, 2.3.4); resolvers refuse a longer one.
    r"(?P<host>\[.*\]|\w([\w-]{0,61}\w)?(\.[\w-]{1,63})*\.?)(:(?P<port>.*))?",
    re.ASCII,
)

# Compiled when they are first used: few programs need these three.
LOOPBACK: Final = r"http://(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?"

PORT: Final = r"[0-9]{1,5}"

PATH: Final = r"([A-Za-z0-9/._~!$&'()*+,;=:@-]|%[A-Fa-f0-9]{2})*"


def get_model(model: str | None) -> str:
    """Return the one known model, `DEFAULT_MODEL`, whatever name an application asks for."""
    return DEFAULT_MODEL


@dataclass(frozen=True, slots=True)
class Service:
    """A deployment of the chat service, and how to talk to it.

    Args:
        url: http or https, a host name or address, an optional port and an optional path prefix;
            a trailing slash is ignored.
        secret_key: the key that signs requests; None if it is not known, "" if the deployment's
            key is empty. Its repr does not show it.
        password: the site password, None if the deployment has none. The repr does not show it.
        encoding: how to write conversations: "native" as the browser does, "flattened" as one
            prompt, "content" for chatgpt-demo and its forks.
        max_history: how many of the newest messages to send at most, 1 or more, without counting
            those of the system; None for all. The first of them is the user's.

    Raises:
        ConfigurationError: an argument cannot be used; the message says which and why.
    """

    url: str
    secret_key: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    encoding: Encoding = "native"
    max_history: int | None = None
    origin: str = field(init=False, repr=False, compare=False)
    """The URL's scheme, host and port alone, as a browser's `origin` header has it (RFC 6454)."""
    endpoint: str = field(init=False, repr=False, compare=False)
    """The URL that requests are sent to."""
    _signer: Signer | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        url, origin = read_url(self.url)
        object.__setattr__(self, "url", url)
        object.__setattr__(self, "origin", origin)
        object.__setattr__(self, "endpoint", f"{url}/api/generate")
        if self.secret_key is not None:
            object.__setattr__(self, "_signer", Signer(self.secret_key))
        if self.password is not None:
            secret_utf8(self.password, "password")
        if self.encoding not in list(ENCODINGS):
            raise ConfigurationError(
                f"unknown encoding {self.encoding!r}: use one of {', '.join(ENCODINGS)}"
            )
        limit = self.max_history
        if limit is not None and (type(limit) is not int or limit < 1):
            raise ConfigurationError(
                f"max_history must be None or an int of at least 1, not {limit!r}"
            )

    @property
    def signer(self) -> Signer:
        """A signer with this deployment's key.

        Raises:
            ConfigurationError: the service has no key.
        """
        if self._signer is None:
            raise ConfigurationError(
                f"no secret key for {self.url}: a request is signed with the deployment's key; "
                "pass Service(..., secret_key=...), or set GPROCHAT_SECRET_KEY if the service is "
                "read from the environment"
            )
        return self._signer

    @property
    def exposes_password(self) -> bool:
        """Whether the password would cross a network in plain text."""
        in_plain_text = self.origin.startswith("http://") and not re.fullmatch(
            LOOPBACK, self.origin
        )
        return bool(self.password) and in_plain_text


def read_url(url: str) -> tuple[str, str]:
    """Return a deployment's URL without a trailing slash, and its origin.

    Raises:
        ConfigurationError: this cannot be the URL of a deployment.
    """

    def refuse(why: str) -> ConfigurationError:
        # The message leaves the URL out, because the URL may hold a password.
        return ConfigurationError(f"the service's URL {why}; it looks like https://chat.example")

    if not isinstance(url, str):
        raise refuse(f"must be a str, not {type(url).__name__}")
    if any(character <= " " or character == "\x7f" or character.isspace() for character in url):
        raise refuse("holds white space or a control character")
    # Not urllib.parse, which drops the parts of an authority (RFC 3986, 3.2) that it does not
    # understand: a signed request might then go to a host that the user did not name.
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if scheme not in DEFAULT_PORTS or not separator:
        raise refuse("must begin with https:// or http://")
    if "?" in rest or "#" in rest:
        raise refuse("must not hold a query or fragment")
    authority, _, path = rest.partition("/")
    if "@" in authority:
        raise refuse("must not hold a user name or password; pass the site's as password=...")
    if path and not re.fullmatch(PATH, path):
        raise refuse("has a character in its path that must be percent-encoded")
    if not {".", ".."}.isdisjoint(path.lower().replace("%2e", ".").split("/")):
        # Some HTTP libraries resolve these segments, percent-encoded or not, and some do not.
        raise refuse("must not hold '.' or '..' in its path")
    match = AUTHORITY.fullmatch(authority)
    host = read_host(match["host"]) if match else None
    if match is None or host is None:
        raise refuse("has no valid host; write a host that is not ASCII in its xn-- form")
    origin = f"{scheme}://{host}"
    if match["port"]:
        port = int(match["port"]) if re.fullmatch(PORT, match["port"]) else 0
        if not 1 <= port <= 65535:
            raise refuse("must have a port from 1 to 65535, or none")
        if port != DEFAULT_PORTS[scheme]:
            origin += f":{port}"
    return f"{origin}/{path}".rstrip("/"), origin


def read_host(host: str) -> str | None:
    """Return a host's name in lower case, or an IPv6 address in canonical form; None if the
    address is not valid."""
    if not host.startswith("["):
        return host.lower()
    from ipaddress import IPv6Address

    try:
        return f"[{IPv6Address(host[1:-1])}]" if "%" not in host else None
    except ValueError:
        return None


GPROCHAT: Final = Service("https://gprochat.com")
"""The public deployment. Only its owner can give you its secret key:
`dataclasses.replace(GPROCHAT, secret_key=...)`."""
