"""What the protocol's page states in numbers is what the core does."""

import json
import re

from gprochat_core import Draft, Message, Service, Signer
from gprochat_core.reply import FAILURE_MARKER
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")


def rows(section: str) -> list[list[str]]:
    """The cells of a section's first table."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    table = re.findall(
        r"^\| (.+) \|$", text.split("\n\n|", 1)[1].partition("\n\n")[0], re.MULTILINE
    )
    return [row.split(" | ") for row in table[1:]]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_section_that_the_code_refers_to_is_there() -> None:
    headings = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    code = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("src/**/*.py"))
    references = re.findall(r"docs/protocol\.md, ([^.;)]+)", code)
    named = [name for each in references for name in re.findall(r'"([^"]+)"', each)]
    assert len(named) >= len(references) > 1
    assert [name for name in named if " ".join(name.split()) not in headings] == []


def test_every_vector_is_the_signature() -> None:
    vectors = rows("Signature")
    assert len(vectors) == 5
    for time_ms, *cells in vectors:
        (text,), (secret_key,), (sign,) = map(quoted, cells)
        assert Signer(json.loads(secret_key)).sign(int(time_ms), json.loads(text)) == sign


def test_the_example_is_the_request_of_the_first_vector() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    draft = Draft(
        Service("https://chat.example", secret_key="secret"), [Message("user", "Hello, world!")]
    )
    assert json.loads(draft.sign(1700000000000).body) == json.loads(example)


def test_the_headers_are_those_that_are_sent() -> None:
    service = Service("https://gprochat.com", secret_key="k")
    sent = dict(Draft(service, [Message("user", "Hi")]).sign(0).headers)
    assert sent.pop("accept-encoding") == "identity"
    stated = {name.strip("`"): quoted(value) for name, value in rows("Request")}
    assert stated.keys() == sent.keys()
    assert [name for name in sent if sent[name] not in stated[name]] == []


def test_the_failure_marker_is_as_long_as_stated() -> None:
    assert f"the {len(FAILURE_MARKER)} bytes `{FAILURE_MARKER}`" in PAGE
