"""The history file is written whole or not at all."""

import errno
import json
import os
import resource
import stat
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprochat.cli.failures import Failed, WrongUsage
from gprochat.cli.history import load, locked, save
from gprochat_core import Message, Service

from .running import invoke, killed_at_each_call, on_terminal

SPOKEN = [Message("user", "Привет"), Message("assistant", "Hello 🙂")]

WRITTEN = [
    {"role": "user", "content": "Привет"},
    {"role": "assistant", "content": "Hello 🙂"},
]

not_as_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")

texts = st.text(st.characters(exclude_categories=["Cs"]))


def files_beside(history: Path) -> list[str]:
    return [path.name for path in history.parent.iterdir()]


@given(st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), texts)))
def test_what_is_saved_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, messages: list[Message]
) -> None:
    path = tmp_path_factory.getbasetemp() / f"history-{os.getpid()}.json"
    save(path, messages)
    assert load(path) == messages


def test_a_history_is_readable_json_with_role_and_content(history: Path) -> None:
    save(history, SPOKEN)
    text = history.read_text(encoding="utf-8")
    assert json.loads(text) == WRITTEN
    assert "Привет" in text


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
    assert "correct or remove it" in result.stderr
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


def test_a_missing_folder_is_an_error_before_anything_is_asked(
    tmp_path: Path, service: Service
) -> None:
    history = tmp_path / "no" / "history.json"
    result = invoke("chat", "--history", str(history), "Hi", service=service)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is not a writable folder" in result.stderr


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("loop", "Too many levels of symbolic links"),
        ("x" * 300, "File name too long"),
        ("file/history.json", "Not a directory"),
    ],
)
def test_a_path_that_cannot_be_reached_is_one_line(
    tmp_path: Path, service: Service, name: str, reason: str
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("no folder")
    path = tmp_path / name
    result = invoke("chat", "--history", str(path), "Hi", service=service)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"gprochat: cannot write the history {path}: {reason}\n"
    for use in (partial(save, path, SPOKEN), partial(load, path)):
        with pytest.raises(Failed, match=reason):
            use()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "loop"]


@not_as_root
def test_a_history_that_may_not_be_read_is_wrong_usage(history: Path) -> None:
    history.write_text("[]")
    history.chmod(0)
    with pytest.raises(WrongUsage, match="Permission denied"):
        load(history)


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_a_failure_leaves_the_old_history_unchanged(
    history: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save(history, SPOKEN[:1])
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(Failed, match="No space left on device; the file is unchanged"):
        save(history, SPOKEN)
    assert load(history) == SPOKEN[:1]
    assert files_beside(history) == [history.name]


def test_ctrl_c_while_writing_leaves_the_old_history_unchanged(
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
def test_a_file_that_cannot_grow_leaves_the_old_history_unchanged(history: Path) -> None:
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


def test_chats_that_continue_one_history_at_once_lose_no_turn_silently(
    service: Service, history: Path
) -> None:
    with ExitStack() as stack:
        options = ("--plain", "--history", str(history))
        chats = [
            stack.enter_context(
                on_terminal("chat", *options, f"question {number}", service=service)
            )
            for number in range(5)
        ]
        statuses = [chat.wait() for chat in chats]
    asked = [message.text for message in load(history) if message.role == "user"]
    for number, (status, chat) in enumerate(zip(statuses, chats, strict=True)):
        if status == 0:
            assert asked.count(f"question {number}") == 1
        else:
            assert chat.seen.startswith("gprochat: another chat uses the history")
    assert 0 in statuses
    assert files_beside(history) == [history.name]


def test_a_kill_at_any_call_of_the_system_leaves_the_old_history_or_the_new(history: Path) -> None:
    later = [*SPOKEN, Message("user", "later")]
    save(history, SPOKEN)
    before, kills = SPOKEN, 0
    for killed in killed_at_each_call(partial(save, history, later)):
        kills += killed
        assert load(history) in (before, later)
        before = load(history)
        assert killed or before == later
        # Also what a killed chat leaves behind is for its owner alone.
        assert {stat.S_IMODE(each.stat().st_mode) for each in history.parent.iterdir()} == {0o600}
    assert kills >= 4


def test_without_locks_as_on_windows_a_history_can_be_used(
    history: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    for _ in range(2):
        assert invoke("chat", "--history", str(history), "Hi", service=service).exit_code == 0
    assert len(load(history)) == 4
    assert files_beside(history) == [history.name]


def test_a_history_that_another_chat_uses_is_left_alone_before_anything_is_asked(
    history: Path,
) -> None:
    save(history, SPOKEN)
    nowhere = Service("http://127.0.0.1:1", secret_key="k")
    with locked(history):
        result = invoke("chat", "--history", str(history), "Hello", service=nowhere)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"gprochat: another chat uses the history {history}")
    assert load(history) == SPOKEN
    with locked(history), pytest.raises(Failed), locked(history):
        pass
    with locked(history):
        pass
    assert files_beside(history) == [history.name]


def test_a_lock_is_free_again_after_its_chat_was_killed(service: Service, history: Path) -> None:
    history.with_name(f".{history.name}.lock").write_bytes(b"")
    assert invoke("chat", "--history", str(history), "Hi", service=service).exit_code == 0
    assert files_beside(history) == [history.name]


def test_a_lock_on_a_file_that_its_owner_has_removed_is_taken_anew(
    history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = history.with_name(f".{history.name}.lock")
    inside: list[bool] = []

    def flock(file: IO[bytes], operation: int) -> None:
        # The other chat ends between the opening and the locking here.
        if not inside:
            beside.unlink()
        inside.append(beside.exists())

    monkeypatch.setattr("fcntl.flock", flock)
    with locked(history):
        assert inside == [False, True]
