"""requests and urllib3: the recipes' requests are accepted, and their replies read as they come."""

import gzip
import threading
from typing import Any

import pytest

from gprochat_core import Service, SignatureRejected
from tests.docs.pages import ROOT, blocks
from tests.peers.scripted import ScriptedPeer, receive, send, wait_for
from tests.peers.wire import LAST_CHUNK, answer, chunk, head

LIBRARIES = pytest.mark.parametrize("library", ["requests", "urllib3"])


def play(library: str, **names: Any) -> None:
    """Run the recipe for a library."""
    page = ROOT / "docs" / "recipes" / "requests.md"
    (code,) = [each.code for each in blocks(page) if each.directives.get("needs") == library]
    exec(compile(code, library, "exec"), names)


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPROCHAT_SECRET_KEY", "made up")
    monkeypatch.delenv("GPROCHAT_PASSWORD", raising=False)


@LIBRARIES
def test_each_piece_is_passed_on_at_once(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    read = threading.Event()

    def note(text: str, **_: object) -> None:
        printed.append(text)
        read.set()

    begin = head(200, "transfer-encoding: chunked") + chunk("one ")
    rest = send(chunk("two") + LAST_CHUNK)
    with ScriptedPeer([receive, send(begin), wait_for(read), rest]) as peer:
        monkeypatch.setenv("GPROCHAT_URL", peer.url)
        play(library, print=note)
    assert "".join(printed) == "one two"


@LIBRARIES
def test_a_compressed_reply(
    library: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    body = gzip.compress("Привет".encode())
    with ScriptedPeer([receive, send(answer(200, body, "content-encoding: gzip"))]) as peer:
        monkeypatch.setenv("GPROCHAT_URL", peer.url)
        play(library)
    assert capsys.readouterr().out == "Привет\n"


@LIBRARIES
def test_a_wrong_key_is_the_error_of_a_client(
    library: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPROCHAT_URL", service.url)
    with pytest.raises(SignatureRejected):
        play(library)
