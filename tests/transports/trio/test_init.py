"""The client of the trio adapter, and what it takes."""

import pytest

from gprochat_core import ConfigurationError, Service
from gprochat_transports import Client as AnyClient
from gprochat_transports.trio import Client

SERVICE = Service("https://chat.example", secret_key="made up")


def test_the_client_is_the_one_that_all_adapters_share() -> None:
    assert issubclass(Client, AnyClient)
    assert Client(SERVICE, proxy=None).service is SERVICE


def test_a_proxy_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="proxy's URL"):
        Client(SERVICE, proxy="ftp://proxy.example")


def test_a_service_without_a_key_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no secret key"):
        Client(Service("https://chat.example"), proxy=None)
