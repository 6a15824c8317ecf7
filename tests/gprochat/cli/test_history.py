"""The history file: whole or not at all, whatever happens."""

import errno
import json
import os
import resource
import stat
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprochat.cli.failures import Failed, WrongUsage
from gprochat.cli.history import load, save
from gprochat.server import in_thread, serve
from gprochat_core import Message, Service

from .running import invoke, stalling_answer

SPOKEN = [Message("user", "Привет"), Message("assistant", "Hello 🙂")]

WRITTEN = [
    {"role": "user", "content": "Привет"},
    {"role": "assistant", "content": "Hello 🙂"},
]

not_as_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


@pytest.fixture
def history(tmp_path: Path) -> Path:
    return tmp_path / "history.json"


def files_beside(history: Path) -> list[str]:
    return [path.name for path in history.parent.iterdir()]


texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), texts)))
def test_what_is_saved_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, messages: list[Message]
) -> None:
    path = tmp_path_factory.getbasetemp() / f"history-{os.getpid()}.json"
    save(path, messages)
    assert load(path) == messages


def test_a_history_is_a_list_of_role_and_content_for_people_to_read(history: Path) -> None:
    save(history, SPOKEN)
    text = history.read_text(encoding="utf-8")
    assert json.loads(text) == WRITTEN
    assert "Привет" in text


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


def test_a_new_history_is_for_its_owner_alone(history: Path) -> None:
    save(history, SPOKEN)
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_a_history_keeps_its_permissions(history: Path) -> None:
    history.write_text("[]")
    history.chmod(0o640)
    save(history, SPOKEN)
    assert stat.S_IMODE(history.stat().st_mode) == 0o640


def test_a_link_to_a_history_stays_a_link(history: Path) -> None:
    link = history.with_name("link.json")
    link.symlink_to(history)
    save(link, SPOKEN)
    assert link.is_symlink()
    assert load(history) == SPOKEN


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is not JSON"),
        (b'[{"role": "user", "conte', "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"role": "user", "content": "Hi"}', "is not a JSON list"),
        (b"[1]", "message 0"),
        (b'[{"role": "user", "content": "Hi"}, {"role": "king", "content": "Hi"}]', "message 1"),
        (b'[{"role": "user", "content": "\\ud800"}]', "lone surrogate"),
    ],
)
def test_a_broken_history_is_one_line_and_stays_untouched(
    history: Path, service: Service, content: bytes, complaint: str
) -> None:
    history.write_bytes(content)
    result = invoke("chat", "--history", str(history), "Hi", service=service)
    assert (result.exit_code, result.stdout) == (2, "")
    assert complaint in result.stderr
    assert "mend or remove it" in result.stderr
    assert result.stderr.count("\n") == 1
    assert history.read_bytes() == content


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_only_a_regular_file_is_a_history(history: Path, service: Service, kind: str) -> None:
    if kind == "folder":
        history.mkdir()
    else:
        os.mkfifo(history)
    result = invoke("chat", "--history", str(history), "Hi", service=service)
    assert result.exit_code == 2
    assert "is not a regular file" in result.stderr
    with pytest.raises(WrongUsage, match="regular"):
        save(history, SPOKEN)


def test_a_folder_that_is_not_there_is_told_before_anything_is_asked(
    tmp_path: Path, service: Service
) -> None:
    history = tmp_path / "no" / "history.json"
    result = invoke("chat", "--history", str(history), "Hi", service=service)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no writable folder" in result.stderr


@not_as_root
def test_a_history_that_may_not_be_read_is_wrong_usage(history: Path) -> None:
    history.write_text("[]")
    history.chmod(0)
    with pytest.raises(WrongUsage, match="Permission denied"):
        load(history)


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_whatever_fails_leaves_the_old_history_alone(
    history: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save(history, SPOKEN[:1])
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(Failed, match="No space left on device; it is as it was before"):
        save(history, SPOKEN)
    assert load(history) == SPOKEN[:1]
    assert files_beside(history) == [history.name]


def test_ctrl_c_while_writing_leaves_the_old_history_alone(
    history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    save(history, SPOKEN[:1])
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(history, SPOKEN)
    assert load(history) == SPOKEN[:1]
    assert files_beside(history) == [history.name]


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of POSIX")
def test_a_file_that_cannot_grow_leaves_the_old_history_alone(history: Path) -> None:
    save(history, SPOKEN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(Failed, match="File too large"):
            save(history, [*SPOKEN, Message("user", "x" * 10_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load(history) == SPOKEN
    assert files_beside(history) == [history.name]


def test_a_history_that_cannot_be_written_fails_after_the_answer(
    history: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", fail)
    result = invoke("chat", "--history", str(history), "Hi", service=service)
    assert (result.exit_code, result.stdout) == (1, "Hi")
    assert result.stderr.startswith("gprochat: cannot write the history")
