"""Whatever fails and whoever provokes it: no secret comes out in what a program would print or log.

Secrets are the secret key, the site password and a proxy's password. `fail` checks the error of
each call that fails, here and in `test_frames.py`, which plays hostile services (they send back
what they were sent) and HTTP proxies.
"""

import json
import secrets
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import pytest

from gprochat_core import (
    GPROChatError,
    InvalidMessages,
    RetryPolicy,
    Service,
    Timeouts,
)
from tests.contract.adapters import ADAPTERS, Adapter, Client
from tests.peers.scripted import (
    Connection,
    Script,
    ScriptedPeer,
    Step,
    close,
    receive,
    until_client_closes,
)
from tests.peers.wire import answer, chunk, head

each_adapter = pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda each: each.name)

QUICK: Final[dict[str, Any]] = {
    "timeouts": Timeouts(connect=0.5, first_byte=0.2, idle=0.2),
    "retry": RetryPolicy(max_attempts=2, base_delay=0.0),
}


@dataclass(frozen=True)
class Secrets:
    """What must not come out, freshly drawn."""

    key: str = field(default_factory=lambda: f"key-{secrets.token_hex()}")
    password: str = field(default_factory=lambda: f"päss-{secrets.token_hex()}")
    proxy_password: str = field(default_factory=lambda: f"proxy:@-{secrets.token_hex()}")
    text: str = field(default_factory=lambda: f"Скажи {secrets.token_hex()}")

    def service(self, url: str, *, password: bool = True) -> Service:
        return Service(url, secret_key=self.key, password=self.password if password else None)

    def proxy(self, scheme: str, port: int) -> str:
        return f"{scheme}://user:{quote(self.proxy_password, safe='')}@127.0.0.1:{port}"

    def found_in(self, text: str) -> list[str]:
        """The secrets that a text tells, however they are written."""
        found: list[str] = []
        for secret in (self.key, self.password, self.proxy_password, self.text):
            # Each has a part that nothing escapes.
            core = secret.rpartition("-")[2].rpartition(" ")[2]
            basic = b64encode(f"user:{secret}".encode()).decode()
            if core in text or basic in text:
                found.append(secret)
        return found


def told(error: BaseException) -> Iterator[str]:
    """All that a program, a log or a debugger would print of an error and what led to it."""
    yield "".join(traceback.format_exception(error))
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        left += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
        yield f"{one} {one!r} {one.args!r} {getattr(one, '__notes__', ())!r}"
        for value in vars(one).values():
            yield f"{value!r} {value}"
            headers = getattr(value, "headers", None)
            if headers is not None:
                yield repr(list(headers.items()))


def see_that_nothing_is_told(error: BaseException, hidden: Secrets) -> None:
    for text in told(error):
        assert hidden.found_in(text) == [], text


def fail(
    adapter: Adapter, hidden: Secrets, url: str, *, password: bool = True, **settings: Any
) -> GPROChatError:
    """Make a call that fails, see that its error tells no secret, and return it."""
    errors: list[GPROChatError] = []

    async def main() -> None:
        service = hidden.service(url, password=password)
        client: Client = adapter.make(service, **{"proxy": None} | QUICK | settings)
        async with client:
            with pytest.raises(GPROChatError) as caught:
                await client.complete([{"role": "user", "content": hidden.text}])
            errors.append(caught.value)

    adapter.loop.run(main)
    see_that_nothing_is_told(errors[0], hidden)
    return errors[0]


def echo(form: Callable[[str], bytes]) -> Step:
    """Answer with the request's password and signature, in some form."""

    def step(connection: Connection) -> None:
        body = json.loads(connection.requests[-1].body)
        connection.send(form(f"{body['pass']} {body['sign']}"))

    return step


def error_body(message: str, code: str | None = None) -> str:
    return json.dumps({"error": {"message": message, "code": code}})


def status(number: int) -> Step:
    return echo(lambda said: answer(number, error_body(said)))


