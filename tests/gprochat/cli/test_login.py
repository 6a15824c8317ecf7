"""`gprochat login` keeps a service and its secrets; other commands use it."""

import json
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from gprochat.server import in_thread, serve
from gprochat_core import Service

from .keyrings import BACKEND
from .running import LIMIT, answer_of, forked, invoke, on_terminal, run

PASSWORD = "open sesame"


@pytest.fixture
def guarded() -> Iterator[Service]:
    """A service with a password."""
    with in_thread(serve(password=PASSWORD, grace=0.0)) as server:
        yield server.service


@pytest.fixture
def keyring(tmp_path: Path) -> dict[str, str]:
    """The variables with which a keyring works."""
    return {"PYTHON_KEYRING_BACKEND": BACKEND, "TEST_KEYRING": str(tmp_path / "keyring")}


def file_of(home: Path) -> Path:
    return home / "config" / "gprochat" / "services.json"


def log_in(
    service: Service,
    *arguments: str,
    variables: Mapping[str, str] | None = None,
    key: str | None = None,
    status: int = 0,
) -> str:
    """Log in on a terminal, and return what it showed."""
    key = service.secret_key or "" if key is None else key
    with on_terminal("login", "--proxy", "none", *arguments, variables=variables) as terminal:
        terminal.expect("URL, such as")
        terminal.type(f"{service.url}\r")
        terminal.expect("Secret key of")
        terminal.type(f"{key}\r")
        terminal.expect("Password for")
        terminal.type(f"{service.password or ''}\r")
        assert terminal.wait() == status
    for secret in (key, PASSWORD):
        assert secret not in terminal.seen
    return terminal.seen


