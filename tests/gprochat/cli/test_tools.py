"""The commands for people who run or debug a deployment: sign, curl, serve."""

import json
import shlex
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from time import time_ns

import httpx
import pytest

from gprochat_core import Acceptance, Draft, Message, Service, Signer
from tests.peers.scripted import ScriptedPeer, receive, send
from tests.peers.wire import chunked

from .running import LIMIT, background, forked, invoke, on_terminal, run, url_of

KEY = {"GPROCHAT_SECRET_KEY": "ключ-Ключ"}
TEXT = "Как дела? 🙂"
SIGNATURE = "0a64086a3f19d644bdb5ddf22c9403dcdaa9415f0c7abdfc156fd94d2ec6b333"


def test_sign_prints_the_signature() -> None:
    result = invoke("sign", "--time", "1700000000000", TEXT, variables=KEY)
    assert (result.stdout, result.stderr) == (f"{SIGNATURE}\n", "")


def test_sign_takes_standard_input_as_it_is() -> None:
    command = ("sign", "--time", "1700000000000", "-")
    assert invoke(*command, variables=KEY, stdin=TEXT).stdout == f"{SIGNATURE}\n"
    assert invoke(*command, variables=KEY, stdin=f"{TEXT}\n").stdout != f"{SIGNATURE}\n"


def test_sign_without_a_time_tells_which_it_signed() -> None:
    result = invoke("sign", TEXT, variables=KEY)
    time_ms = int(result.stderr.removeprefix("time "))
    assert abs(time_ms - time_ns() // 1_000_000) < LIMIT * 1000
    assert Signer("ключ-Ключ").verify(result.stdout.strip(), time_ms, TEXT)


def test_sign_works_with_an_empty_key() -> None:
    result = invoke("sign", "--time", "0", "", variables={"GPROCHAT_SECRET_KEY": ""})
    assert result.stdout.startswith("d0609c4cf79f05d8")


def test_sign_asks_for_the_key_without_echo() -> None:
    with on_terminal("sign", "--secret-key", "--time", "1700000000000", TEXT) as terminal:
        terminal.expect("Secret key:")
        terminal.type("ключ-Ключ\r")
        terminal.expect(SIGNATURE)
        assert terminal.wait() == 0
    assert "Ключ" not in terminal.seen


def test_sign_without_a_key_and_a_terminal_is_wrong_usage() -> None:
    with forked("sign", TEXT) as process:
        _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 2
    assert "set GPROCHAT_SECRET_KEY" in errors


def test_curl_prints_a_command_that_holds_as_a_request(service: Service) -> None:
    result = invoke("curl", "it's\n$HOME `id`", service=service)
    words = shlex.split(result.stdout)
    body = words[words.index("--data-raw") + 1].encode()
    accepted = Acceptance(service).accept(body, time_ns() // 1_000_000)
    assert accepted.messages == (Message("user", "it's\n$HOME `id`"),)
    assert service.endpoint in words
    assert "content-type: text/plain;charset=UTF-8" in words


def test_curl_prints_utf_8_whatever_the_locale(service: Service) -> None:
    done = run("curl", "字", service=service, variables={"PYTHONIOENCODING": "latin-1:strict"})
    assert '"字"' in done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_prints_a_command_that_works(service: Service) -> None:
    command = invoke("curl", TEXT, service=service).stdout
    done = subprocess.run(
        ["sh", "-c", command.replace("curl", "curl --noproxy '*'", 1)],
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT,
    )
    assert done.stdout.endswith(TEXT)
    assert done.stderr == ""


def test_curl_never_shows_the_secret_key(service: Service) -> None:
    result = invoke("curl", "Hello", service=service)
    assert service.secret_key is not None
    assert service.secret_key not in result.output


def test_curl_warns_of_the_password_it_shows(service: Service) -> None:
    without = invoke("curl", "Hello", service=service)
    result = invoke("curl", "Hello", service=service, variables={"GPROCHAT_PASSWORD": "sesame"})
    assert without.stderr == ""
    assert "sesame" in result.stdout
    assert result.stderr.startswith("gprochat: this command contains the site password")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_prints_its_url_and_stops_at_a_signal(number: signal.Signals) -> None:
    with background("serve", variables=KEY) as process:
        url = url_of(process)
        asked = invoke("chat", "--url", url, "Hello", variables=KEY)
        process.send_signal(number)
        assert process.communicate(timeout=LIMIT) == ("", "")
    assert asked.stdout == "Hello"
    assert process.returncode == 0


def test_serve_prints_its_url_and_a_fresh_key_as_lines_for_the_shell() -> None:
    with forked("serve") as process:
        url = url_of(process)
        assert process.stdout is not None
        name, _, key = process.stdout.readline().strip().partition("=")
        variables = {"GPROCHAT_URL": url, "GPROCHAT_SECRET_KEY": key}
        asked = invoke("chat", "Hi", variables=variables)
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=LIMIT)
    assert name == "export GPROCHAT_SECRET_KEY"
    assert len(key) >= 32
    assert asked.stdout == "Hi"
    assert rest == ("", "")


def test_serve_says_on_a_terminal_what_to_do() -> None:
    with on_terminal("serve") as terminal:
        terminal.expect("export GPROCHAT_SECRET_KEY=")
        terminal.expect("serving; run the above in another terminal; Ctrl-C stops")
        terminal.type("\x03")
        assert terminal.wait() == 0


def test_serve_logs_a_line_for_each_request_if_asked_to() -> None:
    with forked("serve", "--log", variables=KEY) as process:
        url = url_of(process)
        invoke("chat", "--url", url, "Hi", variables=KEY)
        invoke("chat", "--url", url, "Hi", variables={"GPROCHAT_SECRET_KEY": "another"})
        process.send_signal(signal.SIGTERM)
        _, logged = process.communicate(timeout=LIMIT)
    accepted, refused = logged.splitlines()
    assert '127.0.0.1 "POST /api/generate HTTP/1.1" 200 ' in accepted
    assert '127.0.0.1 "POST /api/generate HTTP/1.1" 401 ' in refused


def test_serve_takes_the_environments_password() -> None:
    with forked("serve", variables={**KEY, "GPROCHAT_PASSWORD": "sesame"}) as process:
        url = url_of(process)
        refused = invoke("chat", "--url", url, "Hi", variables=KEY)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT)
    assert refused.exit_code == 1
    assert "Invalid password" in refused.stderr


