"""What ends a chat from outside: Ctrl-C, a reader that has enough, a full disk."""

import json
import signal
import subprocess
import threading
from pathlib import Path

import pytest
import trio

from gprochat.cli.loops import TRANSPORTS
from gprochat.server import in_thread, serve
from gprochat_core import Service
from tests.peers.scripted import ScriptedPeer, receive, set_event, until_client_closes

from .running import COMMAND, LIMIT, answer_of, background, environment

FULL = Path("/dev/full")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_ctrl_c_ends_the_answer_and_the_history_keeps_what_arrived(
    stalling: Service, tmp_path: Path, transport: str
) -> None:
    history = tmp_path / "history.json"
    options = ["--transport", transport, "--history", str(history)]
    with background("chat", *options, "wait", service=stalling) as process:
        assert process.stdout is not None
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
        with background("chat", *options, "Hello", service=service) as process:
            assert asked.wait(LIMIT)
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=LIMIT) == ("", "")
    assert process.returncode == 130
    assert not history.exists()


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


def test_ctrl_c_in_a_nursery_of_trio_is_still_ctrl_c() -> None:
    async def connect() -> None:
        async with trio.open_nursery():
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        TRANSPORTS["trio"](connect)


def test_other_failures_in_a_nursery_of_trio_stay_what_they_are() -> None:
    async def connect() -> None:
        async with trio.open_nursery():
            raise LookupError

    with pytest.raises(ExceptionGroup):
        TRANSPORTS["trio"](connect)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_reader_that_has_enough_is_no_traceback(
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


def test_a_reader_that_has_enough_leaves_the_history_what_arrived(
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


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_full_disk_behind_the_output_is_one_line(service: Service) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [*COMMAND, "chat", "Hello"],
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=environment(service),
            timeout=LIMIT,
        )
    assert (done.returncode, done.stderr) == (
        1,
        "gprochat: cannot go on: No space left on device\n",
    )


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
def test_a_stream_that_is_closed_from_the_start_is_no_traceback(
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


def test_a_service_that_fails_half_way_leaves_the_history_what_arrived(tmp_path: Path) -> None:
    history = tmp_path / "history.json"
    with (
        in_thread(serve(answer_of("half an answer", error=ValueError()))) as server,
        background("chat", "--history", str(history), "Hi", service=server.service) as process,
    ):
        process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert json.loads(history.read_text())[-1]["content"] == "half an answer"
