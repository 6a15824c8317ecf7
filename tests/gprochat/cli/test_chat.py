"""A chat: what it asks, what it remembers, and how it ends."""

import errno
import json
import os
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gprochat.cli.history import load
from gprochat.cli.loops import TRANSPORTS
from gprochat.server import in_thread, serve
from gprochat_core import Message, Service
from tests.peers.scripted import ScriptedPeer, receive, set_event, until_client_closes

from .running import (
    LIMIT,
    answer_of,
    background,
    forked,
    invoke,
    lines_of,
    stalling_answer,
)

RUSSIAN = "Как дела? 🙂"

SPOKEN = [Message("user", "Привет"), Message("assistant", "Hello 🙂")]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_answer_streams_over_each_transport(service: Service, transport: str) -> None:
    result = invoke("chat", "--transport", transport, RUSSIAN, service=service)
    assert (result.stdout, result.stderr, result.exit_code) == (RUSSIAN, "", 0)


def test_system_text_travels_before_the_question() -> None:
    heard: list[tuple[Message, ...]] = []

    async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
        heard.append(messages)
        yield "ok"

    with in_thread(serve(answer)) as server:
        invoke("chat", "--system", "Be brief.", "Hello", service=server.service)
        invoke(
            "chat", "--system", "Be brief.", "--encoding", "content", "Hi", service=server.service
        )
    assert heard == [
        (Message("user", "Be brief.\n\nHello"),),
        (Message("system", "Be brief."), Message("user", "Hi")),
    ]


def test_a_conversation_goes_on_where_its_history_ends(history: Path) -> None:
    with in_thread(serve(stalling_answer)) as server:
        first = invoke("chat", "--history", str(history), "one", service=server.service)
        second = invoke("chat", "--history", str(history), "two", service=server.service)
    assert (first.stdout, second.stdout) == ("1 heard: one", "3 heard: two")
    assert [item["content"] for item in json.loads(history.read_text())] == [
        "one",
        "1 heard: one",
        "two",
        "3 heard: two",
    ]


def test_new_system_text_takes_the_place_of_the_old(history: Path, service: Service) -> None:
    for system in ("old", "new"):
        invoke("chat", "--history", str(history), "--system", system, "Hi", service=service)
    roles = [item["role"] for item in json.loads(history.read_text())]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    assert load(history)[0] == Message("system", "new")


def test_system_text_in_the_history_stays(history: Path, service: Service) -> None:
    invoke("chat", "--history", str(history), "--system", "old", "Hi", service=service)
    invoke("chat", "--history", str(history), "Hi", service=service)
    assert load(history)[0] == Message("system", "old")


def test_what_arrived_before_an_error_is_shown() -> None:
    with in_thread(serve(answer_of("half ", "an answer Int", error=ValueError()))) as server:
        text = invoke("chat", "Hello", service=server.service)
        *pieces, error = lines_of(invoke("chat", "--json", "Hello", service=server.service).stdout)
    assert text.stdout == "half an answer Int"
    assert text.exit_code == 1
    assert text.stderr.count("\n") == 1
    assert "".join(piece["text"] for piece in pieces) == error["text"] == "half an answer Int"
    assert error["error"] == "InterruptedReply"


def test_an_empty_reply_is_reported() -> None:
    with in_thread(serve(answer_of())) as server:
        result = invoke("chat", "Hello", service=server.service)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("gprochat: the reply is empty")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_no_connection_is_one_line_that_says_what_to_do(transport: str) -> None:
    variables = {"GPROCHAT_SECRET_KEY": "k"}
    command = ("chat", "--transport", transport, "--url", "https://127.0.0.1:1", "--proxy", "none")
    result = invoke(*command, "Hello", variables=variables)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "check URL, network and proxy" in result.stderr


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_ctrl_c_ends_the_answer_and_the_history_keeps_what_arrived(
    stalling: Service, tmp_path: Path, transport: str
) -> None:
    history = tmp_path / "history.json"
    options = ["--transport", transport, "--history", str(history)]
    with forked("chat", *options, "wait", service=stalling) as process:
        begun = process.stdout.read(len("1 heard: "))
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=LIMIT)
    assert (begun + rest, errors, process.returncode) == ("1 heard: ", "", 130)
    assert json.loads(history.read_text()) == [
        {"role": "user", "content": "wait"},
        {"role": "assistant", "content": "1 heard: "},
    ]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_ctrl_c_before_the_answer_leaves_no_history(tmp_path: Path, transport: str) -> None:
    history = tmp_path / "history.json"
    asked = threading.Event()
    with ScriptedPeer([receive, set_event(asked), until_client_closes]) as peer:
        service = Service(peer.url, secret_key="k")
        options = ["--transport", transport, "--history", str(history)]
        with forked("chat", *options, "Hello", service=service) as process:
            assert asked.wait(LIMIT)
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=LIMIT) == ("", "")
    assert process.returncode == 130
    assert not history.exists()


def test_after_a_service_fails_half_way_the_history_keeps_what_arrived(tmp_path: Path) -> None:
    history = tmp_path / "history.json"
    with (
        in_thread(serve(answer_of("half an answer", error=ValueError()))) as server,
        forked("chat", "--history", str(history), "Hi", service=server.service) as process,
    ):
        process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert json.loads(history.read_text())[-1]["content"] == "half an answer"


def test_after_a_reader_closes_the_pipe_the_history_keeps_what_arrived(
    service: Service, tmp_path: Path
) -> None:
    history = tmp_path / "history.json"
    prompt = " ".join(map(str, range(40)))
    with background("chat", "--history", str(history), prompt, service=service) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        process.stdout.close()
        process.wait(LIMIT)
    question, reply = json.loads(history.read_text())
    assert question["content"] == prompt
    assert prompt.startswith(reply["content"])
    assert 0 < len(reply["content"]) < len(prompt)


def test_a_history_that_cannot_be_written_fails_after_the_answer(
    history: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", fail)
    result = invoke("chat", "--history", str(history), "Hi", service=service)
    assert (result.exit_code, result.stdout) == (1, "Hi")
    assert result.stderr.startswith("gprochat: cannot write the history")