@pytest.mark.parametrize(
    ("options", "age", "accepted"),
    [
        ([], 200, True),
        ([], 400, False),
        (["--freshness", "60"], 200, False),
        (["--freshness", "0.5e3"], 400, True),
        (["--freshness", "none"], 10**9, True),
    ],
)
def test_serve_takes_how_old_a_request_may_be(options: list[str], age: int, accepted: bool) -> None:
    with forked("serve", *options, variables=KEY) as process:
        service = Service(url_of(process), secret_key=KEY["GPROCHAT_SECRET_KEY"])
        request = Draft(service, [Message("user", "Hi")]).sign(time_ns() // 1_000_000 - age * 1000)
        response = httpx.post(request.url, content=request.body, trust_env=False)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT)
    assert response.status_code == (200 if accepted else 401)


@pytest.mark.parametrize("freshness", ["", "-1", "nan", "inf", "1e10", "5 minutes"])
def test_serve_refuses_another_freshness(freshness: str) -> None:
    result = invoke("serve", "--freshness", freshness, variables=KEY)
    assert result.exit_code == 2
    assert "a number of seconds, 0 or more, or none" in result.stderr


def test_serve_takes_host_names_to_allow() -> None:
    options = ["--allow-host", "chat.example", "--allow-host", "chat.test"]
    with forked("serve", *options, variables=KEY) as process:
        url = url_of(process)
        statuses = [
            httpx.get(url, headers={"host": name}, trust_env=False).status_code
            for name in ("chat.example", "chat.test", "evil.example")
        ]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT)
    assert statuses == [404, 404, 403]


@pytest.mark.parametrize("command", ["serve", "gateway"])
def test_a_port_that_is_in_use_is_named(command: str, service: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = invoke(command, "--port", str(port), service=service)
    assert result.exit_code == 1
    assert result.stderr == (
        f"gprochat: port {port} is in use; choose another --port, or leave it out\n"
    )


@pytest.mark.parametrize("host", ["host.invalid", "a..b", "x" * 80])
@pytest.mark.parametrize("command", ["serve", "gateway"])
def test_a_host_without_an_address_is_named(command: str, host: str, service: Service) -> None:
    result = invoke(command, "--host", host, service=service)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"gprochat: the host {host} has no address: ")


def test_serve_answers_with_an_openai_compatible_api() -> None:
    events = [
        {"choices": [{"delta": {"content": "Привет"}}]},
        {"choices": [{"delta": {"content": "!"}, "finish_reason": "stop"}]},
    ]
    stream = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    with ScriptedPeer(
        [receive, send(chunked(stream, fields=("content-type: text/event-stream",)))]
    ) as api:
        options = ["--reply", "openai", "--openai-url", f"{api.url}/v1", "--openai-model", "m"]
        variables = {**KEY, "OPENAI_API_KEY": "other", "GPROCHAT_OPENAI_KEY": "api-key"}
        with forked("serve", *options, variables=variables) as process:
            url = url_of(process)
            asked = invoke("chat", "--url", url, "Hi", variables=KEY)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=LIMIT)
    assert asked.stdout == "Привет!"
    (request,) = api.requests
    assert request.line == "POST /v1/chat/completions HTTP/1.1"
    assert request.field("authorization") == "Bearer api-key"
    assert json.loads(request.body)["model"] == "m"


def test_serve_with_an_api_needs_a_model() -> None:
    result = invoke("serve", "--reply", "openai", variables=KEY)
    assert result.exit_code == 2
    assert "needs --openai-model" in result.stderr


@pytest.mark.parametrize("option", ["--openai-url", "--openai-model"])
def test_serve_refuses_the_options_of_an_api_that_it_does_not_ask(option: str) -> None:
    result = invoke("serve", option, "http://127.0.0.1:9/v1", variables=KEY)
    assert result.exit_code == 2
    assert "need --reply openai" in result.stderr


def test_no_command_shows_a_secret(service: Service, tmp_path: Path) -> None:
    variables = {"GPROCHAT_PASSWORD": "open-sesame", "GPROCHAT_SECRET_KEY": "very-secret"}
    history = str(tmp_path / "history.json")
    for command in (
        ("chat", "--json", "Hi"),
        ("chat", "--history", history, "Hi"),
        ("check",),
        ("sign", "Hi"),
        ("chat", "--url", "nonsense", "Hi"),
        ("chat", "--proxy", "nonsense", "Hi"),
    ):
        output = invoke(*command, service=service, variables=variables).output
        assert "open-sesame" not in output
        assert "very-secret" not in output
