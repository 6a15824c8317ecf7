"""The command `gprochat batch`: what it asks, what it writes, how it ends and how it goes on."""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final, Self

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing

from gprochat.batch import Failure, Prompt, Result, Results, ask_many
from gprochat.batch.reading import read_prompts
from gprochat.batch.records import OutputFile, digest, dump
from gprochat.cli.batch import READ_AHEAD, SKIPS, Budget, Job, batch, finish, open_input
from gprochat.cli.loops import Loop, choose
from gprochat.cli.progress import Progress
from gprochat.server import Answer, in_thread, serve
from gprochat_core import Limits, Message, Service
from gprochat_transports import Client
from tests.gprochat.batch.double import Double
from tests.peers import wire
from tests.peers.scripted import ScriptedPeer, receive, send

from .running import COMMAND as RUN
from .running import LIMIT, Forked, environment, forked, invoke, on_terminal, run

INVALID: Final = {"id": "bad", "messages": []}
"""A prompt that fails without being sent."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the test works in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(*items: object) -> None:
    Path("in.jsonl").write_text("".join(f"{json.dumps(item)}\n" for item in items))


def prompts(*texts: str) -> list[dict[str, str]]:
    return [{"id": text, "prompt": text} for text in texts]


def results() -> list[dict[str, Any]]:
    path = Path("out.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def replies() -> dict[str, str]:
    return {item["id"]: item["text"] for item in results()}


def done_before(prompt: Prompt, *, failed: bool = False) -> None:
    """Append a result of an earlier run to the output."""
    error = Failure("ServiceFailed", "the service failed", "") if failed else None
    result = Result(prompt.id, None if failed else "re", 200, 1, 0.1, error)
    with Path("out.jsonl").open("ab") as file:
        file.write(dump(result, digest(prompt)))


COMMAND: Final = ("batch", "in.jsonl", "-o", "out.jsonl")


def wait_for(count: int) -> None:
    """Wait until the output has that many results."""
    deadline = time.monotonic() + LIMIT
    while len(results()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def interrupt(process: Forked, until: str) -> None:
    """Press Ctrl-C, and wait until the command says this."""
    process.send_signal(signal.SIGINT)
    while until not in (line := process.stderr.readline()):
        assert line


def rest(process: Forked) -> str:
    """Wait for the end of a command, and return the rest of its standard error."""
    return process.communicate(timeout=LIMIT)[1]


@pytest.mark.parametrize("transport", ["aiohttp", "httpx", "trio"])
def test_each_prompt_is_answered_once(service: Service, transport: str) -> None:
    write(*prompts("a", "b", "c"))
    result = invoke(*COMMAND, "--transport", transport, service=service)
    assert result.exit_code == 0
    assert replies() == {"a": "a", "b": "b", "c": "c"}
    assert len(results()) == 3
    assert result.stdout == ""
    assert result.stderr.startswith("3 answered, 0 failed, 0 not done; 3 attempts in ")


def test_the_results_may_be_in_the_order_of_the_prompts() -> None:
    last = Event()

    async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
        if messages[-1].text == "last":
            last.set()
        if messages[-1].text == "first":
            await asyncio.to_thread(last.wait, LIMIT)
        yield messages[-1].text

    # With two calls at once, "a" is answered before "last" is asked, and so before "first".
    write(*prompts("first", "a", "last"))
    command = (*COMMAND, "--ordered", "--concurrency", "2")
    with in_thread(serve(answer, grace=0.0)) as server:
        assert invoke(*command, service=server.service).exit_code == 0
    assert list(replies()) == ["first", "a", "last"]


@pytest.mark.parametrize(
    ("arguments", "reply"),
    [(("--template", "Translate: {text}"), "Translate: Hello"), (("--column", "text"), "Hello")],
    ids=["template", "column"],
)
def test_csv_with_a_template_or_a_column(
    service: Service, arguments: Iterable[str], reply: str
) -> None:
    Path("table.csv").write_text("id,text\na,Hello\n")
    command = ("batch", "table.csv", "-o", "out.jsonl", *arguments)
    assert invoke(*command, service=service).exit_code == 0
    assert replies() == {"a": reply}


def test_standard_input(service: Service) -> None:
    done = run("batch", "-", "-o", "out.jsonl", service=service, stdin="Hello\n\nHi\n")
    assert done.returncode == 0, done.stderr
    assert replies() == {"1": "Hello", "3": "Hi"}
    done = run("batch", "-", "-o", "out.jsonl", service=service, stdin="Hello\n\nHi\nNew\n")
    assert "3 answered, 0 failed, 0 not done; 1 attempts" in done.stderr
    assert replies() == {"1": "Hello", "3": "Hi", "4": "New"}


def test_standard_input_that_is_a_file_is_read_from_where_it_is(service: Service) -> None:
    Path("in.txt").write_text("a title\nHello\nHi\n")
    with Path("in.txt").open("rb", buffering=0) as file:
        file.seek(len("a title\n"))
        done = subprocess.run(
            [*RUN, "batch", "-", "-o", "out.jsonl"],
            stdin=file,
            stderr=subprocess.PIPE,
            env=environment(service),
            timeout=LIMIT,
        )
    assert done.returncode == 0, done.stderr
    assert replies() == {"1": "Hello", "2": "Hi"}


def test_nothing_is_said_of_prompts_that_were_not_read(service: Service) -> None:
    for name in ("1", "900"):
        done_before(Prompt(name, name))
    lines = "".join(f"{number}\n" for number in range(1, 1000))
    done = run("batch", "-", "-o", "out.jsonl", "--budget", "4", service=service, stdin=lines)
    assert done.returncode == 1
    assert done.stderr.startswith("5 answered, 0 failed; 4 attempts in ")
    assert done.stderr.endswith(
        "\nthe input was not read to its end\nthe budget is used up\n"
        "to go on, run the same command again\n"
    )


def test_a_prompt_from_a_pipe_is_asked_before_the_pipe_ends(service: Service) -> None:
    os.mkfifo("pipe")
    with (
        forked("batch", "pipe", "-o", "out.jsonl", service=service) as process,
        Path("pipe").open("w") as pipe,
    ):
        print("Hello", file=pipe, flush=True)
        wait_for(1)
        print("Hi", file=pipe, flush=True)
        wait_for(2)
        # Nothing ends the pipe; the command ends nevertheless.
        interrupt(process, until="ending;")
        rest(process)
    assert process.returncode == 130
    assert replies() == {"1": "Hello", "2": "Hi"}


def test_failed_prompts_of_a_pipe_are_asked_again_only_if_asked_to(service: Service) -> None:
    done_before(Prompt("1", "Hello"), failed=True)
    command = ("batch", "-", "-o", "out.jsonl")
    done = run(*command, service=service, stdin="Hello\n")
    assert done.returncode == 1
    assert "0 answered, 1 failed, 0 not done; 0 attempts" in done.stderr
    done = run(*command, "--retry-failed", service=service, stdin="Hello\n")
    assert done.returncode == 0
    assert "1 answered, 0 failed, 0 not done; 1 attempts" in done.stderr


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ([], "line 2 is not a JSON object"),
        ({"id": "a", "prompt": "twice"}, "the input has two prompts with the id a"),
        ({"id": "b", "prompt": "changed"}, "the prompt b has changed"),
    ],
    ids=["no prompt", "twice", "changed"],
)
def test_a_pipe_that_gives_what_cannot_be_asked_ends_the_run(
    service: Service, last: object, message: str
) -> None:
    done_before(Prompt("b", "b"))
    os.mkfifo("in.jsonl")
    with forked(*COMMAND, service=service) as process:
        write(*prompts("a"), last)
        said = rest(process)
    assert process.returncode == 2
    assert message in said
    assert "the input was not read to its end" in said


def test_a_pipe_is_not_read_far_ahead_of_the_calls() -> None:
    read_on = Event()

    async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
        # It does not come. The wait is as long as the test takes.
        await asyncio.to_thread(read_on.wait, 0.3)
        yield "re"

    def feed() -> None:
        with suppress(BrokenPipeError):
            Path("pipe").write_text(("x" * 9_999 + "\n") * (4 * READ_AHEAD))
            read_on.set()

    os.mkfifo("pipe")
    feeder = Thread(target=feed)
    feeder.start()
    with in_thread(serve(answer, grace=0.0)) as server:
        command = ("batch", "pipe", "-o", "out.jsonl", "--budget", "1")
        with forked(*command, service=server.service) as process:
            rest(process)
        feeder.join()
    assert list(replies()) == ["1"]
    assert not read_on.is_set()


def test_prompts_of_a_file_are_checked_one_by_one() -> None:
    write(*prompts("a", "b", "c"))
    checked: list[int] = []
    with closing(OutputFile(Path("out.jsonl"))) as record, open_input("in.jsonl") as stream:

        def read() -> Iterator[Prompt]:
            for prompt in read_prompts(stream, "jsonl"):
                checked.append(record.counts().missing)
                yield prompt

        Job(record, stream, read)
    assert checked == [0, 1, 2]


def test_the_budget_of_minutes_ends_a_run_whose_pipe_is_silent(service: Service) -> None:
    os.mkfifo("pipe")
    with (
        forked("batch", "pipe", "-o", "out.jsonl", "--budget", "0.01m", service=service) as process,
        Path("pipe").open("w") as pipe,
    ):
        print("Hello", file=pipe, flush=True)
        said = rest(process)
    assert process.returncode == 1
    assert "1 answered, 0 failed" in said
    assert "the budget is used up" in said


def test_prompts_that_are_passed_over_do_not_stop_the_event_loop() -> None:
    names = [str(number) for number in range(1000)]
    write(*prompts(*names, "new"))
    for name in names:
        done_before(Prompt(name, name))
    steps = 0

    async def go_on() -> None:
        nonlocal steps
        while True:
            steps += 1
            await anyio.lowlevel.checkpoint()

    async def main() -> None:
        with closing(OutputFile(Path("out.jsonl"))) as record, open_input("in.jsonl") as stream:
            job = Job(record, stream, partial(read_prompts, stream, "jsonl"))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(go_on)
                assert [prompt.id async for prompt in job.missing()] == ["new"]
                tasks.cancel_scope.cancel()

    anyio.run(main)
    assert steps >= 1000 // SKIPS


def test_a_prompt_that_fails_makes_the_exit_code_1_and_is_retried_only_if_asked_to(
    service: Service,
) -> None:
    write(*prompts("a"), INVALID)
    result = invoke(*COMMAND, service=service)
    assert result.exit_code == 1
    assert "1 answered, 1 failed, 0 not done" in result.stderr
    assert "add --retry-failed" in result.stderr
    (failure,) = [item for item in results() if item["id"] == "bad"]
    assert failure["error"]["kind"] == "InvalidMessages"
    assert failure["attempts"] == 0
    assert invoke(*COMMAND, service=service).exit_code == 1
    assert len(results()) == 2
    result = invoke(*COMMAND, "--retry-failed", service=service)
    assert result.exit_code == 1
    assert "run the same command again" in result.stderr
    assert "add --retry-failed" not in result.stderr
    assert len(results()) == 3


def test_a_wrong_key_ends_the_run_and_nothing_is_recorded(service: Service) -> None:
    write(*prompts(*map(str, range(100))))
    wrong = {"GPROCHAT_URL": service.url, "GPROCHAT_SECRET_KEY": "wrong"}
    result = invoke(*COMMAND, variables=wrong)
    assert result.exit_code == 1
    assert "0 answered, 0 failed, 100 not done" in result.stderr
    assert "to go on, run the same command again" in result.stderr
    assert "secret key" in result.stderr.splitlines()[-1]
    assert results() == []
    assert invoke(*COMMAND, service=service).exit_code == 0


def test_an_input_that_has_changed_is_noticed_before_anything_is_asked(service: Service) -> None:
    write(*prompts("a", "b"))
    invoke(*COMMAND, service=service)
    write({"id": "new", "prompt": "new"}, {"id": "a", "prompt": "another"})
    result = invoke(*COMMAND, service=service)
    assert result.exit_code == 2
    assert "the prompt a has changed" in result.stderr
    assert replies() == {"a": "a", "b": "b"}


def all_but_first_after(released: Event) -> Answer:
    """Return what repeats "first" at once, and other prompts when the event is set."""

    async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
        if messages[-1].text != "first":
            await asyncio.to_thread(released.wait, LIMIT)
        yield messages[-1].text

    return answer


def test_prompts_that_are_appended_during_a_run_are_left_to_the_next_one() -> None:
    released = Event()
    # More than what is read from a file at once, so that the rest is read after the change.
    write(*prompts("first", "x" * 200_000, "last"))
    with in_thread(serve(all_but_first_after(released), grace=0.0)) as server:
        with forked(*COMMAND, "--concurrency", "1", service=server.service) as process:
            wait_for(1)
            with Path("in.jsonl").open("a") as file:
                file.write('{"id": "late", "prompt": "late"}\n')
            released.set()
            said = rest(process)
        assert process.returncode == 0
        assert "3 answered, 0 failed, 0 not done; 3 attempts" in said
        result = invoke(*COMMAND, service=server.service)
    assert result.exit_code == 0
    assert "4 answered, 0 failed, 0 not done; 1 attempts" in result.stderr


def test_a_prompt_that_is_changed_during_a_run_is_not_asked() -> None:
    released = Event()
    # More than what is read from a file at once, so that the last is read after the change.
    before = prompts("first", "x" * 200_000, "y" * 200_000, "z" * 200_000)
    write(*before, {"id": "last", "prompt": "last"})
    with (
        in_thread(serve(all_but_first_after(released), grace=0.0)) as server,
        forked(*COMMAND, "--concurrency", "1", service=server.service) as process,
    ):
        wait_for(1)
        write(*before, {"id": "last", "prompt": "LAST"})
        released.set()
        said = rest(process)
    assert process.returncode == 2
    assert "the prompt last was changed in the input during the run" in said
    assert len(results()) == len(before)


def test_results_of_prompts_that_are_gone_are_told(service: Service) -> None:
    write(*prompts("a", "b"))
    invoke(*COMMAND, service=service)
    write(*prompts("b"))
    result = invoke(*COMMAND, service=service)
    assert result.exit_code == 0
    assert "1 results in the output are of prompts that are not in the input" in result.stderr


def test_the_client_has_the_proxy_and_as_many_connections_as_calls(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, object]] = []

    def choose_and_note(name: str | None) -> Loop:
        loop = choose(name)

        def make_client(service: Service, **options: Any) -> Client:
            made.append(options)
            return loop.make_client(service)

        return Loop(make_client, loop.thread)

    monkeypatch.setattr("gprochat.cli.batch.choose", choose_and_note)
    write(*prompts("a"))
    proxy = "http://proxy.example:3128"
    result = invoke(*COMMAND, "--concurrency", "150", "--proxy", proxy, service=service)
    assert result.exit_code == 0
    assert made == [{"proxy": proxy, "limits": Limits(max_connections=150)}]


def test_a_budget_is_a_number_of_calls_or_of_minutes() -> None:
    write(*prompts("a"))
    arguments = [*COMMAND[1:], "--budget", "500", "--budget", "1.5m"]
    context = batch.make_context("batch", arguments)
    assert context.params["budget"] == Budget(calls=500, seconds=90.0)


def test_the_budget_of_calls_ends_the_run(service: Service) -> None:
    write(*prompts(*map(str, range(10))))
    result = invoke(*COMMAND, "--budget", "4", "--budget", "60m", service=service)
    assert result.exit_code == 1
    assert "4 answered, 0 failed, 6 not done; 4 attempts" in result.stderr
    assert "the budget is used up\nto go on, run the same command again" in result.stderr
    assert invoke(*COMMAND, service=service).exit_code == 0
    assert len(results()) == len(replies()) == 10


def test_quiet_says_nothing(service: Service) -> None:
    write(*prompts("a"), INVALID)
    result = invoke(*COMMAND, "--quiet", service=service)
    assert (result.exit_code, result.output) == (1, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget", "many"), "give a number of calls"),
        (("--budget", "0"), "give a number of calls"),
        (("--grace", "inf"), "give a number of seconds"),
        (("--grace", "nan"), "give a number of seconds"),
        (("--budget", "infm"), "give a number of calls"),
        (("--column", "text"), "are for CSV"),
        (("--template", "{text}"), "are for CSV"),
        (("--format", "csv", "--column", "a", "--template", "{a}"), "leave --column out"),
        (("--concurrency", "0"), "--concurrency"),
        (("--concurrency", "1000000"), "--concurrency"),
        (("--format", "csv"), "there is no column prompt"),
        (("--format", "csv", "--template", ""), "the template names no column"),
        (("--template", ""), "are for CSV"),
        (("-o", "-"), "the results go to a file"),
    ],
)
def test_wrong_usage(service: Service, arguments: Iterable[str], message: str) -> None:
    write({"a": 1, "b": 2})
    result = invoke(*COMMAND, *arguments, service=service)
    assert result.exit_code == 2
    assert message in result.stderr
    assert results() == []
    assert not Path("-").exists()


def test_an_output_that_is_no_output_is_wrong_usage(service: Service) -> None:
    write(*prompts("a"))
    Path("out.jsonl").write_text("my notes\n")
    result = invoke(*COMMAND, service=service)
    assert result.exit_code == 2
    assert "line 1 of out.jsonl is not a result" in result.stderr


@pytest.mark.parametrize("content", ["", '{"id": "a", "prompt": "my only'])
def test_an_output_that_is_the_input_is_refused_and_unchanged(
    service: Service, content: str
) -> None:
    Path("in.jsonl").write_text(content)
    Path("link.jsonl").symlink_to("in.jsonl")
    for name in ("in.jsonl", "link.jsonl"):
        result = invoke("batch", "in.jsonl", "-o", name, service=service)
        assert result.exit_code == 2
        assert "IN and OUT are the same file" in result.stderr
    assert Path("in.jsonl").read_text() == content


def test_ctrl_c_lets_the_replies_under_way_finish() -> None:
    released = Event()

    async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
        yield "re: "
        if messages[-1].text != "quick":
            await asyncio.to_thread(released.wait, LIMIT)
        yield messages[-1].text

    write(*prompts("quick", "slow", "slower", "later", "last"))
    command = (*COMMAND, "--concurrency", "2")
    with in_thread(serve(answer, grace=0.0)) as server:
        with forked(*command, service=server.service) as process:
            wait_for(1)
            interrupt(process, until="ending; replies under way have 30 s")
            released.set()
            said = rest(process)
        assert process.returncode == 130
        assert replies() == {name: f"re: {name}" for name in ("quick", "slow", "slower")}
        assert "to go on, run the same command again" in said
        assert invoke(*COMMAND, service=server.service).exit_code == 0
    assert len(results()) == len(replies()) == 5


def test_an_output_that_is_replaced_ends_the_run(stalling: Service) -> None:
    write(*prompts("a", "wait"))
    with forked(*COMMAND, service=stalling) as process:
        wait_for(1)
        Path("new.jsonl").touch()
        Path("new.jsonl").rename("out.jsonl")
        said = rest(process)
    assert process.returncode == 1
    assert "gprochat: out.jsonl was replaced, removed or shortened during the run" in said


@pytest.mark.parametrize("again", [False, True], ids=["end of the grace", "second Ctrl-C"])
def test_replies_that_do_not_finish_are_ended_and_not_recorded(
    stalling: Service, again: bool
) -> None:
    write(*prompts("a", "wait"))
    grace = "1000" if again else "0.1"
    with forked(*COMMAND, "--grace", grace, service=stalling) as process:
        wait_for(1)
        interrupt(process, until="ending;")
        if again:
            process.send_signal(signal.SIGINT)
        said = rest(process)
    assert process.returncode == 130
    assert "1 answered, 0 failed, 1 not done" in said
    assert list(replies()) == ["a"]


IN_TURN: Final = (*COMMAND, "--ordered", "--concurrency", "2", "--grace", "1000")


def all_but_ends(last: Event) -> Answer:
    """Return what repeats all prompts but "first" and "last"; the event tells when "last" came.

    With two calls at once, one waits for "first", and the others come one after another.
    """

    async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
        if messages[-1].text == "last":
            last.set()
        if messages[-1].text in ("first", "last"):
            await asyncio.Event().wait()
        yield messages[-1].text

    return answer


def test_a_terminal_that_is_closed_loses_no_finished_reply() -> None:
    last = Event()
    write(*prompts("first", "a", "b", "last"))
    with (
        in_thread(serve(all_but_ends(last), grace=0.0)) as server,
        on_terminal(*IN_TURN, service=server.service) as terminal,
    ):
        assert last.wait(LIMIT)
        assert terminal.hang_up() == 129
    assert list(replies()) == ["a", "b"]


def test_a_run_under_nohup_goes_on_without_its_terminal() -> None:
    released = Event()
    write(*prompts("first", "second"))
    with (
        in_thread(serve(all_but_first_after(released), grace=0.0)) as server,
        subprocess.Popen(
            ["nohup", *RUN, *COMMAND],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(server.service),
        ) as process,
    ):
        wait_for(1)
        process.send_signal(signal.SIGHUP)
        released.set()
        assert process.wait(LIMIT) == 0
    assert list(replies()) == ["first", "second"]


def test_a_second_ctrl_c_loses_no_finished_reply_that_waits_for_its_turn() -> None:
    last = Event()
    write(*prompts("first", "a", "b", "last"))
    with (
        in_thread(serve(all_but_ends(last), grace=0.0)) as server,
        forked(*IN_TURN, service=server.service) as process,
    ):
        assert last.wait(LIMIT)
        interrupt(process, until="ending;")
        process.send_signal(signal.SIGINT)
        said = rest(process)
    assert process.returncode == 130
    assert "2 answered, 0 failed, 2 not done" in said
    assert list(replies()) == ["a", "b"]


@pytest.mark.parametrize("grace", [0.0, 30.0])
def test_a_reply_under_way_is_waited_for_as_long_as_the_grace(grace: float) -> None:
    """The clock jumps whenever all tasks wait."""

    async def main() -> None:
        service = Double()
        # All that a call waits for comes at this time.
        service.checkpoint = partial(trio.sleep_until, 29.0)
        async with ask_many(service.client(), ["Hello"]) as results, trio.open_nursery() as nursery:
            service.begin = lambda: nursery.start_soon(finish, results, grace)
            assert [result.text async for result in results] == ["Hello"] * (grace > 29.0)
            assert trio.current_time() == min(grace, 29.0)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_a_third_ctrl_c_ends_the_command_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # The grace, and whether SIGTERM would end the command at once too.
    presses: list[tuple[float, bool]] = []

    async def press_again(results: Results, grace: float) -> None:
        presses.append((grace, signal.getsignal(signal.SIGTERM) == signal.SIG_DFL))
        if len(presses) < 3:
            press_ctrl_c()
        else:
            results.cancel()

    async def answer(messages: tuple[Message, ...]) -> AsyncIterator[str]:
        press_ctrl_c()
        await asyncio.Event().wait()
        yield ""

    monkeypatch.setattr("gprochat.cli.batch.finish", press_again)
    write(*prompts("a"))
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with in_thread(serve(answer, grace=0.0)) as server:
        result = invoke(*COMMAND, service=server.service)
    assert result.exit_code == 130
    assert presses == [(30.0, False), (0.0, True)]
    assert [signal.getsignal(number) for number in numbers] == before


def test_ctrl_c_before_the_first_call_ends_the_command_at_once() -> None:
    class Slow(Client):
        async def __aenter__(self) -> Self:
            press_ctrl_c()
            await anyio.sleep(5.0)
            return await super().__aenter__()

    write(*prompts("a"))
    with (
        closing(OutputFile(Path("out.jsonl"))) as record,
        open_input("in.jsonl") as stream,
    ):
        job = Job(record, stream, partial(read_prompts, stream, "jsonl"))
        service = Service("https://chat.example", secret_key="made up")
        with pytest.raises(KeyboardInterrupt):
            job.run(choose("trio"), lambda: Slow(service, Double()), ask_many, Progress(), 30.0)


def test_a_killed_run_goes_on(stalling: Service, service: Service) -> None:
    write(*prompts("a", "wait", "b"))
    with forked(*COMMAND, service=stalling) as process:
        wait_for(2)
        process.kill()
    with Path("out.jsonl").open("a") as file:
        file.write('{"id": "wa')
    assert invoke(*COMMAND, service=service).exit_code == 0
    assert replies() == {"a": "1 heard: a", "b": "1 heard: b", "wait": "wait"}


def test_a_bar_shows_how_far_it_is(stalling: Service) -> None:
    write(*prompts("a", "wait", "b"), INVALID)
    done_before(Prompt("b", "b"))
    done_before(Prompt("bad", []), failed=True)
    done_before(Prompt("not in the input", "c"))
    with on_terminal(*COMMAND, "--grace", "0", service=stalling, columns=120) as terminal:
        terminal.expect("3 of 4 done, 1 failed")
        terminal.expect("8 at once")
        terminal.type("\x03")
        terminal.expect("ending; replies under way have 0 s")
        terminal.expect("2 answered, 1 failed, 1 not done")
        assert terminal.wait() == 130


def test_a_bar_counts_the_prompts_of_a_pipe_that_are_done_already(service: Service) -> None:
    done_before(Prompt("a", "a"))
    done_before(Prompt("b", "b"), failed=True)
    os.mkfifo("in.jsonl")
    with (
        on_terminal(*COMMAND, service=service, columns=120) as terminal,
        Path("in.jsonl").open("w") as pipe,
    ):
        for prompt in prompts("a", "b", "c"):
            print(json.dumps(prompt), file=pipe, flush=True)
        terminal.expect("3 done, 1 failed")


def test_a_bar_shows_a_pause_and_its_reason_and_that_fewer_calls_are_made() -> None:
    write(*prompts("a"))
    with ScriptedPeer([receive, send(wire.answer(429, "", "retry-after: 1000"))]) as peer:
        service = Service(peer.url, secret_key="made up")
        with on_terminal(*COMMAND, service=service, columns=120) as terminal:
            terminal.expect("0 of 1 done, 0 failed, waiting 16 min ")
            terminal.expect(" s: rate limited, 4 at once")


def test_sigterm_ends_the_run_and_shows_the_cursor_again(stalling: Service) -> None:
    write(*prompts("wait", "a"))
    with on_terminal(*COMMAND, service=stalling) as terminal:
        terminal.expect("1 of 2 done")
        terminal.terminate()
        assert terminal.wait() == 143
    assert "1 answered, 0 failed, 1 not done" in terminal.seen
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert terminal.seen.rfind(hidden) < terminal.seen.rfind(shown)


def test_the_output_is_synced_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    released = Event()
    synced: list[int] = []

    def sync(_file: int) -> None:
        synced.append(len(results()))
        # The run stands still until its first result is on the disk.
        released.set()

    monkeypatch.setattr("os.fsync", sync)
    monkeypatch.setattr("gprochat.cli.batch.SYNC_EVERY", 0.0)
    write(*prompts("first", "last"))
    with in_thread(serve(all_but_first_after(released), grace=0.0)) as server:
        assert invoke(*COMMAND, service=server.service).exit_code == 0
    assert synced == [1, 2]
