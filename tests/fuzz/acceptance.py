"""Any bytes as a request's body: accepted or refused, and nothing else.

Few bytes are signed, so the harness also signs what it is given: of whatever conversation a body
holds, a client with the key and the password can make a request that is accepted, or the service
says what is wrong with it.
"""

import json
from codecs import BOM_UTF8
from typing import Any, Final

from gprochat_core import Acceptance, Accepted, Draft, Refusal, Service, Signer

KEY: Final = "hunter2:ключ"
PASSWORD: Final = "открой-2"
SERVICE: Final = Service(
    "https://chat.example", secret_key=KEY, password=PASSWORD, encoding="content"
)
NOW_MS: Final = 1_700_000_000_000
FRESHNESS_MS: Final = 1000

ACCEPTANCE: Final = Acceptance(SERVICE, freshness_ms=FRESHNESS_MS)

Refused = tuple[int, str]


def decide(body: bytes) -> Accepted | Refused:
    """What becomes of a request; either way, it must be sound."""
    try:
        accepted = ACCEPTANCE.accept(body, NOW_MS)
    except Refusal as refusal:
        return told(refusal)
    assert accepted.messages[-1].role == "user"
    assert abs(accepted.time_ms - NOW_MS) <= FRESHNESS_MS
    return accepted


def told(refusal: Refusal) -> Refused:
    """What a refusal tells: enough, and no secret."""
    assert refusal.status in (400, 401, 413)
    assert json.loads(refusal.body) == {"error": {"message": refusal.message}}
    assert len(refusal.message) < 200
    assert KEY not in refusal.message
    assert PASSWORD not in refusal.message
    return refusal.status, refusal.message


def sign(body: bytes) -> bytes | None:
    """The body with password, time and signature set right; None where it cannot be."""
    try:
        request: Any = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(request, dict):
        return None
    try:
        last = request["messages"][-1]
        text = last["content"] if "content" in last else "".join(p["text"] for p in last["parts"])
        # As a browser signs a lone surrogate.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        signature = Signer(KEY).sign(NOW_MS, text)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        signature = ""
    try:
        return json.dumps(request | {"time": NOW_MS, "pass": PASSWORD, "sign": signature}).encode()
    except RecursionError:
        return None


def acceptance(data: bytes) -> None:
    """The harness."""
    decision = decide(data)
    assert decide(data + b" ") == decision
    if not data.startswith(BOM_UTF8):
        assert decide(BOM_UTF8 + data) == decision

    decision = decide(sign(data) or b"")
    if not isinstance(decision, Accepted):
        assert decision[0] in (400, 413)
        return
    again = Draft(SERVICE, decision.messages).sign(NOW_MS)
    assert decide(again.body) == decision
    tampered = again.body.replace(b'"time":', b'"time":1', 1)
    assert not isinstance(decide(tampered), Accepted)
