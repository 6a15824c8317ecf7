"""Plays every test once on each adapter, on its event loop."""

import secrets
import sys
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from inspect import iscoroutinefunction, signature
from time import monotonic
from typing import Any, Final, Protocol, TypeAlias, cast

import pytest

from gprochat_core import RetryPolicy, Service, Timeouts
from tests.contract.adapters import ADAPTERS, Adapter, Blocking, Body, Client, load
from tests.peers.tls import Authority

PROXY_VARIABLES: Final = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")

TIMEOUTS: Final = Timeouts(connect=8.0, first_byte=8.0, idle=8.0)
"""Limits that no test should meet unless it sets its own."""

ONE_ATTEMPT: Final = RetryPolicy(max_attempts=1)


SOON: Final = 3.0
"""Seconds within which the peer must see that a connection was closed, on a busy machine too. An
idle connection would be kept for 4."""

Cancel: TypeAlias = Callable[[threading.Event, Body], Coroutine[Any, Any, None]]


class Happens(Protocol):
    """Waits for an event; tells whether it was set within so many seconds."""

    async def __call__(self, event: threading.Event, within: float = SOON) -> bool: ...


class MakeClient(Protocol):
    """Makes a client of the transport under test.

    The service is at `url` and has a freshly drawn key unless a `service` is given; there are no
    retries unless `retry` is given.
    """

    def __call__(self, url: str = "", *, service: Service | None = None, **kw: Any) -> Client: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--adapter",
        action="append",
        metavar="MODULE:CLIENT@LOOP",
        help="play the contract for this transport instead of the project's own; "
        "the loop is asyncio, trio or blocking, and the module may be in the current folder",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "not_on(name, reason): skip the adapter of this name, for a reason to be told"
    )
    if config.getoption("--adapter", None):
        sys.path.insert(0, str(config.invocation_params.dir))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "adapter" not in metafunc.fixturenames:
        return
    named: list[str] = metafunc.config.getoption("--adapter", None) or []
    adapters = [load(name) for name in named] or list(ADAPTERS)
    if "cancel" in metafunc.fixturenames:
        adapters = [adapter for adapter in adapters if not isinstance(adapter.loop, Blocking)]
    reasons: dict[str, str] = dict(mark.args for mark in metafunc.definition.iter_markers("not_on"))
    metafunc.parametrize(
        "adapter",
        [
            pytest.param(
                adapter,
                id=adapter.name,
                marks=[pytest.mark.skip(reason=reasons[adapter.name])]
                if adapter.name in reasons
                else [],
            )
            for adapter in adapters
        ],
    )


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function on its adapter's loop."""
    if not iscoroutinefunction(pyfuncitem.obj):
        return None
    adapter = cast("Adapter", pyfuncitem.funcargs["adapter"])
    names = signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    adapter.loop.run(partial(pyfuncitem.obj, **arguments))
    return True


@pytest.fixture(autouse=True)
def no_proxies_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def secret_key() -> str:
    return secrets.token_urlsafe()


@pytest.fixture
def make_client(adapter: Adapter, secret_key: str) -> MakeClient:
    def make(url: str = "", *, service: Service | None = None, **settings: Any) -> Client:
        settings = {"timeouts": TIMEOUTS, "retry": ONE_ATTEMPT} | settings
        return adapter.make(service or Service(url, secret_key=secret_key), **settings)

    return make


@pytest.fixture
def happens(adapter: Adapter) -> Happens:
    """Tells whether a thread sets an event soon, while the loop goes on."""

    async def wait(event: threading.Event, within: float = SOON) -> bool:
        deadline = monotonic() + within
        while not event.is_set() and monotonic() < deadline:
            await adapter.loop.sleep(0.002)
        return event.is_set()

    return wait


@pytest.fixture
def cancel(adapter: Adapter, happens: Happens) -> Cancel:
    """Runs a body and cancels it when an event is set."""

    async def run(when: threading.Event, body: Body) -> None:
        await adapter.loop.cancel(partial(happens, when, 10.0), body)

    return run


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()
