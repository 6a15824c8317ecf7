"""`gprochat check` says what is wrong, and only what it has evidence for."""

import json
from dataclasses import replace
from email.utils import formatdate
from time import monotonic, time
from typing import Final

import pytest

from gprochat.cli import check
from gprochat.cli.loops import TRANSPORTS
from gprochat.server import in_thread, serve
from gprochat_core import Service
from gprochat_core.reply import FAILURE_MARKER
from tests.peers.scripted import (
    Script,
    ScriptedPeer,
    pause,
    receive,
    repeat,
    send,
    until_client_closes,
)
from tests.peers.wire import answer, chunk, chunked, head

from .running import answer_of, invoke, on_terminal, screen_of

WRONG_SIGNATURE: Script = [receive, send(answer(401, '{"error":{"message":"Invalid signature."}}'))]

BUT_FOR_THE_MODEL = {
    "service": "ok",
    "password": "ok",
    "signature": "ok",
    "first byte": "FAIL",
    "clock": "ok",
}


def verdicts(output: str) -> dict[str, str]:
    """The verdict of a check on each subject: ok, FAIL or -."""
    return {line[6:18].strip(): line[:5].strip() for line in output.splitlines()}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_check_of_a_service_that_works_is_all_ok(service: Service, transport: str) -> None:
    result = invoke("check", "--transport", transport, service=service)
    assert set(verdicts(result.stdout).values()) == {"ok"}
    assert list(verdicts(result.stdout)) == [
        "service",
        "password",
        "signature",
        "first byte",
        "clock",
    ]
    assert result.exit_code == 0


def test_check_waits_no_longer_than_for_the_first_byte() -> None:
    with in_thread(serve(answer_of("first", error=ValueError()))) as server:
        assert invoke("check", service=server.service).exit_code == 0


def test_check_tells_a_wrong_password() -> None:
    with in_thread(serve(password="sesame")) as server:
        result = invoke("check", service=server.service)
    assert result.exit_code == 1
    assert verdicts(result.stdout) == {
        "service": "ok",
        "password": "FAIL",
        "signature": "-",
        "first byte": "-",
        "clock": "ok",
    }


def test_check_tells_a_wrong_key_that_no_encoding_makes_right() -> None:
    with in_thread(serve(password="sesame")) as server:
        variables = {"GPROCHAT_PASSWORD": "sesame", "GPROCHAT_SECRET_KEY": "another"}
        result = invoke("check", service=server.service, variables=variables)
    assert result.exit_code == 1
    assert verdicts(result.stdout) == {
        "service": "ok",
        "password": "ok",
        "signature": "FAIL",
        "encoding": "-",
        "first byte": "-",
        "clock": "ok",
    }


def test_check_tells_that_nothing_is_there() -> None:
    nowhere = Service("http://127.0.0.1:1", secret_key="k")
    result = invoke("check", "--proxy", "none", service=nowhere)
    assert result.exit_code == 1
    assert verdicts(result.stdout) == {
        "service": "FAIL",
        "password": "-",
        "signature": "-",
        "first byte": "-",
        "clock": "-",
    }
    assert "own time" not in result.stdout


def test_check_tells_that_something_else_is_there() -> None:
    page = answer(200, "<html>", "content-type: text/html")
    with ScriptedPeer([receive, send(page)]) as peer:
        result = invoke("check", service=Service(peer.url, secret_key="k"))
    assert verdicts(result.stdout)["service"] == "FAIL"
    assert result.exit_code == 1


def test_check_tells_an_error_of_the_model_for_which_password_and_signature_were_right() -> None:
    with in_thread(serve(answer_of(error=ValueError("out of order")))) as server:
        result = invoke("check", service=server.service)
    assert verdicts(result.stdout) == BUT_FOR_THE_MODEL
    assert "out of order" in result.stdout
    assert result.exit_code == 1


def test_check_tells_an_empty_reply() -> None:
    with in_thread(serve(answer_of())) as server:
        result = invoke("check", service=server.service)
    assert verdicts(result.stdout)["signature"] == "ok"
    assert verdicts(result.stdout)["first byte"] == "FAIL"
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("seconds", "verdict", "words"),
    [
        (0, "ok", "within a second"),
        (10, "ok", "s behind"),
        (-10, "ok", "s ahead of"),
        (3600, "FAIL", "s behind"),
        (-3600, "FAIL", "set this machine's clock"),
    ],
)
def test_check_tells_how_far_the_clock_is_off(seconds: int, verdict: str, words: str) -> None:
    date = formatdate(time() + seconds, usegmt=True)
    reply = chunked("Hello", fields=(f"date: {date}",))
    with ScriptedPeer([receive, send(reply)], WRONG_SIGNATURE) as peer:
        result = invoke("check", service=Service(peer.url, secret_key="k"))
    assert verdicts(result.stdout)["clock"] == verdict
    assert words in result.stdout.splitlines()[-1]
    assert result.exit_code == (verdict == "FAIL")