ECHOES: Final[dict[str, Step]] = {
    **{f"in the message of a {number}": status(number) for number in (400, 401, 403, 413, 429)},
    "in the message of a 500": status(500),
    "in the message of a 503": status(503),
    "in the message of a 401 for the signature": echo(
        lambda said: answer(401, error_body(f"Invalid signature. {said}"))
    ),
    "in the message of a 401 for the password": echo(
        lambda said: answer(401, error_body(f"Invalid password. {said}"))
    ),
    "in a long message, where it is cut": echo(
        lambda said: answer(500, error_body("x" * 470 + said))
    ),
    "in an error's code": echo(lambda said: answer(500, error_body("no", said))),
    "in an error that is not JSON": echo(lambda said: answer(500, said)),
    "in an error cut short": echo(lambda said: answer(500, said + "x" * 99)[:-99]),
    "in a redirect": echo(
        lambda said: answer(302, "", f"location: https://other.example/?p={quote(said)}")
    ),
    "in a redirect, raw": echo(
        lambda said: head(302, "content-length: 0")[:-2] + f"location: /{said}\r\n\r\n".encode()
    ),
    "in the reason": echo(
        lambda said: b"HTTP/1.1 500 " + said.encode() + b"\r\ncontent-length: 0\r\n\r\n"
    ),
    "in the status line": echo(lambda said: b"HTTP/1.1 " + said.encode() + b"\r\n\r\n"),
    "instead of HTTP": echo(lambda said: said.encode() + b"\r\n\r\n"),
    "in a header that is none": echo(
        lambda said: b"HTTP/1.1 200 OK\r\n" + said.encode() + b"\r\n\r\n"
    ),
    "in a length": echo(lambda said: head(200)[:-2] + f"content-length: {said}\r\n\r\n".encode()),
    "in a content coding": echo(
        lambda said: (
            head(200, "content-length: 0")[:-2] + f"content-encoding: {said}\r\n\r\n".encode()
        )
    ),
    "in place of a chunk's size": echo(
        lambda said: head(200, "transfer-encoding: chunked") + said.encode() + b"\r\n"
    ),
    "in place of a later chunk's size": echo(
        lambda said: head(200, "transfer-encoding: chunked") + chunk("a") + said.encode() + b"\r\n"
    ),
    "in a trailer that is none": echo(
        lambda said: (
            head(200, "transfer-encoding: chunked")
            + chunk("a")
            + b"0\r\n"
            + said.encode()
            + b"\r\n\r\n"
        )
    ),
}


PROXY_ANSWERS: Final[dict[str, Script]] = {
    "refuses the password": [lambda c: c.send(answer(407, b""))],
    "closes": [],
    "answers garbage": [lambda c: c.send(b"\xff\xfe nonsense\r\n\r\n")],
    "sends the password back": [
        lambda c: c.send(b"HTTP/1.1 407 " + c._buffer.replace(b"\r\n", b" ") + b"\r\n\r\n")
    ],
}


@each_adapter
@pytest.mark.parametrize(
    "answers",
    [
        [b"\x05\xff"],
        [b"\x05\x02", b"\x01\x01"],
        [b"\x05\x02", b"\x01\x00", b"\x05\x05\x00\x01\0\0\0\0\0\0"],
        [b"\x05\x02", b"garbage"],
        [b"\x04"],
        [],
    ],
    ids=["no method", "wrong password", "refused", "garbage", "not SOCKS5", "closed"],
)
def test_a_socks_proxys_password_is_not_told(adapter: Adapter, answers: list[bytes]) -> None:
    def play(connection: Connection) -> None:
        for each in answers:
            connection._read()
            connection.send(each)
        connection._read()

    hidden = Secrets()
    with ScriptedPeer([play, close]) as proxy:
        url = "https://service.invalid"
        fail(adapter, hidden, url, proxy=hidden.proxy("socks5", proxy.port))


