"""The options that commands share: URL, secrets and proxy."""

from base64 import b64encode

import click
import pytest

from gprochat.cli.commands import gprochat
from gprochat.server import in_thread, serve
from gprochat_core import Service
from tests.peers.scripted import ScriptedPeer, receive, repeat, send
from tests.peers.wire import chunked

from .running import LIMIT, forked, invoke, on_terminal


@pytest.mark.parametrize("command", ["chat", "curl", "check"])
def test_without_a_url_nothing_is_sent(command: str) -> None:
    variables = {"GPROCHAT_SECRET_KEY": "key", "GPROCHAT_PASSWORD": "open-sesame"}
    arguments = () if command == "check" else ("Hello",)
    result = invoke(command, *arguments, variables=variables)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith(
        "gprochat: no URL: run `gprochat login`, set GPROCHAT_URL, or pass --url, such as "
        "https://chat.example\n"
    )


def test_a_url_option_stands_in_for_the_variable(service: Service) -> None:
    variables = {"GPROCHAT_SECRET_KEY": service.secret_key or ""}
    assert invoke("chat", "--url", service.url, "Hello", variables=variables).stdout == "Hello"


def test_the_environments_secrets_do_not_go_to_another_url_than_the_environments() -> None:
    other = Service("http://127.0.0.1:1", secret_key="key")
    variables = {"GPROCHAT_PASSWORD": "open-sesame"}
    command = ("curl", "--url", "https://gprochat.com")
    with forked(*command, "Hi", service=other, variables=variables) as process:
        output, errors = process.communicate(timeout=LIMIT)
    assert (process.returncode, output) == (2, "")
    assert "set GPROCHAT_URL and GPROCHAT_SECRET_KEY" in errors
    asked = (*command, "--secret-key", "Hi")
    with on_terminal(*asked, service=other, variables=variables) as terminal:
        terminal.expect("Secret key of https://gprochat.com")
        terminal.type("another\r")
        terminal.expect('"pass":null')
        assert terminal.wait() == 0
    assert "open-sesame" not in terminal.seen


def test_a_proxy_that_cannot_be_used_is_one_line(service: Service) -> None:
    result = invoke("chat", "--proxy", "ftp://proxy.example", "Hello", service=service)
    assert result.exit_code == 1
    assert result.stderr.startswith("gprochat: the proxy's URL must begin with")


def test_no_proxy_is_used_if_none_is_asked_for(service: Service) -> None:
    variables = {"HTTP_PROXY": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1"}
    failed = invoke("chat", "Hello", service=service, variables=variables)
    result = invoke("chat", "--proxy", "none", "Hello", service=service, variables=variables)
    assert (failed.exit_code, result.stdout) == (1, "Hello")


def test_no_option_takes_a_secret_as_its_value() -> None:
    context = click.Context(gprochat)
    for name in gprochat.list_commands(context):
        command = gprochat.get_command(context, name)
        assert command is not None
        for option in command.params:
            if {"--password", "--secret-key"} & {*option.opts}:
                assert isinstance(option, click.Option)
                assert option.is_flag


def test_without_a_key_and_a_terminal_the_variable_is_named() -> None:
    with forked("chat", "--url", "http://127.0.0.1:1", "Hello") as process:
        output, errors = process.communicate(timeout=LIMIT)
    assert (process.returncode, output) == (2, "")
    assert errors.count("\n") <= 2
    assert ": set GPROCHAT_SECRET_KEY; there is no terminal to ask on" in errors


def test_a_url_variable_that_is_set_is_not_named_as_missing(service: Service) -> None:
    with forked("chat", "Hello", variables={"GPROCHAT_URL": service.url}) as process:
        _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 2
    assert ": set GPROCHAT_SECRET_KEY; there is no terminal to ask on" in errors


def test_a_password_cannot_be_asked_for_without_a_terminal(service: Service) -> None:
    with forked("chat", "--password", "Hello", service=service) as process:
        _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 2
    assert ": set GPROCHAT_PASSWORD; there is no terminal to ask on" in errors


def test_a_missing_key_is_asked_for_without_echo(service: Service) -> None:
    with on_terminal("chat", "--url", service.url, "Hello") as terminal:
        terminal.expect("Secret key of")
        terminal.type(f"{service.secret_key}\r")
        terminal.expect("Hello")
        assert terminal.wait() == 0
    assert (service.secret_key or "") not in terminal.seen


def test_a_password_is_asked_for_without_echo() -> None:
    with (
        in_thread(serve(password="open sesame")) as server,
        on_terminal("chat", "--password", "Hello", service=server.service) as terminal,
    ):
        terminal.expect("Password for")
        terminal.type("open sesame\r")
        terminal.expect("Hello")
        assert terminal.wait() == 0
    assert "open sesame" not in terminal.seen


@pytest.mark.parametrize("command", ["chat", "curl"])
@pytest.mark.parametrize(
    ("option", "what", "variable"),
    [
        ("--secret-key", "secret key", "GPROCHAT_SECRET_KEY"),
        ("--password", "password", "GPROCHAT_PASSWORD"),
    ],
)
def test_a_secret_given_as_the_value_of_its_option_is_not_asked(
    command: str, option: str, what: str, variable: str, service: Service
) -> None:
    with on_terminal(command, option, "sesame", service=service, columns=200) as terminal:
        terminal.expect(service.url)
        terminal.type("sesame\r")
        assert terminal.wait() == 2
    assert (
        f"gprochat: the prompt is the {what}: {option} takes no value, it asks for the {what}; "
        f"or set {variable}" in terminal.seen
    )
    assert "sesame" not in terminal.seen


def test_the_help_says_that_the_options_for_secrets_take_no_value() -> None:
    text = " ".join(invoke("chat", "--help").stdout.split())
    assert "instead of $GPROCHAT_SECRET_KEY. Takes no value." in text
    assert "instead of $GPROCHAT_PASSWORD. Takes no value." in text


def test_ctrl_c_where_a_secret_is_asked_for_ends_the_command(service: Service) -> None:
    with on_terminal("chat", "--url", service.url, "Hello") as terminal:
        terminal.expect("Secret key of")
        # Enter, because a Ctrl-C just before the command begins to read does not end the read.
        terminal.type("\x03\r")
        assert terminal.wait() == 130


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
def test_a_proxys_password_can_come_from_a_variable(service: Service, name: str) -> None:
    with ScriptedPeer([repeat(receive, send(chunked("by way of the proxy")))]) as proxy:
        variables = {name: f"http://user:sesame@127.0.0.1:{proxy.port}", "NO_PROXY": ""}
        result = invoke("chat", "Hello", service=service, variables=variables)
    assert (result.exit_code, result.stdout) == (0, "by way of the proxy")
    credentials = b64encode(b"user:sesame").decode()
    assert proxy.requests[0].field("proxy-authorization") == f"Basic {credentials}"


def test_the_help_says_where_a_proxys_password_is_hidden_from_others() -> None:
    text = " ".join(invoke("chat", "--help").stdout.split())
    assert "$HTTPS_PROXY, $HTTP_PROXY or $ALL_PROXY, whose password other users cannot see" in text
