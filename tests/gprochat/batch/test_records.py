"""The output file: what a run that goes on makes of it, however the last one ended."""

import json
import os
import random
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gprochat.batch import Failure, Prompt, Result
from gprochat.batch.reading import InputError
from gprochat.batch.records import (
    CACHE_KIB,
    Counts,
    OutputError,
    OutputFile,
    digest,
    dump,
    load,
)

from .writer import TEXT, prompts

KILLS: Final = int(os.environ.get("BATCH_KILLS", "3"))
"""How often the test kills the process that writes."""

PROMPTS: Final = 300 + 30 * KILLS

FAILURE: Final = Failure("TruncatedReply", "the connection was lost", "Once upon")

NAMES: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)

RESULTS: Final = st.builds(
    Result,
    NAMES,
    NAMES,
    st.none() | st.integers(100, 599),
    st.integers(0, 9),
    st.floats(0, 100),
    st.none() | st.builds(Failure, NAMES, NAMES, NAMES),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def result(prompt: Prompt, error: Failure | None = None) -> Result:
    return Result(prompt.id, None if error else f"re: {prompt.id}", 200, 2, 0.5, error)


def run(
    path: Path, asked: Iterable[Prompt], *, failed: str = "", retry_failed: bool = False
) -> list[str]:
    """Do what a run does; return the ids of the prompts that it asked."""
    done: list[str] = []
    items = list(asked)
    with closing(OutputFile(path, retry_failed=retry_failed)) as record:
        for prompt in items:
            record.check(prompt)
        for prompt in filter(record.needs, items):
            record.write(result(prompt, FAILURE if prompt.id == failed else None))
            done.append(prompt.id)
    return done


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_bytes().splitlines()]


def test_a_result_is_a_line_of_json(path: Path) -> None:
    prompt, other = Prompt("a", "Hello"), Prompt("b", "Hi")
    run(path, [prompt, other], failed="b")
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == [
        {
            "id": "a",
            "text": "re: a",
            "status": 200,
            "attempts": 2,
            "seconds": 0.5,
            "digest": digest(prompt),
        },
        {
            "id": "b",
            "error": {
                "kind": "TruncatedReply",
                "message": "the connection was lost",
                "text": "Once upon",
            },
            "status": 200,
            "attempts": 2,
            "seconds": 0.5,
            "digest": digest(other),
        },
    ]


def test_a_line_is_in_the_file_as_soon_as_it_is_written(path: Path) -> None:
    with closing(OutputFile(path)) as record:
        record.write(result(Prompt("a", "Hello")))
        assert ids(path) == ["a"]


def test_a_run_goes_on_where_the_last_one_ended(path: Path) -> None:
    assert run(path, prompts(3)) == ["id 0", "id 1", "id 2"]
    assert run(path, prompts(5)) == ["id 3", "id 4"]
    assert run(path, prompts(5)) == []
    assert ids(path) == [f"id {number}" for number in range(5)]


def test_the_order_of_the_prompts_may_change(path: Path) -> None:
    run(path, prompts(3))
    assert run(path, reversed(list(prompts(5)))) == ["id 4", "id 3"]


def test_prompts_that_failed_are_asked_again_only_if_asked_to(path: Path) -> None:
    run(path, prompts(3), failed="id 1")
    assert run(path, prompts(3)) == []
    assert run(path, prompts(3), retry_failed=True) == ["id 1"]
    assert run(path, prompts(3), retry_failed=True) == []


def test_prompts_are_counted(path: Path) -> None:
    run(path, prompts(5), failed="id 3")
    with closing(OutputFile(path)) as record:
        for prompt in [*list(prompts(4))[1:], Prompt("new", "Hello")]:
            record.check(prompt)
        assert record.counts() == Counts(answered=2, failed=1, missing=1, foreign=2)
        record.write(result(Prompt("new", "Hello")))
        assert record.counts() == Counts(answered=3, failed=1, missing=0, foreign=2)