@each_adapter
@pytest.mark.parametrize(
    "script",
    [
        [],
        [receive],
        [receive, until_client_closes],
        [receive, lambda c: c.send(head(200, "transfer-encoding: chunked") + chunk("a"))],
        [
            receive,
            lambda c: c.send(head(200, "transfer-encoding: chunked") + chunk("a")),
            until_client_closes,
        ],
    ],
    ids=["closed", "closed after the request", "silent", "cut", "standing still"],
)
def test_a_service_that_says_nothing_more_is_told_without_secrets(
    adapter: Adapter, script: Script
) -> None:
    hidden = Secrets()
    with ScriptedPeer(script) as peer:
        fail(adapter, hidden, peer.url)


@each_adapter
def test_no_object_shows_a_secret(adapter: Adapter) -> None:
    hidden = Secrets()
    shown: list[object] = []

    async def main() -> None:
        client = adapter.make(hidden.service(peer.url), proxy=None, **QUICK)
        async with client:
            reply = client.stream(hidden.text)
            show(client, reply)
            async with reply:
                show(client, reply)
            with pytest.raises(GPROChatError) as caught:
                await anext(reply)
            show(caught.value)

    def show(*objects: object) -> None:
        for one in objects:
            inner = [
                getattr(one, name)
                for name in ("_client", "_reply", "_transport", "_exchange")
                if hasattr(one, name)
            ]
            shown.extend([one, *inner])
            show(*inner)
        for one in shown:
            for text in (repr(one), str(one), f"{one}"):
                assert hidden.found_in(text) == [], text

    with ScriptedPeer([receive, lambda c: c.send(head(200, "content-length: 1"))]) as peer:
        adapter.loop.run(main)
    assert len(shown) > 8


@each_adapter
def test_a_conversation_that_cannot_be_sent_is_not_quoted(adapter: Adapter) -> None:
    hidden = Secrets()
    for conversation in (
        [{"role": "user", "content": hidden.text + "\ud800"}],
        [{"role": "user", "content": hidden.text}, {"role": "assistant", "content": hidden.text}],
        [{"role": "user", "content": {"text": hidden.text}}],
        [{"role": "user", "content": [hidden.text]}],
        [{"role": "user", "text": hidden.text}],
    ):

        async def main(conversation: Any = conversation) -> None:
            async with adapter.make(hidden.service("https://chat.example"), proxy=None) as client:
                with pytest.raises(InvalidMessages) as caught:
                    client.stream(conversation)
                see_that_nothing_is_told(caught.value, hidden)

        adapter.loop.run(main)


PLAIN: Final = "http://chat.example"


@each_adapter
def test_a_password_in_plain_text_is_warned_of_once_for_each_client(adapter: Adapter) -> None:
    hidden = Secrets()

    async def main() -> None:
        for _ in range(2):
            with pytest.warns(UserWarning, match="plain http") as warned:
                client = adapter.make(hidden.service(PLAIN), proxy=None)
            (warning,) = warned
            assert hidden.found_in(str(warning.message)) == []
            async with client:
                # From here on warnings are errors.
                for _ in range(2):
                    client.stream(hidden.text)

    adapter.loop.run(main)


@each_adapter
@pytest.mark.parametrize(
    "url", ["https://chat.example", "http://127.0.0.1:8000", "http://localhost", "http://[::1]:1"]
)
def test_a_password_that_nobody_can_read_is_not_warned_of(adapter: Adapter, url: str) -> None:
    async def main() -> None:
        # Warnings are errors here.
        async with adapter.make(Secrets().service(url), proxy=None) as client:
            client.stream("Hello")

    adapter.loop.run(main)


@each_adapter
def test_no_password_is_not_warned_of(adapter: Adapter) -> None:
    async def main() -> None:
        async with adapter.make(Service(PLAIN, secret_key="k"), proxy=None) as client:
            client.stream("Hello")

    adapter.loop.run(main)
