"""Conversations are kept in private files, whatever ends the command."""

import errno
import os
import stat
import sys
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprochat.cli.kept import Conversation, Keeper, conversations, last_with
from gprochat_core import Message, Service

from .running import go_on, invoke, killed_at_each_call, on_terminal

SERVICE = "https://chat.example"

ONE = [Message("user", "Привет\n"), Message("assistant", "Hello 🙂")]
TWO = [*ONE, Message("user", "two"), Message("assistant", "fine")]
OTHER = [*ONE, Message("user", "two"), Message("assistant", "better")]

texts = st.text(st.characters(exclude_categories=["Cs"]))
talks = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), texts))


def kept() -> list[list[Message]]:
    return [conversation.messages for conversation in conversations()]


def only() -> Conversation:
    (conversation,) = conversations()
    return conversation


def test_a_conversation_is_kept_and_private(service: Service, home: Path) -> None:
    invoke("chat", "Hello", service=service)
    conversation = only()
    assert conversation.messages == [Message("user", "Hello"), Message("assistant", "Hello")]
    assert conversation.service == service.url
    assert conversation.path.is_relative_to(home / "data")
    assert stat.S_IMODE(conversation.path.stat().st_mode) == 0o600
    for folder in conversation.path.parents[:2]:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_nothing_is_kept_if_asked_not_to(service: Service, home: Path) -> None:
    invoke("chat", "--no-save", "Hello", service=service)
    invoke("chat", "--history", str(home / "talk.json"), "Hello", service=service)
    with on_terminal("chat", "--no-save", service=service) as terminal:
        terminal.enter("Hi")
        terminal.expect("Hi")
        terminal.enter("/quit")
        assert terminal.wait() == 0
    assert not (home / "data").exists()


def test_the_last_conversation_is_continued(stalling: Service) -> None:
    invoke("chat", "one", service=stalling)
    assert invoke("chat", "--continue", "two", service=stalling).stdout == "3 heard: two"
    assert invoke("chat", "-c", "three", service=stalling).stdout == "5 heard: three"
    assert len(only().messages) == 6


def test_only_a_conversation_with_the_same_service_is_continued(service: Service) -> None:
    Keeper(SERVICE).save(ONE)
    result = invoke("chat", "-c", "Hello", service=service)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no conversation with" in result.stderr


def test_a_conversation_with_the_built_in_service_is_continued() -> None:
    invoke("chat", "--local", "one")
    assert invoke("chat", "--local", "-c", "two").exit_code == 0
    assert [message.text for message in only().messages] == ["one", "one", "two", "two"]


@pytest.mark.parametrize("option", ["-c", "--no-save"])
def test_a_history_file_takes_no_further_option(service: Service, option: str) -> None:
    result = invoke("chat", "--history", "talk.json", option, "Hi", service=service)
    assert result.exit_code == 2
    assert "--history FILE names the conversation" in result.stderr


def test_a_conversation_that_begins_anew_leaves_the_one_before_as_it_was(
    stalling: Service,
) -> None:
    with on_terminal("chat", service=stalling) as terminal:
        terminal.enter("one")
        terminal.expect("1 heard: one")
        terminal.enter("/reset")
        terminal.enter("two")
        terminal.expect("1 heard: two")
        terminal.enter("/retry")
        terminal.expect("1 heard: two")
        terminal.enter("/quit")
        assert terminal.wait() == 0
    assert [[message.text for message in messages] for messages in kept()] == [
        ["two", "1 heard: two"],
        ["one", "1 heard: one"],
    ]


@given(st.lists(talks, min_size=1, max_size=5))
def test_what_is_kept_last_is_read(states: list[list[Message]]) -> None:
    keeper = Keeper(SERVICE)
    for messages in states:
        keeper.save(messages)
    found = last_with(SERVICE)
    assert (found.messages if found and states[-1] else []) == states[-1]
    for conversation in list(conversations()):
        conversation.path.unlink()


def test_however_much_of_the_last_change_was_written_no_change_before_it_is_lost() -> None:
    keeper = Keeper(SERVICE)
    sizes = [0]
    for state in (ONE, TWO, OTHER):
        keeper.save(state)
        sizes.append(only().path.stat().st_size)
    path = only().path
    data = path.read_bytes()
    for size in range(1, len(data)):
        path.write_bytes(data[:size])
        state = [[], ONE, TWO, OTHER][sum(size >= each - 1 for each in sizes[1:])]
        assert next(iter(kept()), []) == state
        # A chat that goes on with it appends its change whole.
        with path.open("ab") as file:
            appended = b'{"keep": 0, "add": ["new"]}\n'
            file.write((b"" if data[:size].endswith(b"\n") else b"\n") + appended)
        assert kept() == [[Message("user", "new")]]


