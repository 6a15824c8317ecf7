"""The arguments that the clients of all adapters take."""

from collections.abc import Callable
from ssl import create_default_context
from typing import Any, Final, get_type_hints

import httpx
import pytest

import gprochat_transports.aiohttp
import gprochat_transports.httpx
import gprochat_transports.trio
from gprochat_core import (
    ConfigurationError,
    GPROChatError,
    Limits,
    RetryPolicy,
    Service,
    Timeouts,
)
from gprochat_transports.environment import FROM_ENVIRONMENT
from gprochat_transports.options import ClientOptions, Settings

SERVICE: Final = Service("http://chat.example", secret_key="made up")

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
        CLIENTS[name](SERVICE, **options)


def test_each_option_has_a_default_and_its_type() -> None:
    assert get_type_hints(ClientOptions) == get_type_hints(Settings)
    Settings()


def test_settings_show_no_password_of_a_proxy() -> None:
    settings = Settings(limits=Limits(max_connections=7), proxy="http://user:made-up@proxy.example")
    assert "max_connections=7" in repr(settings)
    assert "made-up" not in f"{settings} {settings!r}"


@pytest.mark.parametrize("proxy", [None, FROM_ENVIRONMENT])
def test_what_a_given_client_brings_may_be_left_out(proxy: Any) -> None:
    assert Settings.take({"proxy": proxy}, SERVICE, given=object())[1] is None


@pytest.mark.parametrize(
    "options", [{"proxy": "http://proxy.example"}, {"ssl_context": create_default_context()}]
)
def test_proxy_and_tls_are_refused_beside_a_given_client(options: Any) -> None:
    with pytest.raises(ConfigurationError, match="on the AsyncClient that you pass"):
        Settings.take(options, SERVICE, given=httpx.AsyncClient())


async def report(attempt: int, delay: float, error: GPROChatError) -> None:
    """A report that a client would have to await."""


WRONG: Final[dict[str, tuple[object, str]]] = {
    "timeouts": (3, "Timeouts(first_byte=90); got int"),
    "retry": (3, "RetryPolicy(max_attempts=1); got int"),
    "limits": (20, "Limits(max_connections=20); got int"),
    "on_retry": (report, "a function of attempt, pause and error, without async; got function"),
    "proxy": ({"https": "http://u:pass-word@proxy.example"}, "the proxy's URL as a str, or None"),
    "ssl_context": (False, "ssl.create_default_context(cafile=...); got bool"),
}


@pytest.mark.parametrize("option", WRONG)
@pytest.mark.parametrize("name", CLIENTS)
def test_an_option_of_a_wrong_type_is_refused_with_what_to_pass(name: str, option: str) -> None:
    wrong, advice = WRONG[option]
    with pytest.raises(ConfigurationError) as caught:
        CLIENTS[name](SERVICE, **{option: wrong})
    assert str(caught.value).startswith(f"{option} must be ")
    assert advice in str(caught.value)
    assert "pass-word" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["https://chat.example", None], ids=repr)
@pytest.mark.parametrize("name", CLIENTS)
def test_what_is_no_service_is_refused_with_what_to_pass(name: str, wrong: object) -> None:
    expected = rf'^service must be .+ Service\("https:.+; got {type(wrong).__name__}$'
    with pytest.raises(ConfigurationError, match=expected):
        CLIENTS[name](wrong)


@pytest.mark.parametrize("name", CLIENTS)
def test_an_option_that_there_is_not_is_refused_with_those_that_there_are(name: str) -> None:
    options: dict[str, Any] = {"timeout": 3}
    with pytest.raises(TypeError, match=r"^no option 'timeout'; there are timeouts, retry, "):
        CLIENTS[name](SERVICE, **options)


def test_options_of_the_right_types_are_taken() -> None:
    def report(attempt: int, delay: float, error: GPROChatError) -> None:
        """Do nothing."""

    options: ClientOptions = {
        "timeouts": Timeouts(),
        "retry": RetryPolicy(),
        "on_retry": report,
        "limits": Limits(),
        "proxy": "http://proxy.example",
        "ssl_context": create_default_context(),
    }
    wanted = Settings(**options)
    assert Settings.take(options, SERVICE) == (wanted, "http://proxy.example:80")
    assert "proxy" not in options
