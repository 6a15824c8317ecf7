"""Wrong passwords slow down the address that they come from, and no other."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import cast

import aiohttp
import pytest
from aiohttp import web

from gprochat.server import Server, deployment, guesses, serve
from gprochat.server.guesses import Guesses
from gprochat_core import Refusal

from .serving import error_of, send, signed

Way = Callable[[aiohttp.ClientSession, Server, str], Awaitable[object]]

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs in hundredths of a second, and three wrong passwords are free."""
    monkeypatch.setattr(guesses, "COST", 0.05)
    monkeypatch.setattr(guesses, "CREDIT", 0.15)
    monkeypatch.setattr(guesses, "PATIENCE", 0.2)


async def guess(session: aiohttp.ClientSession, server: Server, password: str) -> object:
    async with session.post(f"{server.url}/api/auth", json={"pass": password}) as response:
        body = await response.read()
        if response.status == 429:
            assert error_of(body) == {"message": "Too many wrong passwords."}
            return 429
        return json.loads(body)["code"]


async def ask(session: aiohttp.ClientSession, server: Server, password: str) -> object:
    async with send(session, signed(server.service), **{"pass": password}) as response:
        return response.status


@pytest.mark.parametrize("way", [guess, ask])
async def test_after_a_few_wrong_passwords_the_next_must_wait(
    session: aiohttp.ClientSession, way: Way
) -> None:
    async with serve(password="sesame") as server:
        begun = time.monotonic()
        for _ in range(3):
            await way(session, server, "wrong")
        assert time.monotonic() - begun < 0.1
        for _ in range(4):
            await way(session, server, "wrong")
        assert time.monotonic() - begun > 0.13


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("way", [guess, ask])
async def test_many_at_once_are_no_faster(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, way: Way, large: bool
) -> None:
    if large:
        # Each request waits until the request before it has been parsed in another thread.
        monkeypatch.setattr(deployment, "LARGE_BODY", 1)
    async with serve(password="sesame") as server:
        begun = time.monotonic()
        outcomes = await asyncio.gather(*[way(session, server, "wrong") for _ in range(100)])
        took = time.monotonic() - begun
    looked_at = len(outcomes) - outcomes.count(429)
    assert 3 <= looked_at <= 4 + took / 0.05
    assert 429 in outcomes


async def test_a_right_password_waits_as_long_as_a_wrong_one(
    session: aiohttp.ClientSession,
) -> None:
    async with serve(password="sesame") as server:
        for _ in range(5):
            await guess(session, server, "wrong")
        begun = time.monotonic()
        assert await guess(session, server, "sesame") == 0
        assert time.monotonic() - begun > 0.03
        assert await guess(session, server, "sesame") == 0


async def test_right_passwords_never_wait(session: aiohttp.ClientSession) -> None:
    async with serve(password="sesame") as server:
        begun = time.monotonic()
        for _ in range(20):
            assert await guess(session, server, "sesame") == 0
        assert time.monotonic() - begun < 0.5


def request_from(remote: str | None) -> web.Request:
    return cast("web.Request", SimpleNamespace(remote=remote))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("192.0.2.1", None, False),
        (None, None, True),
    ],
)
async def test_an_address_of_ipv6_is_its_first_half(
    one: str | None, other: str | None, same: bool
) -> None:
    guesses = Guesses()
    for _ in range(100):
        guesses.wrong(request_from(one))
    if same:
        with pytest.raises(Refusal):
            await guesses.wait(request_from(other))
    else:
        await guesses.wait(request_from(other))


async def test_the_addresses_remembered_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "MAX_ADDRESSES", 10)
    remembered = Guesses()
    for number in range(100):
        for _ in range(100):
            remembered.wrong(request_from(f"192.0.2.{number}"))
    assert len(remembered._paid_at) == 10
    with pytest.raises(Refusal):
        await remembered.wait(request_from("192.0.2.99"))
