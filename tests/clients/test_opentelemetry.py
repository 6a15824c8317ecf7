"""OpenTelemetry: the recipes' calls are spans, without secrets."""

import asyncio
from collections.abc import Iterator
from types import ModuleType

import pytest
from opentelemetry import propagate, trace
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.docs.pages import module_of
from tests.peers.scripted import ScriptedPeer, receive, send
from tests.peers.wire import answer, chunked

KEY = "a key that no span shows"
PASSWORD = "a password that no span shows"

FILES = pytest.mark.parametrize("file", ["over_aiohttp.py", "over_httpx.py"])


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Collects the spans of a test."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def get_tracer_provider() -> TracerProvider:
        return provider

    # OpenTelemetry takes a provider only once in a process.
    monkeypatch.setattr(trace, "get_tracer_provider", get_tracer_provider)
    AioHttpClientInstrumentor().uninstrument()
    yield exporter
    AioHttpClientInstrumentor().uninstrument()


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedPeer]:
    """A deployment that fails once."""
    script = [receive, send(answer(503, "", "retry-after: 0")), receive, send(chunked("Hi", "!"))]
    with ScriptedPeer(script) as peer:
        monkeypatch.setenv("GPROCHAT_URL", peer.url)
        monkeypatch.setenv("GPROCHAT_SECRET_KEY", KEY)
        monkeypatch.setenv("GPROCHAT_PASSWORD", PASSWORD)
        yield peer


def play(file: str) -> ModuleType:
    module = module_of("opentelemetry", file)
    assert asyncio.run(module.ask("Hello, model")) == "Hi!"
    return module


def status(span: ReadableSpan) -> object:
    attributes = span.attributes or {}
    return attributes.get("http.response.status_code", attributes.get("http.status_code"))


@FILES
@pytest.mark.filterwarnings("ignore")
def test_each_attempt_is_a_span_within_the_caller_s(
    file: str, spans: InMemorySpanExporter, peer: ScriptedPeer
) -> None:
    play(file)
    *attempts, ask = spans.get_finished_spans()
    assert ask.name == "ask"
    assert [status(each) for each in attempts] == [503, 200]
    assert {each.parent and each.parent.span_id for each in attempts} == {ask.context.span_id}
    text = "".join(each.to_json() for each in (*attempts, ask))
    assert "/api/generate" in text
    assert [each for each in (KEY, PASSWORD, "Hello, model", "Hi!") if each in text] == []


@FILES
@pytest.mark.filterwarnings("ignore")
def test_the_deployment_learns_the_trace_unless_there_is_no_propagator(
    file: str, spans: InMemorySpanExporter, peer: ScriptedPeer
) -> None:
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(CompositePropagator([]))
    try:
        play(file)
    finally:
        propagate.set_global_textmap(before)
    assert [each.field("traceparent") for each in peer.requests] == [None, None]
    assert spans.get_finished_spans()


@FILES
@pytest.mark.filterwarnings("ignore")
def test_the_deployment_learns_the_trace(
    file: str, spans: InMemorySpanExporter, peer: ScriptedPeer
) -> None:
    play(file)
    assert [each for each in peer.requests if not each.field("traceparent")] == []
