"""Every block of code on every page runs as it stands, or is checked in the way that it can be."""

import importlib.metadata
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement

from gprochat.gateway import Deployment, Running, gateway
from gprochat.server import in_thread, serve
from gprochat_core import Service
from tests.docs.pages import ROOT, Block, blocks, pages

BLOCKS: Final = [block for page in pages() for block in blocks(page)]

LIMIT: Final = 100.0
"""Seconds that the commands of one block may take: one plays the whole contract."""

pytestmark = pytest.mark.timeout(1.2 * LIMIT)

RUN: Final = frozenset(
    {"curl", "echo", "gprochat", "gunicorn", "llm"}
    | {"openssl", "printf", "pytest", "python", "uvicorn"}
)
"""Commands that a shell block may hold and that are run, besides those that are checked."""

COMMANDS: Final = {
    "gprochat": ["-c", "from gprochat.cli import main; main()"],
    "gunicorn": ["-m", "gunicorn"],
    "llm": ["-m", "llm"],
    # -P: the command pytest does not look for modules in the current folder.
    "pytest": ["-P", "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"],
    "python": [],
    "uvicorn": ["-m", "uvicorn"],
}
"""What stands for them, with the arguments that this interpreter takes for it."""


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with in_thread(serve(grace=0.0)) as server:
        yield server.service


@pytest.fixture(scope="module")
def openai(service: Service) -> Iterator[Running]:
    with in_thread(gateway({"gprochat": [Deployment("gprochat", service)]})) as running:
        yield running


