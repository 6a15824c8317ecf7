"""The command for programs that speak OpenAI's API: gateway."""

import asyncio
import json
import signal
import threading
from collections.abc import AsyncIterator, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from gprochat.cli.services import Services
from gprochat.server import in_thread, serve
from gprochat_core import Message, Service
from tests.peers.scripted import ScriptedPeer, receive, send
from tests.peers.wire import chunked

from .running import LIMIT, Forked, forked, invoke

KEY = {"GPROCHAT_GATEWAY_KEY": "the-gateways-key"}
HEADERS = {"authorization": "Bearer the-gateways-key"}


@contextmanager
def running(
    *options: str, service: Service | None = None, variables: dict[str, str] | None = None
) -> Generator[tuple[Forked, str, str], None, None]:
    """Run the command; give its process, and the base URL and the key that it prints."""
    with forked("gateway", *options, service=service, variables=variables) as process:
        settings = dict(
            process.stdout.readline().strip().removeprefix("export ").split("=", 1)
            for _ in range(2)
        )
        yield process, settings["OPENAI_BASE_URL"], settings["OPENAI_API_KEY"]


def ask(base_url: str, key: str, model: str = "gprochat", text: str = "Hi") -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    headers = {"authorization": f"Bearer {key}"}
    url = f"{base_url}/chat/completions"
    return httpx.post(url, json=body, headers=headers, trust_env=False, timeout=LIMIT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_base_url_and_key_for_the_shell_and_stops_at_a_signal(
    number: signal.Signals, service: Service
) -> None:
    with running(service=service) as (process, url, key):
        reply = ask(url, key, text="Secret question")
        process.send_signal(number)
        output, log = process.communicate(timeout=LIMIT)
    assert reply.json()["choices"][0]["message"]["content"] == "Secret question"
    assert len(key) >= 32
    assert process.returncode == 0
    assert output == ""
    assert f"{reply.headers['x-request-id']} POST /v1/chat/completions 200 whole" in log
    for told in ("Secret question", key, service.secret_key):
        assert str(told) not in log


def test_its_key_is_that_of_the_environment(service: Service) -> None:
    with running(service=service, variables=KEY) as (_, url, key):
        assert key == "the-gateways-key"
        assert ask(url, "other").status_code == 401
        assert ask(url, key).status_code == 200


def test_without_a_key_it_takes_any(service: Service) -> None:
    with running("--no-key", service=service, variables=KEY) as (_, url, key):
        assert key == "none"
        assert ask(url, "other").status_code == 200


def test_without_a_key_no_other_machine_may_reach_it(service: Service) -> None:
    result = invoke("gateway", "--no-key", "--host", "0.0.0.0", service=service)
    assert result.exit_code == 1
    assert "loopback" in result.stderr


def test_it_takes_a_file_of_deployments(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "deployments.toml"
    text = f'[deployments.mine]\nurl = "{service.url}"\nsecret_key_env = "MY_KEY"\n'
    file.write_text(text, encoding="utf-8")
    variables = {"MY_KEY": service.secret_key or ""}
    with running("--config", str(file), variables=variables) as (_, url, key):
        assert ask(url, key, "mine").status_code == 200
        assert ask(url, key, "gprochat").status_code == 404


def test_options_reach_the_gateway(service: Service) -> None:
    options = ["--strict", "--allow-host", "a.example", "--allow-origin", "https://b.example"]
    with running(*options, service=service, variables=KEY) as (_, url, _key):
        statuses = [
            httpx.get(f"{url}/models", headers={**HEADERS, **headers}, trust_env=False).status_code
            for headers in (
                {"host": "a.example"},
                {"host": "c.example"},
                {"origin": "https://b.example"},
                {"origin": "https://c.example"},
            )
        ]
        body = {"model": "gprochat", "input": "Hi", "temperature": 1}
        strict = httpx.post(f"{url}/responses", json=body, headers=HEADERS, trust_env=False)
    assert statuses == [200, 403, 200, 403]
    assert strict.status_code == 400


@pytest.mark.parametrize(
    ("variables", "told"),
    [({}, "GPROCHAT_URL"), ({"GPROCHAT_URL": "http://127.0.0.1:1"}, "GPROCHAT_SECRET_KEY")],
)
def test_without_a_deployment_it_says_in_one_line_what_to_set(
    variables: dict[str, str], told: str
) -> None:
    with forked("gateway", variables=variables) as process:
        _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 2
    assert told in errors
    assert errors.count("\n") == 1


def test_it_takes_a_service_that_login_has_kept(service: Service) -> None:
    services = Services()
    services.keep("work", service)
    services.keep("other", Service("http://127.0.0.1:1", secret_key="made-up"))
    with running("--service", "work") as (_, url, key):
        assert ask(url, key).json()["choices"][0]["message"]["content"] == "Hi"


def test_its_requests_are_written_in_the_encoding_that_it_is_given() -> None:
    with ScriptedPeer([receive, send(chunked("fine"))]) as peer:
        service = Service(peer.url, secret_key="made-up")
        with running("--encoding", "content", service=service) as (_, url, key):
            assert ask(url, key).status_code == 200
    sent = json.loads(peer.requests[0].body)
    assert sent["messages"] == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    "option", [["--url", "http://127.0.0.1:1"], ["--secret-key"], ["--encoding", "content"]]
)
def test_a_file_of_deployments_leaves_no_room_for_another(
    option: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "deployments.toml"
    file.touch()
    result = invoke("gateway", *option, variables={"GPROCHAT_GATEWAY_CONFIG": str(file)})
    assert result.exit_code == 2
    assert "deployments.toml describes the deployments" in result.stderr


def test_sigterm_under_load_lets_replies_finish() -> None:
    streams = 30
    begun = threading.Barrier(streams + 1)

    async def slow(messages: tuple[Message, ...]) -> AsyncIterator[str]:
        yield "one "
        for _ in range(20):
            await asyncio.sleep(0.05)
            yield "more "
        yield "end"

    def read(url: str, key: str) -> str:
        body = {"model": "gprochat", "stream": True, "input": "Hi"}
        headers = {"authorization": f"Bearer {key}"}
        with httpx.stream(
            "POST",
            f"{url}/responses",
            json=body,
            headers=headers,
            trust_env=False,
            timeout=LIMIT,
        ) as response:
            lines = response.iter_lines()
            next(lines)
            begun.wait(LIMIT)
            return "\n".join(lines)

    with (
        in_thread(serve(slow, grace=0.0)) as server,
        ThreadPoolExecutor(streams) as threads,
        running(service=server.service) as (process, url, key),
    ):
        reading = [threads.submit(read, url, key) for _ in range(streams)]
        begun.wait(LIMIT)
        process.send_signal(signal.SIGTERM)
        texts = [each.result() for each in reading]
        process.communicate(timeout=LIMIT)
        with pytest.raises(httpx.ConnectError):
            ask(url, key)
    assert process.returncode == 0
    assert ["event: response.completed" in text for text in texts] == [True] * streams
