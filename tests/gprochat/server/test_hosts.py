"""Which pages may call a service on this machine."""

import aiohttp
import pytest

from gprochat.server import Server, serve
from gprochat_core import ConfigurationError

from .serving import error_of, signed

pytestmark = pytest.mark.anyio

FOREIGN = [
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "localhost@evil.example",
    "192.0.2.1",
    "[2001:db8::1]",
    "[::1",
    "",
]
OWN = ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:8080"]


async def ask(session: aiohttp.ClientSession, server: Server, **headers: str) -> int:
    request = signed(server.service)
    headers = dict(request.headers) | headers
    async with session.post(request.url, headers=headers, data=request.body) as response:
        if response.status == 403:
            (name,) = {"host", "origin"} & {each for each in headers if headers[each] != OWN[0]}
            expected = f"This service does not answer to this {name.capitalize()}."
            assert error_of(await response.read()) == {"message": expected}
        return response.status


@pytest.mark.parametrize("name", FOREIGN)
async def test_a_foreign_host_is_refused_on_loopback(
    session: aiohttp.ClientSession, name: str
) -> None:
    async with serve() as server:
        assert await ask(session, server, host=name, origin=OWN[0]) == 403


@pytest.mark.parametrize("name", [f"https://{each}" for each in FOREIGN] + ["null"])
async def test_a_foreign_origin_is_refused_on_loopback(
    session: aiohttp.ClientSession, name: str
) -> None:
    async with serve() as server:
        assert await ask(session, server, host=OWN[0], origin=name) == 403


@pytest.mark.parametrize("name", OWN)
async def test_the_machines_own_names_are_good(session: aiohttp.ClientSession, name: str) -> None:
    async with serve(host="localhost") as server:
        assert await ask(session, server, host=name, origin=f"http://{name}") == 200


async def test_a_host_that_is_named_is_good(session: aiohttp.ClientSession) -> None:
    async with serve(allowed_hosts=["Chat.Example", "null"]) as server:
        assert await ask(session, server, host="chat.example:443", origin="null") == 200
        assert await ask(session, server, origin="https://chat.example:444") == 200
        assert await ask(session, server, host="chat.example.org", origin=OWN[0]) == 403


async def test_on_other_addresses_any_host_is_good(session: aiohttp.ClientSession) -> None:
    async with serve(host="0.0.0.0") as server:
        assert await ask(session, server, host="a.example", origin="https://b.example") == 200
    async with serve(host="0.0.0.0", allowed_hosts=["chat.example"]) as server:
        assert await ask(session, server, host="other.example", origin=OWN[0]) == 403


async def test_the_other_paths_are_guarded_too(session: aiohttp.ClientSession) -> None:
    async with serve() as server:
        for path in ("/", "/api/auth"):
            async with session.post(
                server.url + path, headers={"host": "evil.example"}
            ) as response:
                assert response.status == 403


@pytest.mark.parametrize("wrong", ["https://chat.example", "chat.example:8080", "chat.example/"])
async def test_what_is_no_host_name_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a host name; one looks like"):
        async with serve(allowed_hosts=["chat.example", wrong]):
            pass


async def test_one_name_in_place_of_a_list_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="list of host names"):
        async with serve(allowed_hosts="chat.example"):
            pass
