"""Deployments to put behind a gateway, and a caller of its API."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp

from gprochat.gateway import Deployment, Models, gateway
from gprochat.gateway.requests import API
from gprochat_core import Service

from .events import deltas, events_of

__all__ = ["KEY", "PATHS", "Answer", "Caller", "calling", "model_of", "models_of", "request_of"]

KEY: Final = "the-gateways-key"

PATHS: Final[Mapping[API, str]] = {"chat": "/v1/chat/completions", "responses": "/v1/responses"}


class Answer:
    """A response that was read to its end.

    Attributes:
        cut: whether the connection ended before the response did.
    """

    def __init__(
        self, status: int, headers: Mapping[str, str], body: bytes, *, cut: bool = False
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.cut = cut

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """The error of a body, or of the last event."""
        if self.headers.get("content-type") == "application/json":
            return self.json["error"]
        return self.events[-1][1].get("error")

    @property
    def events(self) -> list[tuple[str | None, Any]]:
        return events_of(self.body)

    @property
    def text(self) -> str:
        """The text of a reply, streamed or whole."""
        if self.headers["content-type"] != "application/json":
            return "".join(deltas(self.events))
        body = self.json
        if body["object"] == "response":
            return str(body["output"][0]["content"][0]["text"])
        return str(body["choices"][0]["message"]["content"])

    @property
    def complete(self) -> bool:
        """Whether a streamed response says that it is complete."""
        name, data = self.events[-1]
        return not self.cut and (data == "[DONE]" or name == "response.completed")


def request_of(api: API, *, stream: bool = False, **fields: object) -> dict[str, object]:
    conversation: object = [{"role": "user", "content": "Hi"}]
    said = {"messages": conversation} if api == "chat" else {"input": conversation}
    return {"model": "gprochat", "stream": stream, **said, **fields}


class Caller:
    """Sends requests to a gateway."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def send(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        kind = "data" if isinstance(body, bytes) else "json"
        sent: dict[str, Any] = {} if body is None else {kind: body}
        url = f"{self.url}{path}"
        async with self.session.request(method, url, headers=headers, **sent) as response:
            try:
                data = await response.read()
            except aiohttp.ClientPayloadError:
                return Answer(response.status, response.headers, b"", cut=True)
            return Answer(response.status, response.headers, data)

    async def ask(self, api: API = "chat", *, stream: bool = False, **fields: object) -> Answer:
        return await self.send("POST", PATHS[api], request_of(api, stream=stream, **fields))


def model_of(*services: Service) -> Models:
    """One model, gprochat, of these services."""
    return {"gprochat": [Deployment(f"d{at}", service) for at, service in enumerate(services)]}


def models_of(url: str) -> Models:
    """One model of a deployment that takes any signature."""
    return model_of(Service(url, secret_key="made-up"))


@asynccontextmanager
async def calling(models: Models, **options: Any) -> AsyncGenerator[Caller, None]:
    """Run a gateway and give a caller of it, who has its key."""
    options = {"key": KEY, "grace": 0.0, **options}
    async with (
        gateway(models, **options) as running,
        aiohttp.ClientSession(
            headers={"authorization": f"Bearer {running.key}"},
            connector=aiohttp.TCPConnector(limit=0),
        ) as session,
    ):
        yield Caller(session, running.url)