def test_check_needs_no_time_from_a_service_that_accepts_this_machines() -> None:
    with ScriptedPeer([receive, send(chunked("Hello"))], WRONG_SIGNATURE) as peer:
        result = invoke("check", service=Service(peer.url, secret_key="k"))
    assert result.stdout.endswith("accepted; the service does not tell its own time\n")
    assert set(verdicts(result.stdout).values()) == {"ok"}
    assert result.exit_code == 0


def test_a_check_without_evidence_is_no_success() -> None:
    reply = chunked("Hello", fields=(f"date: {formatdate(usegmt=True)}",))
    with ScriptedPeer([receive, send(reply)], [receive, send(answer(503))]) as peer:
        result = invoke("check", service=Service(peer.url, secret_key="k"))
    assert verdicts(result.stdout) == {
        "service": "-",
        "password": "-",
        "signature": "-",
        "first byte": "-",
        "clock": "ok",
    }
    assert "check the URL, or try again later" in result.stdout
    assert result.exit_code == 1


def failed(message: str, status: int = 500, **fields: str) -> bytes:
    """An answer as the family and OpenAI write their errors."""
    return answer(status, json.dumps({"error": {"message": message, **fields}}))


@pytest.mark.parametrize(
    "said",
    [
        failed("[429 Too Many Requests] Quota exceeded. Please retry in 3.4s.", code="Error"),
        failed("[429 ] Resource has been exhausted (e.g. check quota)."),
        failed("[400 Bad Request] API key not valid.", code="Error"),
        failed("slow down", status=429, type="requests", code="rate_limit_exceeded"),
        chunked(FAILURE_MARKER),
    ],
)
def test_password_and_signature_are_right_if_the_service_got_as_far_as_its_model(
    said: bytes,
) -> None:
    with ScriptedPeer([receive, send(said)]) as peer:
        result = invoke("check", service=Service(peer.url, secret_key="k"))
    assert verdicts(result.stdout) == BUT_FOR_THE_MODEL
    assert len(peer.requests) == 1


REFUSED_BY_AN_API: Final = [
    failed("no such model", status=404, type="invalid_request_error", code="model_not_found"),
    failed("bad key", status=401, type="invalid_request_error", code="invalid_api_key"),
]


@pytest.mark.parametrize("said", REFUSED_BY_AN_API)
def test_a_refusal_of_the_models_api_shows_the_same_if_another_signature_is_refused(
    said: bytes,
) -> None:
    another = failed("Invalid signature.", status=401)
    with ScriptedPeer([receive, send(said)], [receive, send(another)]) as peer:
        result = invoke("check", service=Service(peer.url, secret_key="k"))
    assert verdicts(result.stdout) == BUT_FOR_THE_MODEL


@pytest.mark.parametrize("said", REFUSED_BY_AN_API)
def test_an_api_in_the_place_of_a_service_shows_nothing(said: bytes) -> None:
    with ScriptedPeer([repeat(receive, send(said))]) as peer:
        result = invoke("check", service=Service(peer.url, secret_key="k"))
    assert verdicts(result.stdout)["signature"] == "-"
    assert verdicts(result.stdout)["password"] == "-"
    assert result.exit_code == 1


@pytest.mark.parametrize(
    "page",
    [
        answer(200, "It works!", "content-type: text/plain"),
        answer(200, '{"status": "ok"}', "content-type: application/json"),
        answer(200, b"\x89PNG\r\n", "content-type: image/png"),
        answer(200, ""),
    ],
    ids=["text", "json", "png", "nothing"],
)
def test_a_200_that_a_wrong_signature_gets_too_is_not_ok(page: bytes) -> None:
    with ScriptedPeer([repeat(receive, send(page))]) as peer:
        result = invoke("check", service=Service(peer.url, secret_key="k"))
    assert verdicts(result.stdout) == {
        "service": "FAIL",
        "password": "-",
        "signature": "-",
        "first byte": "-",
        "clock": "-",
    }
    assert "answers 200 to a wrong signature too" in result.stdout
    assert result.exit_code == 1


