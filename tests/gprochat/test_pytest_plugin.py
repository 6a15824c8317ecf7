"""The pytest plugin, in test runs of its own."""

import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import gprochat_transports

pytest_plugins = ["pytester"]

# A run in this process forgets afterwards the modules that it has imported. These stay.
import_module("gprochat.server")
for adapter in ("aiohttp", "httpx", "trio"):
    import_module(f"gprochat_transports.{adapter}")

# If the project is installed, pytest loads the plugin itself; -p would load it twice.
INSTALLED = bool(entry_points(group="pytest11", name="gprochat"))
PLUGIN = () if INSTALLED else ("-p", "gprochat.pytest_plugin")


# Loading hypothesis would take longer than all the rest of such a run.
OPTIONS = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-W", "error", *PLUGIN)


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess(*OPTIONS, *arguments)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    # The runs in processes have another current folder, where a relative path would not work.
    monkeypatch.setenv("PYTHONPATH", str(Path(gprochat_transports.__file__).parents[1]))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")


def test_a_synchronous_test_can_use_the_server(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from gprochat_transports.httpx import SyncClient

        def test_hello(gprochat_server):
            assert gprochat_server.url.startswith("http://127.0.0.1:")
            with SyncClient(gprochat_server.service) as client:
                assert client.complete("Hello") == "Hello"
        """
    )
    run(pytester).assert_outcomes(passed=1)


def test_an_asyncio_test_can_use_the_server(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from gprochat_transports.aiohttp import Client

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.anyio
        async def test_hello(gprochat_server):
            async with Client(gprochat_server.service) as client:
                assert await client.complete("Hello") == "Hello"
        """
    )
    run(pytester).assert_outcomes(passed=1)


def test_a_trio_test_can_use_the_server(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from gprochat_transports.trio import Client

        @pytest.fixture
        def anyio_backend():
            return "trio"

        @pytest.mark.anyio
        async def test_hello(gprochat_server):
            async with Client(gprochat_server.service) as client:
                assert await client.complete("Hello") == "Hello"
        """
    )
    run(pytester).assert_outcomes(passed=1)


def test_the_answer_can_be_chosen(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from gprochat_transports.httpx import SyncClient

        @pytest.fixture
        def gprochat_answer():
            async def answer(messages):
                yield messages[-1].text.upper()

            return answer

        def test_hello(gprochat_server):
            with SyncClient(gprochat_server.service) as client:
                assert client.complete("Hello") == "HELLO"
        """
    )
    run(pytester).assert_outcomes(passed=1)


def test_every_test_has_its_own_server(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import socket

        earlier = []

        def test_one(gprochat_server):
            earlier.append(gprochat_server)

        def test_other(gprochat_server):
            assert gprochat_server.service.secret_key != earlier[0].service.secret_key
        """
    )
    run(pytester).assert_outcomes(passed=2)


def test_nothing_is_left_after_a_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os
        import threading

        import pytest

        @pytest.fixture
        def before():
            return set(threading.enumerate())

        @pytest.fixture
        def after(before):
            yield
            assert set(threading.enumerate()) == before

        def test_hello(after, gprochat_server):
            assert len(threading.enumerate()) > 1
        """
    )
    run(pytester).assert_outcomes(passed=1)


def test_a_reply_that_still_streams_does_not_hold_up_the_end(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import asyncio
        import time

        import pytest
        from gprochat_transports.httpx import SyncClient

        @pytest.fixture
        def gprochat_answer():
            async def answer(messages):
                yield "first"
                await asyncio.sleep(60)

            return answer

        @pytest.fixture
        def in_time():
            yield
            assert time.monotonic() - begun < 3

        def test_hello(in_time, gprochat_server):
            global client, begun
            client = SyncClient(gprochat_server.service)
            next(iter(client.stream("Hello").__enter__()))
            begun = time.monotonic()

        def test_cleanup():
            client.close()
        """
    )
    run(pytester).assert_outcomes(passed=2)


def test_without_aiohttp_the_error_says_what_to_install(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("import sys; sys.modules['aiohttp'] = None")
    pytester.makepyfile("def test_hello(gprochat_server): pass")
    result = pytester.runpytest_subprocess(*OPTIONS)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*gprochat_server cannot start*pip install 'gprochat?server?'*"])


def test_loading_it_imports_no_transport() -> None:
    code = (
        "import sys, gprochat.pytest_plugin; "
        "print({'aiohttp', 'httpx', 'trio', 'asyncio'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_its_fixtures_are_described(pytester: pytest.Pytester) -> None:
    result = run(pytester, "--fixtures")
    result.stdout.fnmatch_lines(["gprochat_answer -- *", "gprochat_server -- *"])
