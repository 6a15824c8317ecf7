"""The arguments that the clients of all adapters take."""

from collections.abc import Callable
from ssl import create_default_context
from typing import Any, Final, get_type_hints

import pytest

import gprochat_transports.aiohttp
import gprochat_transports.httpx
import gprochat_transports.trio
from gprochat_core import ConfigurationError, Service
from gprochat_transports.environment import FROM_ENVIRONMENT
from gprochat_transports.options import ClientOptions, Settings

CLIENTS: Final[dict[str, Callable[..., object]]] = {
    "aiohttp": gprochat_transports.aiohttp.Client,
    "httpx": gprochat_transports.httpx.Client,
    "httpx, blocking": gprochat_transports.httpx.SyncClient,
    "trio": gprochat_transports.trio.Client,
}


@pytest.mark.parametrize("name", CLIENTS)
def test_an_unknown_option_is_refused_by_its_name(name: str) -> None:
    options: dict[str, Any] = {"time_out": 3}
    with pytest.raises(TypeError, match="'time_out'"):
        CLIENTS[name](Service("http://chat.example", secret_key="made up"), **options)


def test_each_option_has_a_default_and_its_type() -> None:
    assert get_type_hints(ClientOptions) == get_type_hints(Settings)
    Settings()


@pytest.mark.parametrize("proxy", [None, FROM_ENVIRONMENT])
def test_what_a_given_client_brings_may_be_left_out(proxy: Any) -> None:
    Settings(proxy=proxy).refuse_for("client")


@pytest.mark.parametrize(
    "options", [{"proxy": "http://proxy.example"}, {"ssl_context": create_default_context()}]
)
@pytest.mark.parametrize("given", ["client", "session"])
def test_proxy_and_tls_are_refused_beside_a_given_client(
    options: dict[str, Any], given: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"on the {given} that you pass"):
        Settings(**options).refuse_for(given)