@pytest.mark.parametrize("said", [answer(503), answer(429, "busy"), answer(500), answer(400, "?")])
def test_an_error_that_any_server_may_send_is_evidence_of_nothing(said: bytes) -> None:
    with ScriptedPeer([receive, send(said)]) as peer:
        result = invoke("check", service=Service(peer.url, secret_key="k"))
    assert verdicts(result.stdout) == {
        "service": "-",
        "password": "-",
        "signature": "-",
        "first byte": "FAIL",
        "clock": "-",
    }
    assert result.exit_code == 1


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    "silent",
    [
        [receive, until_client_closes],
        [receive, send(head(200, "transfer-encoding: chunked")), until_client_closes],
    ],
    ids=["no head", "no text"],
)
def test_a_silent_peer_is_not_ok_and_the_check_ends_in_time(
    silent: Script, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "FIRST_LIMIT", 0.3)
    monkeypatch.setattr(check, "SECOND_LIMIT", 0.2)
    with ScriptedPeer(silent) as peer:
        service = Service(peer.url, secret_key="k")
        begun = monotonic()
        result = invoke("check", "--transport", transport, service=service)
        assert monotonic() - begun < 5
    found = verdicts(result.stdout)
    assert (found["service"], found["password"], found["signature"]) == ("FAIL", "-", "-")
    assert "no text within 0.3 s" in result.stdout
    assert result.exit_code == 1


def test_a_peer_that_sends_a_byte_now_and_then_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(check, "FIRST_LIMIT", 0.3)
    monkeypatch.setattr(check, "SECOND_LIMIT", 0.2)
    begin = send(head(200, "transfer-encoding: chunked"))
    with ScriptedPeer([receive, begin, repeat(send(chunk(b"\xf0")), pause(0.05))]) as peer:
        begun = monotonic()
        invoke("check", service=Service(peer.url, secret_key="k"))
        assert monotonic() - begun < 5


def test_the_limits_fit_the_time_that_the_help_states() -> None:
    assert "within 90 seconds" in " ".join(invoke("check", "--help").stdout.split())
    assert check.FIRST_LIMIT + check.SECOND_LIMIT < 90


def test_a_slow_model_is_not_a_wrong_clock() -> None:
    date = f"date: {formatdate(time(), usegmt=True)}"
    reply = [receive, pause(3.5), send(chunked("Hello", fields=(date,)))]
    with ScriptedPeer(reply, WRONG_SIGNATURE) as peer:
        result = invoke("check", service=Service(peer.url, secret_key="k"))
    assert "within a second or two of the service's" in result.stdout


@pytest.mark.parametrize(
    ("encoding", "refusal", "other"),
    [
        ("native", WRONG_SIGNATURE, "content"),
        ("flattened", WRONG_SIGNATURE, "content"),
        ("content", [receive, send(answer(500))], "native"),
    ],
)
def test_a_wrong_encoding_is_found_by_trying_the_other(
    encoding: str, refusal: Script, other: str
) -> None:
    with ScriptedPeer(refusal, [receive, send(chunked("Hello"))]) as peer:
        service = Service(peer.url, secret_key="k")
        result = invoke("check", "--encoding", encoding, service=service)
    assert verdicts(result.stdout) == {
        "service": "ok",
        "password": "ok",
        "signature": "ok",
        "encoding": "FAIL",
        "first byte": "ok",
        "clock": "ok",
    }
    assert f"this service reads {other}, not {encoding}: use --encoding {other}" in result.stdout
    assert result.exit_code == 1
    first, second = (json.loads(request.body)["messages"][-1] for request in peer.requests)
    assert ("content" in first, "content" in second) == (encoding == "content", other == "content")


def test_a_service_that_takes_neither_encoding_may_have_another_fault() -> None:
    with ScriptedPeer([repeat(receive, send(answer(500)))]) as peer:
        result = invoke("check", "--encoding", "content", service=Service(peer.url, secret_key="k"))
    found = verdicts(result.stdout)
    assert (found["encoding"], found["service"], found["first byte"]) == ("-", "-", "FAIL")


def test_a_verdict_is_broken_between_words_on_a_narrow_terminal(service: Service) -> None:
    another = replace(service, secret_key="another")
    with on_terminal("check", service=another, columns=40) as terminal:
        assert terminal.wait() == 1
    shown = [line.rstrip() for line in screen_of(terminal, 40).display]
    refused = shown.index("FAIL  signature   the service answered")
    assert shown[refused + 1] == '                  401: "Invalid'
    assert "\x1b" not in terminal.seen


def test_with_json_each_verdict_is_an_object(service: Service) -> None:
    result = invoke("check", "--json", service=service)
    assert result.exit_code == 0
    findings = [json.loads(line) for line in result.stdout.splitlines()]
    assert {each["check"]: each["ok"] for each in findings} == dict.fromkeys(
        ["service", "password", "signature", "first byte", "clock"], True
    )
    assert findings[0]["message"] == f"answers at {service.url}"
