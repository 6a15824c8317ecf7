"""`gprochat chat` with a prompt: what it sends, what it prints, and how it ends."""

import json
from collections.abc import AsyncIterator

import pytest

from gprochat.cli.loops import TRANSPORTS
from gprochat.server import in_thread, serve
from gprochat_core import Message, Service

from .running import answer_of, invoke, on_terminal, run

RUSSIAN = "Как дела? 🙂"


def lines_of(output: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_answer_streams_over_each_transport(service: Service, transport: str) -> None:
    result = invoke("chat", "--transport", transport, RUSSIAN, service=service)
    assert (result.stdout, result.stderr, result.exit_code) == (RUSSIAN, "", 0)


def test_the_module_runs_as_a_program(service: Service) -> None:
    done = run("chat", RUSSIAN, service=service)
    assert (done.stdout, done.stderr, done.returncode) == (RUSSIAN, "", 0)


@pytest.mark.parametrize("line_break", ["", "\n", "\r\n"])
def test_a_piped_prompt_is_asked_without_its_last_line_break(
    service: Service, line_break: str
) -> None:
    result = invoke("chat", service=service, stdin=f"one\ntwo{line_break}")
    assert result.stdout == "one\ntwo"


def test_an_argument_leaves_standard_input_alone(service: Service) -> None:
    assert invoke("chat", "argument", service=service, stdin="piped").stdout == "argument"


def test_an_empty_pipe_is_wrong_usage(service: Service) -> None:
    result = invoke("chat", service=service, stdin="\n")
    assert result.exit_code == 2
    assert "standard input is empty" in result.stderr


def test_a_pipe_that_is_not_utf_8_is_wrong_usage(service: Service) -> None:
    result = invoke("chat", service=service, stdin=b"\xff\xfe")
    assert result.exit_code == 2
    assert result.stderr == "gprochat: standard input is not UTF-8 text\n"


def test_the_embedded_service_answers_on_any_transport() -> None:
    for transport in TRANSPORTS:
        assert invoke("chat", "--local", "--transport", transport, "Hello").stdout == "Hello"


def test_the_embedded_service_takes_no_settings_of_another() -> None:
    result = invoke("chat", "--local", "--url", "https://chat.example", "Hello")
    assert result.exit_code == 2
    assert "--local brings its own" in result.stderr


def test_a_url_as_an_option_comes_before_the_environments(service: Service) -> None:
    variables = {"GPROCHAT_URL": "http://127.0.0.1:1"}
    result = invoke("chat", "--url", service.url, "Hello", service=service, variables=variables)
    assert result.stdout == "Hello"


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


def test_json_lines_are_the_pieces_and_an_end(service: Service) -> None:
    result = invoke("chat", "--json", RUSSIAN, service=service)
    *pieces, end = lines_of(result.stdout)
    assert "".join(piece["text"] for piece in pieces) == RUSSIAN
    assert {piece["type"] for piece in pieces} == {"text"}
    assert end == {"type": "end", "text": RUSSIAN}


def test_json_lines_hold_other_alphabets_as_they_are(service: Service) -> None:
    assert RUSSIAN in invoke("chat", "--json", RUSSIAN, service=service).stdout


def test_json_lines_are_utf_8_whatever_the_locale(service: Service) -> None:
    done = run(
        "chat", "--json", RUSSIAN, service=service, variables={"PYTHONIOENCODING": "ascii:strict"}
    )
    assert lines_of(done.stdout)[-1]["text"] == RUSSIAN


def test_text_that_the_locale_cannot_express_is_no_failure(service: Service) -> None:
    done = run("chat", "né 🙂", service=service, variables={"PYTHONIOENCODING": "latin-1:strict"})
    assert (done.stdout, done.stderr, done.returncode) == ("n\\xe9 ?", "", 0)


def test_an_error_is_one_line_and_one_json_line(service: Service) -> None:
    variables = {"GPROCHAT_SECRET_KEY": "another"}
    result = invoke("chat", "--json", "Hello", service=service, variables=variables)
    assert result.exit_code == 1
    (error,) = lines_of(result.stdout)
    assert error["type"] == "error"
    assert error["error"] == "SignatureRejected"
    assert error["text"] == ""
    assert result.stderr == f"gprochat: {error['message']}\n"
    assert "check the secret key" in error["message"]


def test_a_setting_that_cannot_be_used_is_a_json_line_too() -> None:
    result = invoke("chat", "--json", "--url", "chat.example", "Hello")
    assert result.exit_code == 1
    assert lines_of(result.stdout)[0]["error"] == "ConfigurationError"


def test_system_text_that_cannot_be_sent_is_a_json_line_too(service: Service) -> None:
    result = invoke("chat", "--json", "--system", "\udcff", "Hello", service=service)
    assert result.exit_code == 1
    assert lines_of(result.stdout)[0]["error"] == "InvalidMessages"


def test_what_arrived_before_an_error_is_shown() -> None:
    with in_thread(serve(answer_of("half ", "an answer Int", error=ValueError()))) as server:
        text = invoke("chat", "Hello", service=server.service)
        *pieces, error = lines_of(invoke("chat", "--json", "Hello", service=server.service).stdout)
    assert text.stdout == "half an answer Int"
    assert text.exit_code == 1
    assert text.stderr.count("\n") == 1
    assert "".join(piece["text"] for piece in pieces) == error["text"] == "half an answer Int"
    assert error["error"] == "InterruptedReply"


def test_an_empty_reply_is_said_to_be_one() -> None:
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


def test_a_proxy_that_cannot_be_used_is_one_line(service: Service) -> None:
    result = invoke("chat", "--proxy", "ftp://proxy.example", "Hello", service=service)
    assert result.exit_code == 1
    assert result.stderr.startswith("gprochat: the proxy's URL must begin with")


def test_no_proxy_is_used_if_none_is_asked_for(service: Service) -> None:
    variables = {"HTTP_PROXY": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1"}
    failed = invoke("chat", "Hello", service=service, variables=variables)
    result = invoke("chat", "--proxy", "none", "Hello", service=service, variables=variables)
    assert (failed.exit_code, result.stdout) == (1, "Hello")


def test_without_a_key_and_a_terminal_the_variable_is_named() -> None:
    done = run("chat", "Hello")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") <= 2
    assert "set GPROCHAT_SECRET_KEY; there is no terminal to ask on" in done.stderr


def test_a_password_cannot_be_asked_for_without_a_terminal(service: Service) -> None:
    done = run("chat", "--password", "Hello", service=service)
    assert done.returncode == 2
    assert "set GPROCHAT_PASSWORD" in done.stderr


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


def test_ctrl_c_where_a_secret_is_asked_for_ends_the_command(service: Service) -> None:
    with on_terminal("chat", "--url", service.url, "Hello") as terminal:
        terminal.expect("Secret key of")
        terminal.type("\x03")
        assert terminal.wait() == 130


def test_a_reply_does_nothing_to_a_terminal_but_appear() -> None:
    hostile = answer_of("\x1b]0;owned\x07", "\x1b[2J\x9b31m", "fine\r\nnext")
    with (
        in_thread(serve(hostile)) as server,
        on_terminal("chat", "Hello", service=server.service) as terminal,
    ):
        terminal.expect("fine\r\nnext")
        assert terminal.wait() == 0
    assert not set(terminal.seen) & {"\x1b", "\x07", "\x9b"}
    assert terminal.seen.endswith("next\r\n")


def test_a_reply_goes_into_a_pipe_as_it_is() -> None:
    colourful = "\x1b[31mred\x1b[0m\r\n"
    with in_thread(serve(answer_of(colourful))) as server:
        result = invoke("chat", "Hello", service=server.service)
    assert result.stdout_bytes.decode() == colourful


def test_a_conversation_needs_a_terminal_for_its_output_too(service: Service) -> None:
    with on_terminal("chat", "--json", service=service) as terminal:
        assert terminal.wait() == 2
    assert "give a PROMPT" in terminal.seen