def test_an_answered_prompt_that_has_changed_is_noticed(path: Path) -> None:
    run(path, [Prompt("a", "Hello"), Prompt("b", "Hi")])
    with pytest.raises(InputError, match="the prompt a has changed"):
        run(path, [Prompt("b", "Hi"), Prompt("a", "Good-bye")])


@pytest.mark.parametrize("changed", [0, 1])
def test_a_change_anywhere_in_a_conversation_is_noticed(path: Path, changed: int) -> None:
    conversation = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    run(path, [Prompt("a", conversation)])
    other = [dict(message) for message in conversation]
    other[changed]["content"] += "!"
    with pytest.raises(InputError, match="the prompt a has changed"):
        run(path, [Prompt("a", other)])


def test_a_digest_has_16_hexadecimal_digits() -> None:
    assert re.fullmatch("[0-9a-f]{16}", digest(Prompt("a", "Hello")))


def test_a_failed_prompt_that_has_changed_is_a_new_one(path: Path) -> None:
    run(path, [Prompt("a", "Hello")], failed="a")
    assert run(path, [Prompt("a", "Good-bye")]) == ["a"]
    assert run(path, [Prompt("a", "Good-bye")]) == []


def test_two_prompts_with_one_id_are_noticed(path: Path) -> None:
    with pytest.raises(InputError, match="two prompts with the id a"):
        run(path, [Prompt("a", "Hello"), Prompt("a", "Hello")])


def test_empty_lines_of_the_file_are_passed_over(path: Path) -> None:
    run(path, prompts(2))
    path.write_bytes(path.read_bytes().replace(b"\n", b"\n\n") + b'{"id": "id')
    assert run(path, prompts(3)) == ["id 2"]
    assert run(path, prompts(3)) == []


@pytest.mark.parametrize(
    "content",
    [
        b"my notes\n",
        b"my notes",
        b'{"id": "a", "prompt": "Hello"}\n',
        b'{"id": "a", "text": "Hello"}\n',
        b'{"id": "a", "prompt": "Hello"}',
        b'{"id": ' * 100_000,
        b"[" * 100_000 + b"\n",
        b"\xff\n",
    ],
)
def test_a_file_of_something_else_is_refused_and_unchanged(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(OutputError, match=r"line 1 of .* is not a result"):
        OutputFile(path)
    assert path.read_bytes() == content


def test_a_last_line_without_its_line_break_is_kept(path: Path) -> None:
    run(path, prompts(2))
    edited = path.read_bytes().replace(b"re: id 1", b"edited by hand")
    path.write_bytes(edited.removesuffix(b"\n"))
    assert run(path, prompts(3)) == ["id 2"]
    assert path.read_bytes().startswith(edited)


def test_a_last_line_that_lost_its_digest_is_not_removed(path: Path) -> None:
    run(path, prompts(1))
    content = path.read_bytes() + b'{"id": "id 1", "text": "edited by hand"}'
    path.write_bytes(content)
    with pytest.raises(OutputError, match=r"line 2 of .* is not a result"):
        run(path, prompts(2))
    assert path.read_bytes() == content


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="not a regular file"):
        OutputFile(tmp_path / "pipe")


def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*out.jsonl: No such file or directory"):
        OutputFile(tmp_path / "missing" / "out.jsonl")


def test_a_full_disk_is_told_with_the_name_of_the_file(path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(OutputFile(path)) as record:
        # There is room for the beginning of the line.
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
        try:
            with pytest.raises(OutputError, match=r"cannot write .*out.jsonl: File too large"):
                record.write(result(Prompt("a", "Hello")))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_temporary_folder_without_room_is_named(path: Path) -> None:
    larger_than_the_memory = Prompt("x" * 2 * 1024 * CACHE_KIB, "Hello")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(OutputFile(path)) as record:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            with pytest.raises(OutputError, match=r"temporary folder.*; set TMPDIR"):
                record.check(larger_than_the_memory)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "removed"])
