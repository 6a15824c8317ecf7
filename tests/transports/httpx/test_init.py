"""The clients of the httpx adapter, and what they take."""

from collections.abc import Callable
from ssl import create_default_context
from typing import Any

import httpx
import httpx2
import pytest

from gprochat_core import ConfigurationError, Service
from gprochat_transports import Client as AnyClient
from gprochat_transports.httpx import Client, SyncClient
from gprochat_transports.sync import SyncClient as AnySyncClient

SERVICE = Service("https://chat.example", secret_key="made up")

CLIENTS: list[tuple[Callable[..., Any], type[Any]]] = [
    (Client, httpx.AsyncClient),
    (Client, httpx2.AsyncClient),
    (SyncClient, httpx.Client),
    (SyncClient, httpx2.Client),
]


def test_the_clients_are_those_that_all_adapters_share() -> None:
    assert issubclass(Client, AnyClient)
    assert issubclass(SyncClient, AnySyncClient)


@pytest.mark.parametrize(("client", "given"), CLIENTS)
def test_a_client_of_the_library_is_taken(client: Callable[..., Any], given: type[Any]) -> None:
    assert client(SERVICE, client=given()).service is SERVICE


@pytest.mark.parametrize(("client", "given"), CLIENTS)
def test_a_client_of_the_other_kind_is_refused(
    client: Callable[..., Any], given: type[Any]
) -> None:
    other = {kind: CLIENTS[(number + 2) % 4][1] for number, (_, kind) in enumerate(CLIENTS)}[given]
    with pytest.raises(ConfigurationError, match=f"takes an httpx.{given.__name__}, not a"):
        client(SERVICE, client=other())


@pytest.mark.parametrize("client", [Client, SyncClient])
@pytest.mark.parametrize("given", [object(), "http://chat.example", httpx.Client])
def test_what_is_no_client_is_refused(client: Callable[..., Any], given: object) -> None:
    with pytest.raises(ConfigurationError, match="client= takes an httpx"):
        client(SERVICE, client=given)


@pytest.mark.parametrize(("client", "given"), CLIENTS)
@pytest.mark.parametrize(
    "option", [{"proxy": "http://proxy.example"}, {"ssl_context": create_default_context()}]
)
def test_proxy_and_tls_are_set_on_the_client_that_is_passed(
    client: Callable[..., Any], given: type[Any], option: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match=f"on the {given.__name__} that you pass"):
        client(SERVICE, client=given(), **option)


@pytest.mark.parametrize("client", [Client, SyncClient])
def test_a_proxy_that_cannot_be_used_is_refused(client: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="proxy's URL"):
        client(SERVICE, proxy="ftp://proxy.example")


@pytest.mark.parametrize("client", [Client, SyncClient])
def test_a_service_without_a_key_is_refused(client: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="no secret key"):
        client(Service("https://chat.example"), proxy=None)
