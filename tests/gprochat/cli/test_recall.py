"""`gprochat history`: list, show, search, export, remove."""

import json
from pathlib import Path

import pytest

from gprochat.cli.kept import Keeper, conversations
from gprochat_core import Message

from .running import invoke, on_terminal, run, screen_of

SERVICE = "https://chat.example"

TALK = [Message("user", "What is a\nsocket?"), Message("assistant", "An **end** of it.")]


@pytest.fixture
def name() -> str:
    """The name of a conversation that was kept."""
    keeper = Keeper(SERVICE)
    keeper.save(TALK)
    keeper.restart()
    (conversation,) = conversations()
    return conversation.name


@pytest.mark.parametrize("command", [("history",), ("history", "list")])
def test_the_list_has_a_line_for_each_conversation(name: str, command: tuple[str, ...]) -> None:
    Keeper(SERVICE).save([Message("user", "Later\x1b"), Message("assistant", "x")])
    later, earlier = invoke(*command).stdout.splitlines()
    assert earlier == f"{name}  What is a socket?"
    assert later.endswith("  Later␛")


@pytest.mark.parametrize(("command", "status"), [((), 0), (("show",), 2), (("export", "x"), 2)])
def test_without_conversations_each_command_says_so(command: tuple[str, ...], status: int) -> None:
    result = invoke("history", *command)
    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr == "gprochat: no conversation has been kept yet\n"


def test_a_line_of_the_list_fits_a_narrow_terminal(name: str) -> None:
    with on_terminal("history", columns=30) as terminal:
        assert terminal.wait() == 0
    assert terminal.seen == f"{name}  What is\r\n"


def test_the_list_fits_a_terminal_of_one_column(name: str) -> None:
    with on_terminal("history", columns=1) as terminal:
        assert terminal.wait() == 0
    assert terminal.seen == f"{name[0]}\r\n"


def test_a_line_of_wide_characters_fits_a_narrow_terminal() -> None:
    Keeper(SERVICE).save([Message("user", "日本語のテキスト")])
    with on_terminal("history", columns=30) as terminal:
        assert terminal.wait() == 0
    assert terminal.seen.endswith("  日本語\r\n")


def test_a_search_says_where_a_text_is_in_any_case(name: str) -> None:
    assert invoke("history", "search", "SOCK").stdout == f"{name}  socket?\n"


def test_a_search_that_finds_nothing_says_so(name: str) -> None:
    result = invoke("history", "search", "plug")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "gprochat: no conversation contains plug\n"


@pytest.mark.parametrize("chosen", [[], ["last"], ["2"]])
def test_a_conversation_is_shown(name: str, chosen: list[str]) -> None:
    shown = invoke("history", "show", *chosen).stdout
    assert shown == "## Question\n\nWhat is a\nsocket?\n\n## Reply\n\nAn **end** of it.\n"


def test_a_conversation_is_rendered_on_a_terminal(name: str) -> None:
    with on_terminal("history", "show", name) as terminal:
        assert terminal.wait() == 0
    assert "An end of it." in "\n".join(screen_of(terminal).display)


def test_a_conversation_is_exported_as_a_history_file(name: str, tmp_path: Path) -> None:
    exported = invoke("history", "export", name).stdout
    assert json.loads(exported)[0] == {"role": "user", "content": "What is a\nsocket?"}
    file = tmp_path / "talk.json"
    file.write_text(exported, encoding="utf-8")
    asked = invoke("chat", "--local", "--history", str(file), "Hi")
    assert (asked.exit_code, len(json.loads(file.read_text(encoding="utf-8")))) == (0, 4)


def test_a_conversation_is_exported_as_markdown(name: str) -> None:
    exported = invoke("history", "export", "--format", "markdown", name).stdout
    assert exported == invoke("history", "show", name).stdout


LATIN_1 = {"PYTHONIOENCODING": "latin-1:strict"}


@pytest.mark.parametrize("command", [("list",), ("search", "a"), ("show",)])
def test_what_the_locale_cannot_encode_is_no_failure(command: tuple[str, ...]) -> None:
    Keeper(SERVICE).save([Message("user", "a 字")])
    done = run("history", *command, variables=LATIN_1)
    assert (done.returncode, done.stderr) == (0, "")
    assert "a ?\n" in done.stdout


@pytest.mark.parametrize("kind", ["json", "markdown"])
def test_an_exported_conversation_is_utf_8_whatever_the_locale(kind: str) -> None:
    Keeper(SERVICE).save([Message("user", "a 字")])
    assert "a 字" in run("history", "export", "--format", kind, variables=LATIN_1).stdout


def test_conversations_are_removed_by_name(name: str) -> None:
    Keeper(SERVICE).save([Message("user", "Later")])
    assert invoke("history", "remove", name).exit_code == 0
    assert [each.title for each in conversations()] == ["Later"]


def test_a_conversation_that_is_named_twice_is_removed(name: str) -> None:
    result = invoke("history", "remove", "last", name)
    assert (result.exit_code, result.stderr, list(conversations())) == (0, "", [])


def test_all_conversations_are_removed_after_a_question(name: str) -> None:
    assert invoke("history", "remove", "--all", stdin="n\n").exit_code == 0
    assert len(list(conversations())) == 1
    assert invoke("history", "remove", "--all", stdin="").exit_code == 2
    assert invoke("history", "remove", "--all", stdin="y\n").exit_code == 0
    assert list(conversations()) == []
    assert "no conversation has been kept" in invoke("history", "remove", "--all").stderr


def test_a_conversation_that_a_chat_uses_is_not_removed() -> None:
    keeper = Keeper(SERVICE)
    keeper.save(TALK)
    result = invoke("history", "remove", "last")
    assert result.exit_code == 1
    assert "a chat uses the conversation" in result.stderr
    keeper.save([*TALK, Message("user", "still here")])
    assert len(next(conversations()).messages) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "nonsense"), "there is no conversation nonsense"),
        (("remove",), "give a NAME, or --all"),
        (("remove", "--all", "last"), "give a NAME, or --all"),
    ],
)
def test_a_wrong_name_is_wrong_usage(name: str, arguments: tuple[str, ...], words: str) -> None:
    result = invoke("history", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_name_that_fits_two_conversations_is_wrong_usage(name: str) -> None:
    Keeper(SERVICE).save(TALK)
    result = invoke("history", "show", "2")
    assert result.exit_code == 2
    assert "2 conversations have names that begin with 2" in result.stderr
