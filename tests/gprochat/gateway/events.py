"""Server-sent events as a client reads them."""

import json
from typing import Any

__all__ = ["deltas", "events_of"]


def events_of(data: bytes) -> list[tuple[str | None, Any]]:
    """The name and the data of each event; every event is complete."""
    *blocks, rest = data.decode().split("\n\n")
    assert rest == ""
    return [read_event(block) for block in blocks]


def read_event(block: str) -> tuple[str | None, Any]:
    name = None
    data = None
    for line in block.split("\n"):
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        else:
            assert field == "data"
            assert data is None
            data = value if value == "[DONE]" else json.loads(value)
    return name, data


def deltas(events: list[tuple[str | None, Any]]) -> list[str]:
    """The pieces of text in the events of either API."""
    found: list[str] = []
    for name, data in events:
        if isinstance(data, dict) and "choices" in data:
            found += filter(None, [data["choices"][0]["delta"].get("content")])
        elif name == "response.output_text.delta":
            found.append(data["delta"])
    return found
