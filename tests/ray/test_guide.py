"""The programs of the guide, on two nodes of which one dies, and killed half-way themselves."""

import json
import subprocess
import sys
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any, Final

import pyarrow
import pyarrow.parquet
import pytest

from gprochat_core import Service
from tests.docs.pages import ROOT, blocks
from tests.ray.conftest import NODE, Asked

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

PROGRAMS: Final = {
    block.directives["file"]: block.code
    for block in blocks(ROOT / "docs" / "guides" / "ray.md")
    if "file" in block.directives
}

LIMIT: Final = 150.0
"""Seconds that a program may take; it takes a tenth on an idle machine."""

pytestmark = pytest.mark.timeout(2 * LIMIT)


def start(name: str, folder: Path, code: str | None = None) -> "subprocess.Popen[str]":
    """Start a program of the guide, or this code in its place."""
    program = folder / name
    program.write_text(PROGRAMS[name] if code is None else code, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, program, folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for a program's end; return its exit status and what it printed."""
    output, _ = process.communicate(timeout=LIMIT)
    return process.returncode, output


def write_prompts(folder: Path, number: int) -> None:
    lines = (json.dumps({"id": each, "prompt": f"prompt {each}"}) for each in range(number))
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a file, or of all files of a folder, by id."""
    table = pyarrow.parquet.read_table(folder)
    return sorted(table.to_pylist(), key=lambda row: row["id"])


def assert_each_is_answered_once(folder: Path, number: int) -> None:
    found = rows(folder / "replies")
    assert [row["id"] for row in found] == list(range(number))
    assert {row["error"] for row in found} == {""}
    assert all(row["reply"] == f"Reply to prompt {row['id']}" for row in found)


def checkpoints(folder: Path) -> list[Path]:
    """The files that say which prompts' replies have been written."""
    files = (folder / "done").glob("*.parquet")
    return [file for file in files if not file.name.endswith(".pending.parquet")]


def workers(raylet: int) -> list[str]:
    """The names of the processes that this raylet started."""
    return [
        (path.parent / "cmdline").read_text()
        for path in Path("/proc").glob("[0-9]*/stat")
        if path.read_text().rpartition(")")[2].split()[1] == str(raylet)
    ]


def test_every_prompt_is_answered_once_though_a_node_dies_half_way(
    cluster: "Cluster", asked: Asked, tmp_path: Path
) -> None:
    write_prompts(tmp_path, 2000)
    asked.reset(allowed=1000)
    node = cluster.add_node(**NODE)
    process = start("ask_all.py", tmp_path)
    try:
        asked.wait_until_held()
        (raylet,) = node.all_processes["raylet"]
        assert any("Ask" in name for name in workers(raylet.process.pid))
    finally:
        cluster.remove_node(node, allow_graceful=False)
        asked.release()
        status, output = finish(process)
    assert status == 0, output
    assert_each_is_answered_once(tmp_path, 2000)


@pytest.mark.usefixtures("cluster")
def test_a_program_that_was_killed_asks_only_what_it_has_not_written(
    asked: Asked, tmp_path: Path
) -> None:
    write_prompts(tmp_path, 600)
    asked.reset(allowed=450)
    process = start("ask_all.py", tmp_path)
    try:
        asked.wait_until_held()
        while not checkpoints(tmp_path):
            assert process.poll() is None
            sleep(0.1)
    finally:
        process.kill()
        finish(process)
    done = {f"prompt {row['id']}" for file in checkpoints(tmp_path) for row in rows(file)}
    asked.reset()
    status, output = finish(start("ask_all.py", tmp_path))
    assert status == 0, output
    assert not done & asked.counts.keys()
    assert_each_is_answered_once(tmp_path, 600)


@pytest.fixture(scope="module")
def asked_again(cluster: "Cluster", asked: Asked, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of replies of which one had failed, after the guide's second program has run."""
    folder = tmp_path_factory.mktemp("failed")
    (folder / "replies").mkdir()
    written = {"id": [1, 2, 3], "prompt": ["a", "b", "c"], "error": ["", "RateLimited", ""]}
    pyarrow.parquet.write_table(pyarrow.table(written), folder / "replies" / "1.parquet")
    asked.reset()
    status, output = finish(start("ask_failed.py", folder))
    assert status == 0, output
    return folder


def test_what_failed_is_asked_again(asked_again: Path) -> None:
    (row,) = rows(asked_again / "replies-of-failed")
    assert (row["id"], row["reply"], row["error"]) == (2, "Reply to b", "")


@pytest.mark.usefixtures("asked_again")
def test_no_log_of_ray_holds_the_key(service: Service, logs: Path) -> None:
    texts = {path: path.read_bytes() for path in logs.rglob("*") if path.is_file()}
    assert any(b"MapBatches(Ask)" in text for text in texts.values())
    key = (service.secret_key or "").encode()
    assert [path for path, text in texts.items() if not key or key in text] == []


WRONG_KEY: Final = """
import ray
from gprochat.batch import Ask

prompts = ray.data.from_items([{"prompt": "a"}, {"prompt": "b"}])
environment = {"env_vars": {"GPROCHAT_SECRET_KEY": "wrong"}}
prompts.map_batches(
    Ask, batch_format="pyarrow", concurrency=1, num_cpus=0.1, runtime_env=environment
).take_all()
"""


@pytest.mark.usefixtures("cluster")
def test_a_wrong_key_ends_the_program_with_that_error(tmp_path: Path) -> None:
    status, output = finish(start("wrong_key.py", tmp_path, WRONG_KEY))
    assert status == 1
    assert "SignatureRejected: the service answered 401" in output
