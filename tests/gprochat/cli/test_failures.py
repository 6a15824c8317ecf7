"""How a command ends when something is wrong: one line on standard error, and an exit code."""

import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from gprochat.cli.loops import TRANSPORTS
from gprochat.server import in_thread, serve
from gprochat_core import Service

from .running import (
    COMMAND,
    LIMIT,
    background,
    environment,
    invoke,
    lines_of,
    run_where_installed,
)

FULL = Path("/dev/full")


def test_an_error_is_one_line_and_one_json_line(service: Service) -> None:
    variables = {"GPROCHAT_SECRET_KEY": "another"}
    result = invoke("chat", "--json", "Hello", service=service, variables=variables)
    assert result.exit_code == 1
    (error,) = lines_of(result.stdout)
    assert error["type"] == "error"
    assert error["error"] == "SignatureRejected"
    assert error["text"] == ""
    assert result.stderr == f"gprochat: {error['message']}\n"
    assert "check the secret key" in error["message"]


def test_a_setting_that_cannot_be_used_is_a_json_line_too() -> None:
    result = invoke("chat", "--json", "--url", "chat.example", "Hello")
    assert result.exit_code == 1
    assert lines_of(result.stdout)[0]["error"] == "ConfigurationError"


def test_system_text_that_cannot_be_sent_is_a_json_line_too(service: Service) -> None:
    result = invoke("chat", "--json", "--system", "\udcff", "Hello", service=service)
    assert result.exit_code == 1
    assert lines_of(result.stdout)[0]["error"] == "InvalidMessages"


def test_an_unknown_command_is_wrong_usage() -> None:
    assert invoke("dance").exit_code == 2


def test_ctrl_c_is_a_json_line_too(stalling: Service) -> None:
    with background("chat", "--json", "wait", service=stalling) as process:
        assert process.stdout is not None
        begun = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=LIMIT)
    assert json.loads(begun) == {"type": "text", "text": "1 heard: "}
    assert json.loads(rest) == {
        "type": "error",
        "error": "KeyboardInterrupt",
        "message": "interrupted",
        "text": "1 heard: ",
    }
    assert process.returncode == 130


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_reader_that_closes_the_pipe_causes_no_traceback(
    service: Service, transport: str, options: list[str]
) -> None:
    prompt = "\n".join(map(str, range(40)))
    with background("chat", "--transport", transport, *options, prompt, service=service) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(LIMIT) == 141


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["chat", "--help"]])
def test_help_for_a_reader_that_is_gone_causes_no_traceback(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*COMMAND, *arguments],
            stdout=writing,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            timeout=LIMIT,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["chat", "Hello"], ["--help"], ["--version"]])
def test_a_full_disk_that_takes_no_output_is_one_line(
    service: Service, arguments: list[str]
) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=environment(service),
            timeout=LIMIT,
        )
    assert (done.returncode, done.stderr) == (
        1,
        "gprochat: the system reports: No space left on device\n",
    )


@pytest.mark.parametrize("command", [("chat", "Hi"), ("check",)])
def test_a_missing_password_is_told_in_the_commands_words(command: tuple[str, ...]) -> None:
    with in_thread(serve(password="open sesame", grace=0.0)) as server:
        result = invoke(*command, service=replace(server.service, password=None))
    assert result.exit_code == 1
    assert (
        "set the deployment's password: GPROCHAT_PASSWORD, --password or `gprochat login`"
        in result.output
    )


@pytest.mark.parametrize("command", [("chat", "Hi"), ("check",)])
def test_another_encoding_is_told_in_the_commands_words(
    command: tuple[str, ...], service: Service
) -> None:
    result = invoke(*command, service=replace(service, secret_key="another"))
    assert result.exit_code == 1
    assert "chatgpt-demo and its forks need --encoding content" in result.output


def test_a_file_that_cannot_be_read_is_named(home: Path) -> None:
    folder = home / "config" / "gprochat" / "services.json"
    (folder / "not empty").mkdir(parents=True)
    result = invoke("login", "--list")
    assert result.exit_code == 1
    assert result.stderr == f"gprochat: the system reports: {folder}: Is a directory\n"


@pytest.mark.parametrize(
    ("closed", "arguments", "status"),
    [
        ("<&-", ["Hello"], 0),
        (">&-", ["Hello"], 0),
        (">&-", ["--json", "Hello"], 0),
        ("2>&-", ["Hello"], 0),
        ("<&-", [], 2),
    ],
)
def test_a_standard_stream_closed_from_the_start_causes_no_traceback(
    service: Service, closed: str, arguments: list[str], status: int
) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, "chat", *arguments],
        capture_output=True,
        encoding="utf-8",
        env=environment(service),
        timeout=LIMIT,
    )
    assert done.returncode == status
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("installed", "arguments", "status", "extra"),
    [
        (["gprochat[cli]"], ["chat", "--transport", "trio", "Hi"], 2, "trio"),
        (["gprochat[httpx]", "click"], ["chat", "--local", "Hi"], 1, "server"),
        (["gprochat[httpx]", "click"], ["serve"], 1, "server"),
        (["click"], ["chat", "Hi"], 2, "aiohttp"),
    ],
)
def test_a_missing_library_is_one_line_that_names_the_extra(
    installed: list[str], arguments: list[str], status: int, extra: str
) -> None:
    done = run_where_installed(installed, *arguments)
    assert done.returncode == status
    assert f"pip install 'gprochat[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
