"""The command `gprochat`, its help and version, and what `gprochat chat` takes as a question."""

from importlib import metadata
from importlib.metadata import PackageNotFoundError

import click
import pytest

from gprochat.cli.commands import gprochat
from gprochat.cli.loops import TRANSPORTS
from gprochat_core import Service
from tests.docs.pages import ROOT

from .running import (
    invoke,
    on_terminal,
)

NAMES = gprochat.list_commands(click.Context(gprochat))

GUIDES = ("batch.md", "command-line.md", "gateway.md")

COMMANDS = [(), *((name,) for name in NAMES)]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "".join(command) or "gprochat")
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_help_shows_an_example(command: tuple[str, ...], option: str) -> None:
    result = invoke(*command, option)
    assert result.exit_code == 0
    assert "Example:\n    " in result.stdout


def test_the_help_lists_the_commands_with_a_whole_sentence_each() -> None:
    names = {"batch", "chat", "check", "completion", "curl", "gateway", "history", "login"}
    assert set(NAMES) == {*names, "logout", "serve", "sign"}
    assert "..." not in invoke("--help").stdout.partition("Commands:")[2]


def test_no_line_of_a_help_is_wider_than_a_narrow_terminal_except_its_examples() -> None:
    with on_terminal("check", "--help", columns=40, lines=60) as terminal:
        assert terminal.wait() == 0
    text, _, examples = terminal.seen.partition("Example:")
    assert [line for line in text.split("\r\n") if len(line) > 40] == []
    assert "gprochat check --url https://chat.example" in examples
    assert "  --service NAME  A service that\r\n" in text


def test_a_prompt_without_quotes_is_told_to_be_put_in_quotes() -> None:
    result = invoke("chat", "--local", "hello", "world")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "PROMPT is one argument; put the prompt in quotes" in result.stderr
    assert "world" not in result.stderr


def test_a_model_is_not_chosen() -> None:
    result = invoke("chat", "--local", "--model", "gpt-4", "hello")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no option --model: the service chooses its model" in result.stderr
    assert "--model" not in invoke("chat", "--help").stdout


def test_the_version_is_the_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: f"of-{name}")
    assert invoke("--version").stdout == "gprochat of-gprochat\n"


def test_a_checkout_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise PackageNotFoundError

    monkeypatch.setattr(metadata, "version", version)
    assert invoke("--version").stdout == "gprochat, not installed\n"


@pytest.mark.parametrize("line_break", ["", "\n", "\r\n"])
def test_a_piped_prompt_is_asked_without_its_last_line_break(
    service: Service, line_break: str
) -> None:
    result = invoke("chat", service=service, stdin=f"one\ntwo{line_break}")
    assert result.stdout == "one\ntwo"


def test_a_prompt_and_what_is_piped_in_are_both_asked(service: Service) -> None:
    result = invoke("chat", "Review:", service=service, stdin="- a\n+ b\n")
    assert result.stdout == "Review:\n\n- a\n+ b"


@pytest.mark.parametrize("stdin", ["", "\n"])
def test_an_empty_pipe_adds_nothing_to_the_prompt(service: Service, stdin: str) -> None:
    assert invoke("chat", "Hello", service=service, stdin=stdin).stdout == "Hello"


@pytest.mark.parametrize("prompt", ["", " ", "\n"])
def test_an_empty_prompt_is_wrong_usage(service: Service, prompt: str) -> None:
    result = invoke("chat", prompt, service=service)
    assert result.exit_code == 2
    assert "the prompt is empty" in result.stderr


def test_an_empty_pipe_is_wrong_usage(service: Service) -> None:
    result = invoke("chat", service=service, stdin="\n")
    assert result.exit_code == 2
    assert "standard input is empty" in result.stderr


def test_a_pipe_that_is_not_utf_8_is_wrong_usage(service: Service) -> None:
    result = invoke("chat", service=service, stdin=b"\xff\xfe")
    assert result.exit_code == 2
    assert result.stderr == "gprochat: standard input is not UTF-8 text\n"


def test_a_conversation_needs_a_terminal_for_its_output_too(service: Service) -> None:
    with on_terminal("chat", "--json", service=service) as terminal:
        assert terminal.wait() == 2
    assert "give a PROMPT" in terminal.seen


def test_the_embedded_service_answers_on_any_transport() -> None:
    for transport in TRANSPORTS:
        assert invoke("chat", "--local", "--transport", transport, "Hello").stdout == "Hello"


def test_the_embedded_service_takes_no_url() -> None:
    result = invoke("chat", "--local", "--url", "https://chat.example", "Hello")
    assert result.exit_code == 2
    assert "--local has its own" in result.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_guide_names_every_option(name: str) -> None:
    guides = [(ROOT / "docs" / "guides" / page).read_text() for page in GUIDES]
    command = gprochat.get_command(click.Context(gprochat), name)
    assert command is not None
    commands = [command, *(command.commands.values() if isinstance(command, click.Group) else ())]
    options = {
        option
        for each in commands
        for parameter in each.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for option in [*parameter.opts, *parameter.secondary_opts]
    }
    missing = {option for option in options if not any(option in guide for guide in guides)}
    assert missing - {"--save"} == set()