@pytest.mark.parametrize("damage", [b"[" * 100_000, b"\xff", b"[]", b"5", b'{"keep": "x"}'])
def test_a_line_that_is_damaged_costs_no_other_line(damage: bytes) -> None:
    keeper = Keeper(SERVICE)
    keeper.save(ONE)
    with only().path.open("ab") as file:
        file.write(damage + b"\n")
    keeper.save(TWO)
    assert kept() == [TWO]


def test_a_kill_at_any_call_of_the_system_loses_nothing_that_was_kept() -> None:
    with closing(Keeper(SERVICE)) as keeper:
        keeper.save(ONE)
    conversation, before, kills = only(), ONE, 0
    for killed in killed_at_each_call(partial(go_on, conversation, TWO)):
        kills += killed
        assert only().messages in (before, TWO)
        before = only().messages
        assert killed or before == TWO
    assert kills >= 5


def test_two_chats_that_continue_one_conversation_lose_nothing(
    stalling: Service,
) -> None:
    invoke("chat", "one", service=stalling)
    with (
        on_terminal("chat", "-c", service=stalling) as first,
        on_terminal("chat", "-c", service=stalling) as second,
    ):
        for terminal in (first, second):
            terminal.expect("continues a conversation of 2 messages\r\n")
        for terminal in (first, second):
            terminal.enter("two")
            terminal.expect("3 heard: two")
        for terminal in (first, second):
            terminal.enter("/quit")
            assert terminal.wait() == 0
    assert "continues a copy" in first.seen + second.seen
    assert [len(messages) for messages in kept()] == [4, 4]


def test_chats_at_once_are_all_kept(service: Service) -> None:
    with ExitStack() as stack:
        chats = [
            stack.enter_context(on_terminal("chat", f"question {number}", service=service))
            for number in range(4)
        ]
        assert [chat.wait() for chat in chats] == [0] * 4
    assert {messages[0].text for messages in kept()} == {f"question {n}" for n in range(4)}


def test_a_disk_that_is_full_is_one_complaint_and_the_next_turn_is_kept_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Keeper(SERVICE)
    keeper.save(ONE)
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        write(descriptor, data[:9])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        keeper.save(TWO)
        keeper.save(TWO)
    assert capsys.readouterr().err.count("is not kept: No space left on device") == 1
    assert kept() == [ONE]
    keeper.save(OTHER)
    assert kept() == [OTHER]


@pytest.mark.parametrize("folder", ["data", "data/gprochat", "data/gprochat/conversations"])
def test_a_folder_that_cannot_be_written_is_no_reason_not_to_chat(
    service: Service, home: Path, folder: str
) -> None:
    (home / folder).parent.mkdir(parents=True, exist_ok=True)
    (home / folder).write_text("no folder")
    result = invoke("chat", "Hello", service=service)
    assert (result.exit_code, result.stdout) == (0, "Hello")
    assert result.stderr.startswith("gprochat: this conversation is not kept: ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["history"], "no conversation has been kept yet"),
        (["history", "show"], "no conversation has been kept yet"),
        (["chat", "-c", "--url", "http://127.0.0.1:1", "Hi"], "there is no conversation with"),
        (["chat", "Hi"], "no URL: run `gprochat login`"),
        (["login", "--list"], "no service has been kept yet"),
        (["logout"], "there is no service default"),
    ],
)
def test_reading_makes_no_folder(home: Path, arguments: list[str], told: str) -> None:
    result = invoke(*arguments, variables={"GPROCHAT_SECRET_KEY": "k"})
    assert result.stderr.startswith(f"gprochat: {told}")
    assert list(home.iterdir()) == []


def test_without_locks_as_on_windows_two_chats_append_to_one_conversation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    first = Keeper(SERVICE)
    first.save(ONE)
    second = Keeper(SERVICE, only())
    second.save(TWO)
    first.save(OTHER)
    assert only().messages == OTHER
    data = only().path.read_bytes()
    assert data.count(b"fine") == data.count(b"better") == 1
