"""Every answer that is not a reply is the error that the protocol's table says, and the client
goes on working after it."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from gprochat_core import (
    AuthenticationError,
    BadRequest,
    ConnectError,
    GPROChatError,
    Limits,
    NotTheService,
    PasswordRejected,
    RateLimited,
    ReplyTooLong,
    ServiceFailed,
    SignatureRejected,
    TruncatedReply,
)
from tests.contract.conftest import MakeClient
from tests.peers.scripted import (
    Script,
    ScriptedPeer,
    Step,
    close,
    closed_port,
    receive,
    repeat,
    reset,
    send,
)
from tests.peers.wire import answer, chunk, chunked, head

OK = chunked("fine")

PLAIN = "content-type: text/plain;charset=UTF-8"
HTML = "content-type: text/html; charset=utf-8"
CHUNKED = head(200, "content-type: text/plain; charset=utf-8", "transfer-encoding: chunked")

AFTER_THAT_ALL_IS_WELL: Script = [repeat(receive, send(OK))]


def said(message: str, code: str | None = None) -> bytes:
    error = {"message": message} if code is None else {"message": message, "code": code}
    return json.dumps({"error": error}, ensure_ascii=False).encode()


async def fails(
    make_client: MakeClient, *steps: Step, **settings: Any
) -> tuple[GPROChatError, ScriptedPeer]:
    """Return the error that a call ends with; the next call must succeed."""
    with ScriptedPeer([receive, *steps, *AFTER_THAT_ALL_IS_WELL], AFTER_THAT_ALL_IS_WELL) as peer:
        async with make_client(peer.url, **settings) as client:
            with pytest.raises(GPROChatError) as caught:
                await client.complete("Hello")
            assert await client.complete("Hello") == "fine"
    return caught.value, peer


TABLE = [
    (
        400,
        said("Invalid message history: The last message must be from user role."),
        [PLAIN],
        BadRequest,
        {"message": "Invalid message history: The last message must be from user role."},
    ),
    (401, said("Invalid password."), [PLAIN], PasswordRejected, {"message": "Invalid password."}),
    (401, said("Invalid signature."), [], SignatureRejected, {"message": "Invalid signature."}),
    (403, b"no", [], AuthenticationError, {"message": "no"}),
    (
        500,
        said("[429 Too Many Requests] Quota exceeded for you", "Error"),
        [PLAIN],
        RateLimited,
        {"code": "Error", "retry_after": None},
    ),
    (
        500,
        said("API key not valid. Please pass a valid API key.", "Error"),
        [PLAIN],
        ServiceFailed,
        {"code": "Error"},
    ),
    (500, said("Что-то не так", "Error"), [PLAIN], ServiceFailed, {"message": "Что-то не так"}),
    (500, b"", [], ServiceFailed, {"message": "", "code": None}),
    (404, said("?"), [], NotTheService, {"location": None}),
    (405, b"", [], NotTheService, {}),
    (200, b"<html>Welcome</html>", [HTML], NotTheService, {}),
    (200, b"??", ["content-encoding: br"], NotTheService, {}),
    (204, b"", [], NotTheService, {}),
    (408, b"", [], ServiceFailed, {}),
    (413, b"too long", [], BadRequest, {"message": "too long"}),
    (429, b"", ["retry-after: 7"], RateLimited, {"retry_after": 7.0}),
    (
        429,
        b"",
        ["date: Tue, 15 Nov 1994 08:12:31 GMT", "retry-after: Tue, 15 Nov 1994 08:13:31 GMT"],
        RateLimited,
        {"retry_after": 60.0},
    ),
    (502, b"<html>Bad gateway</html>", [HTML], ServiceFailed, {"message": ""}),
    (503, b"", ["retry-after: 3"], ServiceFailed, {"retry_after": 3.0}),
    (504, b"timeout", [], ServiceFailed, {"message": "timeout"}),
    (522, b"", [], ServiceFailed, {}),
]


@pytest.mark.parametrize(
    ("status", "body", "fields", "kind", "attributes"),
    TABLE,
    ids=[f"{row[0]}-{row[3].__name__}-{number}" for number, row in enumerate(TABLE)],
)
async def test_an_answer_of_the_table_is_its_error(
    make_client: MakeClient,
    status: int,
    body: bytes,
    fields: list[str],
    kind: type[GPROChatError],
    attributes: Mapping[str, object],
) -> None:
    error, _ = await fails(make_client, send(answer(status, body, *fields)))
    assert type(error) is kind
    expected = {"status": status, **attributes}
    assert {name: getattr(error, name) for name in expected} == expected


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_reported_and_never_followed(
    make_client: MakeClient, status: int
) -> None:
    with ScriptedPeer() as elsewhere:
        location = f"{elsewhere.url}/api/generate"
        error, _ = await fails(make_client, send(answer(status, b"", f"location: {location}")))
        assert elsewhere.connections == []
    assert type(error) is NotTheService
    assert (error.status, error.location) == (status, location)


async def test_of_a_huge_error_only_the_beginning_is_read(make_client: MakeClient) -> None:
    huge = 10 * 1024 * 1024
    error, peer = await fails(make_client, send(answer(500, b"x" * huge)), timeouts=None)
    assert type(error) is ServiceFailed
    # What is above 64 KiB has filled buffers on the way.
    assert peer.connections[0].sent < huge / 2


async def test_a_service_that_is_not_there_is_no_connection(make_client: MakeClient) -> None:
    with closed_port() as port:
        async with make_client(f"http://127.0.0.1:{port}") as client:
            with pytest.raises(ConnectError):
                await client.complete("Hello")


async def test_the_error_of_a_refused_plain_connection_does_not_speak_of_tls(
    make_client: MakeClient,
) -> None:
    with closed_port() as port:
        async with make_client(f"http://127.0.0.1:{port}") as client:
            with pytest.raises(ConnectError) as caught:
                await client.complete("Hello")
    assert not re.search("ssl|tls", str(caught.value), re.IGNORECASE)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "256.256.256.256", "xn--a"])
async def test_a_name_that_does_not_resolve_is_no_connection(
    make_client: MakeClient, host: str
) -> None:
    async with make_client(f"http://{host}") as client:
        with pytest.raises(ConnectError):
            await client.complete("Hello")


@pytest.mark.parametrize(
    "location",
    ["http://xn--a/", "http://[", "http://host:99999/", "://u:@", "http://\\", "", "\x80"],
)
async def test_a_redirect_to_a_url_that_cannot_be_is_not_the_service(
    make_client: MakeClient, location: str
) -> None:
    error, _ = await fails(make_client, send(answer(302, b"", f"location: {location}")))
    assert type(error) is NotTheService


async def test_a_path_of_any_length_is_sent_or_no_connection(make_client: MakeClient) -> None:
    with ScriptedPeer(AFTER_THAT_ALL_IS_WELL) as peer:
        async with make_client(f"{peer.url}/{'a' * 100_000}") as client:
            try:
                outcome = await client.complete("Hello")
            except ConnectError as error:
                outcome = str(error)
    assert outcome == "fine" or "URL too long" in outcome


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([close], id="closed"),
        pytest.param([reset], id="reset"),
        pytest.param([send(b"HTTP/1.1 200 OK\r\ncontent-le"), close], id="head-cut"),
    ],
)
async def test_a_connection_lost_before_the_answer_is_a_connect_error(
    make_client: MakeClient, steps: list[Step]
) -> None:
    error, _ = await fails(make_client, *steps)
    assert type(error) is ConnectError


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"220 mail.example ESMTP\r\n\r\n", id="another-protocol"),
        pytest.param(b"HTTP/1.1 abc OK\r\n\r\n", id="status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", id="header"),
        pytest.param(head(200, "content-length: 4", "content-length: 5") + b"12345", id="lengths"),
        pytest.param(head(200, "content-length: x") + b"12345", id="length"),
    ],
)
async def test_an_answer_that_is_not_http_is_not_the_service(
    make_client: MakeClient, wire: bytes
) -> None:
    error, _ = await fails(make_client, send(wire), close)
    assert type(error) is NotTheService


FRAMINGS = [
    pytest.param(CHUNKED + chunk("При"), close, id="missing-last-chunk"),
    pytest.param(CHUNKED + chunk("При") + b"5\r\n", close, id="cut-in-a-chunk-size"),
    pytest.param(head(200, "content-length: 90") + "При".encode(), close, id="content-length"),
    pytest.param(CHUNKED + chunk("При"), reset, id="reset"),
    pytest.param(CHUNKED + chunk("При"), send(b"zz\r\n"), id="chunk-size"),
]


@pytest.mark.parametrize(("wire", "end"), FRAMINGS)
async def test_a_reply_that_breaks_off_is_truncated_and_keeps_its_text(
    make_client: MakeClient, wire: bytes, end: Step
) -> None:
    # Without the pause the reset could overtake the bytes before it.
    error, _ = await fails(make_client, send(wire, b"", every=0.05), end)
    assert type(error) is TruncatedReply
    assert error.text == "При"
    assert "not HTTP" not in str(error)
    if end is reset:
        assert "characters: connection lost" in str(error)


async def test_a_character_cut_off_is_not_part_of_a_truncated_reply(
    make_client: MakeClient,
) -> None:
    error, _ = await fails(make_client, send(CHUNKED + chunk("При".encode()[:-1])), close)
    assert type(error) is TruncatedReply
    assert error.text == "Пр"


@pytest.mark.parametrize("end", [close, reset])
async def test_a_reply_that_breaks_off_before_its_first_text_is_truncated(
    make_client: MakeClient, end: Step
) -> None:
    error, _ = await fails(make_client, send(CHUNKED), end)
    assert type(error) in (TruncatedReply, ConnectError)
    assert getattr(error, "text", "") == ""


async def test_a_reply_longer_than_allowed_stops_at_the_limit(make_client: MakeClient) -> None:
    error, _ = await fails(
        make_client,
        send(chunked("12345", "678", "90abc", "def")),
        limits=Limits(max_reply_bytes=10),
    )
    assert type(error) is ReplyTooLong
    assert error.text == "1234567890"


async def test_an_endless_head_is_not_read_to_its_end(make_client: MakeClient) -> None:
    endless = head(200, *(f"x-{number}: {'a' * 1000}" for number in range(10_000)))
    error, peer = await fails(make_client, send(endless), close)
    assert type(error) is NotTheService
    assert peer.connections[0].sent < len(endless) / 2
