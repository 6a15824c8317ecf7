"""What the command line says of itself, and what it needs to be installed."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import click
import pytest

from gprochat.cli import commands, loops
from gprochat.cli.commands import gprochat

from .running import LIMIT, environment, invoke, run

COMMANDS = [(), *((name,) for name in gprochat.commands)]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "".join(command) or "gprochat")
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_help_shows_an_example(command: tuple[str, ...], option: str) -> None:
    result = invoke(*command, option)
    assert result.exit_code == 0
    assert "Example:\n    " in result.stdout


def test_the_help_lists_the_commands_with_a_whole_sentence_each() -> None:
    names = {"chat", "check", "curl", "serve", "sign"}
    assert set(gprochat.commands) == names
    assert "..." not in invoke("--help").stdout.partition("Commands:")[2]


def test_no_option_takes_a_secret_as_its_value() -> None:
    for command in gprochat.commands.values():
        for option in command.params:
            if {"--password", "--secret-key"} & {*option.opts}:
                assert isinstance(option, click.Option)
                assert option.is_flag


def test_the_version_is_the_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "version", lambda name: f"of-{name}")
    assert invoke("--version").stdout == "gprochat of-gprochat\n"


def test_a_checkout_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise PackageNotFoundError

    monkeypatch.setattr(commands, "version", version)
    assert invoke("--version").stdout == "gprochat, not installed\n"


def test_an_unknown_command_is_wrong_usage() -> None:
    assert run("dance").returncode == 2


def test_the_line_editor_is_not_imported_without_a_conversation() -> None:
    code = (
        "import sys; from gprochat.cli.commands import gprochat;"
        "gprochat(['chat', '--local', 'Hi'], standalone_mode=False);"
        "sys.exit('prompt_toolkit' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), stdout=subprocess.PIPE, timeout=LIMIT
    )
    assert (done.stdout, done.returncode) == (b"Hi", 0)


def run_without(modules: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command where these modules are not installed."""
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {modules!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from gprochat.cli import main\n"
        "main()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**environment(), "GPROCHAT_SECRET_KEY": "k", "GPROCHAT_URL": "http://127.0.0.1:1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT,
    )


@pytest.mark.parametrize(
    ("missing", "arguments", "status", "advice"),
    [
        (["click"], ["--help"], 1, "pip install 'gprochat[cli]'"),
        (["trio"], ["chat", "--transport", "trio", "Hi"], 2, "pip install 'gprochat[trio]'"),
        (["aiohttp"], ["chat", "--local", "Hi"], 1, "pip install 'gprochat[server]'"),
        (["aiohttp"], ["serve"], 1, "pip install 'gprochat[server]'"),
        (
            ["aiohttp", "httpx", "httpx2", "trio"],
            ["chat", "Hi"],
            2,
            "pip install 'gprochat[aiohttp]'",
        ),
    ],
)
def test_what_is_not_installed_is_said(
    missing: list[str], arguments: list[str], status: int, advice: str
) -> None:
    done = run_without(missing, *arguments)
    assert done.returncode == status
    assert advice in done.stderr
    assert "Traceback" not in done.stderr


def test_the_first_transport_that_is_installed_is_the_default() -> None:
    assert loops.choose(None) == loops.choose("aiohttp")
    done = run_without(["aiohttp"], "chat", "Hi")
    assert done.returncode == 1
    assert "check URL, network and proxy" in done.stderr