def test_a_list_of_no_services_says_so() -> None:
    result = invoke("login", "--list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == ("gprochat: no service has been kept yet; `gprochat login` keeps one\n")


def test_without_a_keyring_the_secrets_are_in_a_private_file(guarded: Service, home: Path) -> None:
    shown = log_in(guarded)
    assert "ok    signature" in shown
    assert f"kept {guarded.url} as default, its secrets in" in shown
    assert stat.S_IMODE(file_of(home).stat().st_mode) == 0o600
    assert stat.S_IMODE(file_of(home).parent.stat().st_mode) == 0o700
    assert invoke("chat", "Hello").stdout == "Hello"


def test_where_a_keyring_works_the_secrets_are_in_it_and_in_no_file(
    guarded: Service, home: Path, keyring: dict[str, str]
) -> None:
    assert "its secrets in the keyring" in log_in(guarded, variables=keyring)
    written = file_of(home).read_text()
    assert guarded.url in written
    assert (guarded.secret_key or "") not in written
    assert PASSWORD not in written
    assert PASSWORD in Path(keyring["TEST_KEYRING"]).read_text()
    assert run("chat", "Hello", variables=keyring).stdout == "Hello"
    forgotten = run("chat", "Hello")
    assert forgotten.returncode == 2
    assert "the keyring has no secrets for default" in forgotten.stderr
    assert run("logout", variables=keyring).returncode == 0
    assert PASSWORD not in Path(keyring["TEST_KEYRING"]).read_text()


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[]", "{}"])
def test_damaged_secrets_in_the_keyring_are_one_line(
    service: Service, keyring: dict[str, str], text: str
) -> None:
    log_in(service, variables=keyring)
    Path(keyring["TEST_KEYRING"]).write_text(json.dumps({"gprochat/default": text}))
    result = run("chat", "Hello", variables=keyring)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "are damaged; run: gprochat login default" in result.stderr


def test_a_service_whose_secrets_are_gone_from_the_keyring_can_be_forgotten(
    service: Service, keyring: dict[str, str]
) -> None:
    log_in(service, variables=keyring)
    Path(keyring["TEST_KEYRING"]).unlink()
    gone = run("logout", variables=keyring)
    assert (gone.returncode, gone.stderr) == (0, "")
    assert invoke("login", "--list").stdout == ""


def test_a_service_is_not_forgotten_while_the_keyring_cannot_be_used(
    service: Service, keyring: dict[str, str]
) -> None:
    log_in(service, variables=keyring)
    result = invoke("logout")
    assert result.exit_code == 1
    assert "the keyring does not remove the secrets of default" in result.stderr
    assert service.url in invoke("login", "--list").stdout


def test_a_service_that_fails_its_check_is_not_kept(service: Service, home: Path) -> None:
    shown = log_in(service, key="another", status=1)
    assert "FAIL  signature" in shown
    assert "the service is not kept" in shown
    assert not file_of(home).exists()


def test_a_service_whose_model_fails_is_kept_if_it_accepts_the_secrets(home: Path) -> None:
    with in_thread(serve(answer_of(error=ValueError("out of order")), grace=0.0)) as server:
        shown = log_in(server.service)
    assert "FAIL  first byte" in shown
    assert file_of(home).exists()


def test_a_url_that_cannot_be_used_is_refused_before_a_secret_is_asked_for() -> None:
    with on_terminal("login", "--url", "chat.example") as terminal:
        assert terminal.wait() == 1
    assert "must begin with https://" in terminal.seen
    assert "Secret key" not in terminal.seen


def test_services_are_chosen_by_name_and_the_last_one_is_the_default(
    service: Service, stalling: Service
) -> None:
    log_in(stalling, "work")
    log_in(service, "home")
    assert invoke("login", "--list").stdout == (f"  work  {stalling.url}\n* home  {service.url}\n")
    assert invoke("chat", "Hello").stdout == "Hello"
    assert invoke("chat", "--service", "work", "Hello").stdout == "1 heard: Hello"
    assert invoke("check", "--service", "work").exit_code == 0
    assert stalling.url in invoke("curl", "--service", "work", "Hello").stdout
    invoke("logout", "home")
    assert invoke("chat", "Hello").stdout == "1 heard: Hello"
    invoke("logout", "work")
    assert "run `gprochat login`" in invoke("chat", "Hello").stderr


def test_two_logins_at_once_are_both_kept(service: Service, stalling: Service) -> None:
    with on_terminal("login", "--proxy", "none", "first", "--url", service.url) as first:
        first.expect("Secret key of")
        log_in(stalling, "second")
        first.type(f"{service.secret_key}\r")
        first.expect("Password for")
        first.type("\r")
        assert first.wait() == 0
    assert invoke("login", "--list").stdout == (
        f"  second  {stalling.url}\n* first  {service.url}\n"
    )


def test_the_environments_variables_win(service: Service, stalling: Service) -> None:
    log_in(stalling)
    assert invoke("chat", "Hello", service=service).stdout == "Hello"
    wrong = invoke("chat", "Hello", variables={"GPROCHAT_SECRET_KEY": "another"})
    assert wrong.exit_code == 1
    assert "check the secret key" in wrong.stderr


def test_a_service_that_is_named_keeps_its_secrets_from_the_environments_url(
    service: Service, stalling: Service
) -> None:
    log_in(stalling, "work")
    asked = invoke("chat", "--service", "work", "Hello", service=service)
    assert asked.stdout == "1 heard: Hello"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("chat", "--service", "x", "Hi"), "there is no service x"),
        (("logout", "x"), "there is no service x; `gprochat login --list` lists them"),
        (("chat", "--service", "x", "--url", "https://chat.example", "Hi"), "leave --url out"),
        (("chat", "--service", "x", "--local", "Hi"), "--local has its own"),
    ],
)
def test_a_wrong_name_is_wrong_usage(arguments: tuple[str, ...], words: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr


DAMAGED: Final = [
    "{",
    "[]",
    "[" * 100_000,
    '{"default": "x"}',
    '{"default": ["x"], "services": {}}',
    '{"default": "x", "services": {"x": {"encoding": "native"}}}',
    '{"default": "x", "services": {"x": {"url": "u", "encoding": "native", "password": ""}}}',
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_one_line(home: Path, content: str) -> None:
    file_of(home).parent.mkdir(parents=True)
    file_of(home).write_text(content)
    result = invoke("chat", "Hello")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "is damaged; correct or remove it" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["login"], "there is no terminal to ask on"),
        (
            ["login", "--url", "http://127.0.0.1:1"],
            "in place of a login; there is no terminal",
        ),
    ],
)
def test_without_a_terminal_login_says_so(arguments: list[str], told: str) -> None:
    with forked(*arguments) as process:
        _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 2
    assert told in errors


def test_a_file_that_others_can_read_becomes_private_and_keeps_its_other_services(
    service: Service, home: Path
) -> None:
    file_of(home).parent.mkdir(parents=True)
    entry = {"url": service.url, "encoding": "native", "secret_key": "k", "password": None}
    file_of(home).write_text(json.dumps({"default": "old", "services": {"old": entry}}))
    file_of(home).chmod(0o644)
    log_in(service, "new")
    assert stat.S_IMODE(file_of(home).stat().st_mode) == 0o600
    assert set(json.loads(file_of(home).read_text())["services"]) == {"old", "new"}
