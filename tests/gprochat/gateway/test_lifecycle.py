"""A gateway listens until its block is left, and runs under a process manager."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gprochat.gateway import Running, gateway, make_app
from gprochat.gateway.requests import API
from gprochat.server import Server, in_thread, serve
from gprochat_core import ConfigurationError
from tests.gprochat.server.serving import Watched, answer_of, in_time, open_files
from tests.peers.tls import Authority

from .calling import KEY, PATHS, Answer, Caller, calling, model_of, models_of, request_of

MODELS = models_of("http://127.0.0.1:1")
GUNICORN = [sys.executable, "-m", "gunicorn", "--worker-class", "aiohttp.GunicornWebWorker"]

parametrize_api = pytest.mark.parametrize("api", ["chat", "responses"])


@pytest.mark.anyio
class TestRunning:
    async def test_tells_the_url_for_openais_clients_and_a_fresh_key(self) -> None:
        async with gateway(MODELS) as one, gateway(MODELS) as other:
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+", one.url)
            assert one.base_url == f"{one.url}/v1"
            assert one.key is not None
            assert len(one.key) >= 32
            assert one.key != other.key
            assert one.key not in repr(one)

    async def test_without_a_key_there_is_none(self) -> None:
        async with gateway(MODELS, no_key=True) as running:
            assert running.key is None

    async def test_without_a_key_no_other_machine_may_reach_it(self) -> None:
        before = open_files()
        with pytest.raises(ConfigurationError, match="loopback"):
            async with gateway(MODELS, no_key=True, host="0.0.0.0"):
                pass
        assert open_files() == before

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"key": "k", "no_key": True}, "not both"),
            ({"key": ""}, "key"),
            ({"max_connections": 0}, "max_connections"),
            ({"max_request_bytes": 0}, "max_request_bytes"),
            ({"allowed_hosts": "a.example"}, "allowed_hosts"),
            ({"allowed_origins": ["a.example"]}, "origin"),
        ],
    )
    async def test_refuses_settings_that_cannot_be_used(
        self, options: dict[str, Any], told: str
    ) -> None:
        before = open_files()
        with pytest.raises(ConfigurationError, match=told):
            async with gateway(MODELS, **options):
                pass
        assert open_files() == before

    async def test_without_models_the_environment_must_name_a_deployment(self) -> None:
        with pytest.raises(ConfigurationError, match="GPROCHAT_URL"):
            async with gateway():
                pass

    async def test_a_port_that_is_taken_is_the_systems_error(self) -> None:
        async with gateway(MODELS) as running:
            with pytest.raises(OSError, match="in use"):
                async with gateway(MODELS, port=int(running.url.rpartition(":")[2])):
                    pass

    async def test_serves_tls(self) -> None:
        authority = Authority()
        async with (
            gateway(MODELS, key=KEY, ssl_context=authority.server_context()) as running,
            opened() as session,
            session.get(f"{running.url}/health", ssl=authority.client_context()) as response,
        ):
            assert running.url.startswith("https://")
            assert response.status == 200

    async def test_leaves_nothing_open(self) -> None:
        before = open_files(), asyncio.all_tasks()
        async with serve(answer_of("Hi")) as server, calling(model_of(server.service)) as caller:
            await caller.ask(stream=True)
        assert (open_files(), asyncio.all_tasks()) == before

    async def test_may_run_in_a_thread(self) -> None:
        with in_thread(gateway(MODELS)) as running:
            assert isinstance(running, Running)


@pytest.mark.anyio
@parametrize_api
class TestStopping:
    async def test_lets_a_reply_finish(self, api: API) -> None:
        watched = Watched("one ", rest="two")
        async with serve(watched) as server, opened() as session:
            async with calling(model_of(server.service), grace=5.0) as caller:
                response = await begin(session, caller, api)
                asyncio.get_running_loop().call_later(0.1, watched.proceed.set)
            reply = await finish(response)
        assert reply.text == "one two"
        assert reply.complete

    async def test_ends_a_reply_that_takes_longer_with_an_error(self, api: API) -> None:
        watched = Watched("one ")
        async with serve(watched) as server, opened() as session:
            async with calling(model_of(server.service), grace=0.1) as caller:
                response = await begin(session, caller, api)
            reply = await finish(response)
            await in_time(watched.closed.wait())
        assert reply.text == "one "
        assert not reply.complete
        assert reply.error["code"] == "unavailable"

    async def test_answers_a_request_without_a_reply_yet_with_unavailable(self, api: API) -> None:
        watched = Watched()
        async with serve(watched) as server, opened() as session:
            async with calling(model_of(server.service)) as caller:
                asking = asyncio.create_task(Caller(session, caller.url).ask(api, stream=True))
                await watched.begun.wait()
            reply = await asking
        assert (reply.status, reply.error["code"]) == (503, "unavailable")
        assert "x-should-retry" not in reply.headers


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn does not run on Windows")
async def test_two_workers_of_gunicorn_finish_their_replies_when_they_stop() -> None:
    watched = Watched("one ", rest="two")
    with TemporaryDirectory(prefix="gateway") as folder:
        path = f"{folder}/socket"
        async with serve(watched) as server, opened(aiohttp.UnixConnector(path)) as session:
            replies = await ask_gunicorn(watched, server, session, path)
    assert [(reply.text, reply.complete) for reply in replies] == [("one two", True)] * 10


async def ask_gunicorn(
    watched: Watched, server: Server, session: aiohttp.ClientSession, path: str
) -> list[Answer]:
    """Begin ten streams, stop gunicorn, and return what its workers sent until they ended."""
    environ = {
        **os.environ,
        "GPROCHAT_URL": server.url,
        "GPROCHAT_SECRET_KEY": server.service.secret_key or "",
        "GPROCHAT_GATEWAY_KEY": KEY,
    }
    command = [*GUNICORN, "--workers", "2", "--bind", f"unix:{path}"]
    process = await asyncio.create_subprocess_exec(
        *command, "gprochat.gateway:make_app()", env=environ
    )
    try:
        caller = Caller(session, "http://localhost")
        await until_it_listens(caller)
        responses = [await begin(session, caller, "chat") for _ in range(10)]
        process.send_signal(signal.SIGTERM)
        asyncio.get_running_loop().call_later(0.2, watched.proceed.set)
        replies = [await finish(response) for response in responses]
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return replies


@pytest.mark.anyio
async def test_under_any_runner_a_caller_who_leaves_ends_the_reply_at_once() -> None:
    # Neither aiohttp's worker for gunicorn nor `web.run_app` asks for this itself.
    watched = Watched("one ")
    async with serve(watched) as server, opened() as session:
        runner = web.AppRunner(make_app(model_of(server.service), key=KEY))
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            caller = Caller(session, f"http://127.0.0.1:{runner.addresses[0][1]}")
            response = await begin(session, caller, "chat")
            response.close()
            await in_time(watched.closed.wait())
        finally:
            await runner.cleanup()


async def until_it_listens(caller: Caller) -> None:
    for _ in range(200):
        try:
            await caller.send("GET", "/health")
        except aiohttp.ClientConnectionError:
            await asyncio.sleep(0.05)
        else:
            return
    raise TimeoutError


@asynccontextmanager
async def opened(
    connector: aiohttp.BaseConnector | None = None,
) -> AsyncGenerator[aiohttp.ClientSession, None]:
    """A session that outlives the gateway."""
    async with aiohttp.ClientSession(
        headers={"authorization": f"Bearer {KEY}"}, connector=connector
    ) as session:
        yield session


async def begin(session: aiohttp.ClientSession, caller: Caller, api: API) -> aiohttp.ClientResponse:
    """Wait for the head of a streamed response, which comes with its first piece."""
    url = f"{caller.url}{PATHS[api]}"
    return await session.post(url, json=request_of(api, stream=True))


async def finish(response: aiohttp.ClientResponse) -> Answer:
    return Answer(response.status, response.headers, await response.read())