def test_a_file_that_is_replaced_during_the_run_is_noticed(path: Path, replaced: bool) -> None:
    record = OutputFile(path)
    path.rename(path.with_suffix(".old"))
    if replaced:
        path.touch()
    with pytest.raises(OutputError, match="was replaced, removed or shortened"):
        record.sync()
    with pytest.raises(OutputError, match="was replaced, removed or shortened"):
        record.close()


def test_a_file_that_is_shortened_during_the_run_is_noticed(path: Path) -> None:
    run(path, prompts(2))
    record = OutputFile(path)
    record.write(result(Prompt("new", "Hello")))
    record.sync()
    # What an editor writes that had read the file before the last line came.
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    record.write(result(Prompt("later", "Hi")))
    with pytest.raises(OutputError, match="replaced, removed or shortened"):
        record.sync()
    with pytest.raises(OutputError, match="replaced, removed or shortened"):
        record.close()


def test_two_runs_do_not_write_to_one_file(path: Path) -> None:
    with closing(OutputFile(path)), pytest.raises(OutputError, match="another run"):
        OutputFile(path)
    OutputFile(path).close()


@settings(max_examples=25)
@given(RESULTS)
def test_a_line_is_read_as_it_was_written(written: Result) -> None:
    line = dump(written, "digest")
    assert line.count(b"\n") == 1
    assert load(line) == (written.id, "digest", written.error is None)


@settings(max_examples=25)
@given(st.lists(NAMES, unique=True, max_size=6), st.data())
def test_a_file_cut_off_anywhere_is_repaired(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cut") / "out.jsonl"
    asked = [Prompt(name, f"prompt {name}") for name in names]
    run(path, asked)
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    # A line that lacks its line break alone is whole.
    whole = len(content[: cut + 1].splitlines(keepends=True)) if cut else 0
    if cut and not content[: cut + 1].endswith(b"\n"):
        whole -= 1
    assert run(path, asked) == names[whole:]
    assert path.read_bytes() == content


@pytest.mark.parametrize("cut", [0, 10])
def test_zeros_behind_what_reached_the_disk_are_removed(path: Path, cut: int) -> None:
    """Some file systems leave them there after a crash of the machine."""
    asked = [Prompt(name, name) for name in "ab"]
    run(path, asked)
    content = path.read_bytes()
    first, second = content.splitlines(keepends=True)
    path.write_bytes(first + second[:cut] + bytes(1000))
    assert run(path, asked) == ["b"]
    assert path.read_bytes() == content


def test_a_prompt_that_was_changed_after_it_was_checked_is_noticed(path: Path) -> None:
    with closing(OutputFile(path)) as file:
        file.check(Prompt("a", "Hello"))
        assert file.needs(Prompt("a", "Hello"))
        for changed in (Prompt("a", "Goodbye"), Prompt("b", "Hello")):
            with pytest.raises(InputError, match="changed in the input during the run"):
                file.needs(changed)


@pytest.mark.timeout(60 + 5 * KILLS)
def test_a_process_killed_at_any_moment_loses_doubles_and_tears_nothing(path: Path) -> None:
    command = [sys.executable, "-m", "tests.gprochat.batch.writer", str(path), str(PROMPTS)]
    written = b""
    found: list[str] = []
    for left in reversed(range(KILLS + 1)):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            if left:
                time.sleep(random.uniform(0.0, 0.03))
                process.kill()
        content = path.read_bytes()
        assert content.startswith(written)
        # Without the line that was being written.
        whole = content[: content.rfind(b"\n") + 1]
        for line in whole[len(written) :].splitlines():
            item = json.loads(line)
            assert item["text"] == f"{item['id']} {TEXT}"
            found.append(item["id"])
        written = whole
    assert found == [prompt.id for prompt in prompts(PROMPTS)]