@pytest.fixture
def environment(
    service: Service, openai: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What a reader has set who followed the README: the service, and nothing in its way."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in [name for name in os.environ if name.startswith(("GPROCHAT_", "PYTEST_"))]:
        monkeypatch.delenv(name)
    for name in ("DATA", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / ".home"))
    monkeypatch.setenv("GPROCHAT_URL", service.url)
    monkeypatch.setenv("GPROCHAT_SECRET_KEY", service.secret_key or "")
    monkeypatch.setenv("OPENAI_BASE_URL", openai.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", openai.key or "")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in; modules imported from it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.usefixtures("environment")
def test_the_block_does_what_the_page_says(
    block: Block, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if "needs" in block.directives:
        pytest.importorskip(block.directives["needs"])
    for other in BLOCKS:
        if other.page == block.page and "file" in other.directives:
            (folder / other.directives["file"]).write_text(other.code, encoding="utf-8")
    if "output" in block.directives:
        assert BLOCKS[BLOCKS.index(block) - 1].page == block.page
    elif "file" in block.directives:
        check_file(block)
    elif "tree" in block.directives:
        check_tree(block)
    elif "drawing" in block.directives:
        pass
    elif block.language == "python":
        run_python(block)
        check_output(block, capfd.readouterr().out)
    elif block.language == "sh":
        check_output(block, run_shell(block, folder))
    elif block.language == "js":
        check_output(block, run_javascript(block))
    elif block.language == "json":
        json.loads(block.code)
    elif block.language == "toml":
        tomllib.loads(block.code)
    else:
        pytest.fail(f"no test knows what to do with {block.language!r} at {block}")


def test_the_example_of_a_transport_is_typed_strictly(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="installed where the types are checked")
    name = "asyncio_transport.py"
    (example,) = [block for block in BLOCKS if block.directives.get("file") == name]
    (tmp_path / name).write_text(example.code, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", name]
    environ = os.environ | {"MYPYPATH": str(ROOT / "src")}
    run = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def run_python(block: Block) -> None:
    # The page's own lines show in a traceback.
    code = "\n" * block.line + block.code
    exec(compile(code, ROOT / block.page, "exec"), {"__name__": "__main__"})


def check_file(block: Block) -> None:
    """A file runs where another block of the page uses it, or in the tests of its recipe."""
    name = Path(block.directives["file"]).stem
    users = [
        other
        for other in BLOCKS
        if other is not block
        and other.page == block.page
        and re.search(rf"\b{re.escape(name)}\b", other.code)
    ]
    test = f"test_{Path(block.page).stem.replace('-', '_')}.py"
    tests = [*ROOT.glob(f"tests/recipes/{test}"), *ROOT.glob(f"tests/clients/{test}")]
    quoted = json.dumps(block.directives["file"])
    assert users or any(quoted in each.read_text(encoding="utf-8") for each in tests), (
        f"nothing on {block.page} uses {block.directives['file']}"
    )


def check_tree(block: Block) -> None:
    """Every file that is listed exists, and every module that exists is listed."""
    listed: set[Path] = set()
    existing: set[Path] = set()
    folder = ROOT
    for line in block.code.splitlines():
        names = re.findall(r"[\w/]+(?:\.py|/)(?= |$)", line)
        if line.startswith(" "):
            listed |= {folder / name for name in names}
        else:
            folder = ROOT / names[0]
            existing |= {path for path in folder.glob("*.py") if not path.name.startswith("__")}
            existing |= {path.parent for path in folder.glob("*/__init__.py")}
    assert listed == existing


def check_output(block: Block, output: str) -> None:
    assert block.directives.get("expect", "") in output
    after = BLOCKS[(BLOCKS.index(block) + 1) % len(BLOCKS)]
    if "output" in after.directives:
        lines = [re.escape(line).replace(r"\.\.\.", ".*") for line in after.code.splitlines()]
        pattern = r"(.*\n)*".join(rf"{line}\n" for line in lines)
        assert re.search(f"^{pattern}", output, re.MULTILINE), f"{block} prints {output!r}"


def run_shell(block: Block, folder: Path) -> str:
    """Run a block's commands, but for those that would change an installation; check those."""
    script: list[str] = []
    for command in block.code.replace("\\\n", " ").splitlines():
        words = shlex.split(command, comments=True)
        if not words:
            continue
        while words and re.match(r"[A-Z_]+=", words[0]):
            del words[0]
        if words[:1] == ["make"]:
            check_make(words[1:])
        elif words[:2] == ["pip", "install"]:
            check_install(words[2:])
        elif words == [".", ".venv/bin/activate"] or command.startswith("CHECKOUT="):
            # A test runs in its own environment, and knows where the checkout is.
            continue
        else:
            assert RUN.issuperset(words[:1]), f"{block}: nobody has said how to run {words[0]!r}"
            for name in RUN.intersection(words) - COMMANDS.keys():
                if shutil.which(name) is None:
                    pytest.skip(f"{name} is not installed")
            script.append(command)
    return run_script(script, block, folder) if script else ""


def run_javascript(block: Block) -> str:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    command = ["node", "--input-type=module"]
    return subprocess.run(
        command, input=block.code, capture_output=True, check=True, encoding="utf-8"
    ).stdout


def check_make(targets: list[str]) -> None:
    known = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [name for name in targets if name not in known and "=" not in name] == []


def check_install(arguments: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for argument in arguments:
        # A checkout is the project itself.
        requirement = Requirement(re.sub(r"^\.", "gprochat", argument))
        assert requirement.name == "gprochat"
        assert requirement.extras <= set(extras)


def run_script(script: list[str], block: Block, folder: Path) -> str:
    binaries = folder / ".bin"
    binaries.mkdir()
    for name, arguments in COMMANDS.items():
        path = binaries / name
        path.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *arguments])} "$@"\n')
        path.chmod(0o755)
    environ = os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    environ["PYTHONPATH"] = str(ROOT / "src")
    # A page leaves it to its reader where the checkout is.
    environ["CHECKOUT"] = str(ROOT)
    if not importlib.metadata.entry_points(group="pytest11", name="gprochat"):
        # The project is on the path, and not installed.
        environ["PYTEST_PLUGINS"] = "gprochat.pytest_plugin"
    if "gprochat serve" in block.code:
        # Who starts a service is not yet talking to one.
        del environ["GPROCHAT_URL"], environ["GPROCHAT_SECRET_KEY"]
    process = subprocess.Popen(
        # An interrupt is for the command that runs; the shell then tells how that ended.
        ["sh", "-e", "-c", "\n".join(["trap : INT", *script])],
        cwd=ROOT if "in" in block.directives else folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            return finish(process, block.directives.get("until"))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def finish(process: "subprocess.Popen[str]", until: str | None) -> str:
    """Wait for a script's end, which it is made to find once it has printed `until`."""
    output = ""
    if until is not None:
        assert process.stdout is not None
        for line in process.stdout:
            output += line
            if until in line:
                os.killpg(process.pid, signal.SIGINT)
                break
        else:
            pytest.fail(f"it ended before it printed {until!r}:\n{output}")
    output += process.communicate(timeout=LIMIT)[0]
    assert process.returncode == 0, output
    return output
