"""`Ask`, without Ray: a batch is a table of this file's. `tests/ray/` has the tables of Arrow."""

import gc
import logging
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain
from typing import Any, Self

import pytest

from gprochat import Client
from gprochat.batch import Ask, Result, ray
from gprochat.server import Server, in_thread, serve
from gprochat_core import (
    ConfigurationError,
    Limits,
    Message,
    RetryPolicy,
    Service,
    SignatureRejected,
    Timeouts,
    UsageError,
)

BROKEN = "Break off"


class Column:
    def __init__(self, values: Sequence[Any]) -> None:
        self.values = values

    def to_pylist(self) -> list[Any]:
        return list(self.values)


class Table:
    """What `Ask` uses of a `pyarrow.Table`."""

    def __init__(self, columns: Mapping[str, Sequence[Any]]) -> None:
        self.columns = columns

    @property
    def column_names(self) -> Sequence[str]:
        return list(self.columns)

    def column(self, i: str) -> Column:
        return Column(self.columns[i])

    def append_column(self, field_: str, column: Sequence[Sequence[Any]]) -> Self:
        return type(self)({**self.columns, field_: list(chain.from_iterable(column))})


class Calls:
    """How many calls the service has had, and how many at once at most."""

    def __init__(self) -> None:
        self.all = self.at_once = self.most = 0


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def server(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A service that repeats a prompt, but for BROKEN; the environment names it."""

    async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
        calls.all += 1
        calls.at_once += 1
        calls.most = max(calls.most, calls.at_once)
        try:
            yield messages[-1].text[:4]
            if messages[-1].text == BROKEN:
                raise RuntimeError("the model failed")
            yield messages[-1].text[4:]
        finally:
            calls.at_once -= 1

    with in_thread(serve(answer, grace=0.0)) as server:
        monkeypatch.setenv("GPROCHAT_URL", server.service.url)
        monkeypatch.setenv("GPROCHAT_SECRET_KEY", server.service.secret_key or "")
        yield server


@pytest.fixture
def asks() -> Iterator[Callable[..., Ask]]:
    """Make objects that are closed at the end."""
    made: list[Ask] = []

    def make(**arguments: Any) -> Ask:
        made.append(Ask(**arguments))
        return made[-1]

    yield make
    for each in made:
        each.close()


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "gprochat-ask"]


@pytest.mark.usefixtures("server")
def test_a_client_has_the_time_limits_and_as_many_connections_as_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[dict[str, object]] = []

    def make(service: Service, **options: Any) -> Client:
        made.append(options)
        return Client(service, **options)

    monkeypatch.setattr(ray, "Client", make)
    ask = Ask(concurrency=300, timeouts=Timeouts(total=7.0))
    for each in (ask, pickle.loads(pickle.dumps(ask))):
        with closing(each):
            each(Table({"prompt": ["Hello"]}))
    options = {"timeouts": Timeouts(total=7.0), "limits": Limits(max_connections=300)}
    assert made == [options, options]


@pytest.mark.usefixtures("server")
def test_a_batch_comes_back_in_its_order_with_the_replies(asks: Callable[..., Ask]) -> None:
    prompts = [f"prompt {number}" for number in range(20)]
    batch = asks()(Table({"id": range(20), "prompt": prompts}))
    assert batch.columns["id"] == range(20)
    assert batch.columns["reply"] == batch.columns["prompt"] == prompts
    assert batch.columns["status"] == [200] * 20
    assert batch.columns["attempts"] == [1] * 20
    assert all(seconds > 0 for seconds in batch.columns["seconds"])
    for name in ("error", "error_message", "partial_reply"):
        assert batch.columns[name] == [""] * 20


@pytest.mark.usefixtures("server")
def test_a_conversation_is_asked_too(asks: Callable[..., Ask]) -> None:
    conversation = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    batch = asks(column="messages")(Table({"messages": [conversation]}))
    assert batch.columns["reply"] == ["Be brief.\n\nHi"]


@pytest.mark.usefixtures("server")
def test_a_prompt_that_fails_is_a_row_like_the_others(asks: Callable[..., Ask]) -> None:
    ask = asks(retry=RetryPolicy(max_attempts=2, base_delay=0.0))
    columns = ask(Table({"prompt": ["Hello", BROKEN, None]})).columns
    assert columns["reply"] == ["Hello", "", ""]
    assert columns["error"] == ["", "InterruptedReply", "InvalidMessages"]
    assert columns["partial_reply"] == ["", BROKEN[:4], ""]
    assert columns["status"] == [200, 200, 0]
    assert columns["attempts"] == [1, 2, 0]
    nothing, interrupted, invalid = columns["error_message"]
    assert nothing == ""
    assert "after 4 characters of the reply" in interrupted
    assert "not NoneType" in invalid


def test_all_batches_use_one_client_and_keep_to_one_concurrency(
    server: Server, calls: Calls, asks: Callable[..., Ask]
) -> None:
    ask = asks(concurrency=2)
    batches = [Table({"prompt": [f"{batch} {n}" for n in range(10)]}) for batch in range(4)]

    def answered(batch: Table) -> bool:
        return ask(batch).columns["reply"] == batch.columns["prompt"]

    with ThreadPoolExecutor(4) as executor:
        assert all(executor.map(answered, batches))
    assert calls.all == 40
    assert calls.most <= 2
    assert len(threads()) == 1


@pytest.mark.usefixtures("server")
def test_results_are_not_kept_after_their_batch(asks: Callable[..., Ask]) -> None:
    ask = asks()
    for _ in range(3):
        ask(Table({"prompt": ["Hello"] * 50}))
    gc.collect()
    # Those of the last batch may not be gone yet.
    assert sum(isinstance(each, Result) for each in gc.get_objects()) <= 50


def test_a_wrong_key_raises_for_every_batch(
    server: Server, asks: Callable[..., Ask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPROCHAT_SECRET_KEY", "wrong")
    ask = asks()
    for _ in range(2):
        with pytest.raises(SignatureRejected):
            ask(Table({"prompt": ["Hello", "Hi"]}))


def test_without_a_service_in_the_environment_the_error_says_what_to_set(
    asks: Callable[..., Ask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GPROCHAT_URL", raising=False)
    with pytest.raises(ConfigurationError, match="GPROCHAT_URL"):
        asks()(Table({"prompt": ["Hello"]}))


def test_a_pickled_object_has_the_arguments_and_no_secret_nor_has_the_log(
    server: Server,
    asks: Callable[..., Ask],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("GPROCHAT_PASSWORD", "open sesame")
    ask = asks(column="question", concurrency=3, retry=RetryPolicy(max_attempts=1))
    ask(Table({"question": ["Hello"]}))
    pickled = pickle.dumps(ask)
    copy = pickle.loads(pickled)
    try:
        assert copy(Table({"question": [BROKEN]})).columns["attempts"] == [1]
    finally:
        copy.close()
    assert repr(copy) == repr(ask) == "<Ask column='question' concurrency=3>"
    for secret in ("open sesame", server.service.secret_key):
        assert secret
        assert secret.encode() not in pickled
        assert secret not in caplog.text


def test_a_batch_that_is_no_table_is_refused(asks: Callable[..., Ask]) -> None:
    batch: Any = {"prompt": ["Hello"]}
    with pytest.raises(UsageError, match='batch_format="pyarrow"'):
        asks()(batch)


def test_a_missing_column_is_named(asks: Callable[..., Ask]) -> None:
    with pytest.raises(UsageError, match="no column 'prompt' but id, text"):
        asks()(Table({"id": [1], "text": ["Hello"]}))


def test_no_column_is_overwritten_and_nothing_is_asked(
    server: Server, calls: Calls, asks: Callable[..., Ask]
) -> None:
    with pytest.raises(UsageError, match="overwritten: reply, error"):
        asks()(Table({"prompt": ["Hello"], "error": [""], "reply": [""]}))
    assert calls.all == 0


def test_a_concurrency_that_is_no_number_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="concurrency"):
        Ask(concurrency=0)


@pytest.mark.usefixtures("server")
def test_the_thread_ends_when_the_object_is_deleted() -> None:
    ask = Ask()
    ask(Table({"prompt": ["Hello"]}))
    assert threads()
    del ask
    gc.collect()
    assert not threads()
