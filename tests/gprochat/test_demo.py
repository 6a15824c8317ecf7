"""The demonstration: it shows a chat over each transport, and fails if a reply is wrong."""

from collections.abc import AsyncIterator

import pytest

from gprochat import demo, server
from gprochat_core import Message


def test_every_transport_has_its_turns(capfd: pytest.CaptureFixture[str]) -> None:
    assert demo.main() == 0
    output, errors = capfd.readouterr()
    for transport in demo.TRANSPORTS:
        assert transport in output
    for prompt in demo.TURNS:
        assert output.count(prompt) == 2 * len(demo.TRANSPORTS)
    assert errors == ""


def test_an_answer_that_is_not_the_echo_is_a_failure(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def other(messages: tuple[Message, ...]) -> AsyncIterator[str]:
        yield "something else"

    monkeypatch.setattr(demo, "serve", lambda grace: server.serve(other, grace=grace))
    assert demo.main() == 1
    assert "the reply is not the echo" in capfd.readouterr().err
