"""The client for the event loop that runs, on the first adapter that is installed."""

from collections.abc import Iterator
from ssl import create_default_context
from typing import get_type_hints

import pytest

import gprochat
import gprochat_transports
import gprochat_transports.aiohttp
import gprochat_transports.trio
from gprochat.server import in_thread, serve
from gprochat_core import ConfigurationError, Limits, RetryPolicy, Service, Timeouts, UsageError
from tests.installations import output_with, run_with

SERVICE = Service("http://127.0.0.1:9", secret_key="made up")

MAKE = {
    loop: f"""
import {loop}, gprochat

async def main():
    client = gprochat.Client(gprochat.Service("http://127.0.0.1:9", secret_key="made up"))
    print(type(client).__mro__[2].__module__)

{loop}.run({start})
"""
    for loop, start in [("asyncio", "main()"), ("trio", "main")]
}
"""Programs that print which adapter `gprochat.Client` uses on an event loop."""


@pytest.fixture
def service() -> Iterator[Service]:
    with in_thread(serve(grace=0.0)) as server:
        yield server.service


@pytest.mark.anyio
async def test_it_streams_on_the_event_loop_that_runs(service: Service) -> None:
    async with (
        gprochat.Client(service, timeouts=Timeouts(total=30), proxy=None) as client,
        client.stream("Как дела? 🙂") as reply,
    ):
        assert "".join([text async for text in reply]) == "Как дела? 🙂"


@pytest.mark.anyio
async def test_it_is_a_client_of_the_adapter_for_the_event_loop(anyio_backend_name: str) -> None:
    adapter = {
        "asyncio": gprochat_transports.aiohttp.Client,
        "trio": gprochat_transports.trio.Client,
    }[anyio_backend_name]
    async with gprochat.Client(SERVICE, proxy=None) as client:
        assert isinstance(client, gprochat.Client)
        assert isinstance(client, adapter)
        assert isinstance(client, gprochat_transports.Client)


@pytest.mark.anyio
async def test_all_clients_on_one_adapter_are_of_one_class() -> None:
    async with gprochat.Client(SERVICE) as one, gprochat.Client(SERVICE) as other:
        assert type(one) is type(other)


@pytest.mark.anyio
async def test_a_subclass_is_an_instance_of_itself() -> None:
    class Mine(gprochat.Client):
        greeting = "Hello"

    async with Mine(SERVICE, proxy=None) as client:
        assert isinstance(client, Mine)
        assert client.greeting == "Hello"


@pytest.mark.anyio
async def test_settings_reach_the_adapter() -> None:
    async with gprochat.Client(
        SERVICE,
        timeouts=Timeouts(),
        retry=RetryPolicy(),
        limits=Limits(),
        proxy=None,
        ssl_context=create_default_context(),
    ):
        pass
    with pytest.raises(ConfigurationError, match="proxy"):
        gprochat.Client(SERVICE, proxy="ftp://proxy.example")
    with pytest.raises(TypeError):
        gprochat.Client(SERVICE, timeout=5)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("loop", "installed", "adapter"),
    [
        ("asyncio", ["gprochat[aiohttp,httpx,trio]"], "aiohttp"),
        ("asyncio", ["gprochat[httpx,trio]"], "httpx"),
        ("asyncio", ["gprochat[httpx2]"], "httpx"),
        ("trio", ["gprochat[aiohttp,httpx,trio]"], "trio"),
        ("trio", ["gprochat[httpx]", "trio"], "trio"),
        ("trio", ["gprochat[httpx2]", "trio"], "trio"),
    ],
)
def test_it_uses_the_first_adapter_that_is_installed(
    loop: str, installed: list[str], adapter: str
) -> None:
    assert output_with(installed, MAKE[loop]) == f"gprochat_transports.{adapter}\n"


@pytest.mark.parametrize(
    ("loop", "installed", "missing", "extra"),
    [("asyncio", [], "aiohttp", "aiohttp"), ("trio", ["trio"], "h11", "trio")],
)
def test_without_an_adapter_the_error_names_the_extra(
    loop: str, installed: list[str], missing: str, extra: str
) -> None:
    run = run_with(installed, MAKE[loop])
    expected = f"No module named '{missing}'. Run: pip install 'gprochat[{extra}]'"
    assert run.stderr.splitlines()[-1] == f"ModuleNotFoundError: {expected}"


def test_outside_an_event_loop_the_error_says_where_to_make_it() -> None:
    with pytest.raises(UsageError, match="SyncClient in synchronous code, or make the Client"):
        gprochat.Client(SERVICE)


def test_a_function_can_be_annotated_with_it() -> None:
    def ask(client: gprochat.Client) -> None: ...

    assert get_type_hints(ask)["client"] is gprochat.Client
