"""What is released is complete, needs nothing, and is installed from pinned names alone."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PACKAGES = {"gprochat", "gprochat_core", "gprochat_transports"}
CONSTRAINTS = [
    "constraints.txt",
    "docs/constraints.txt",
    "tests/clients/constraints.txt",
    "tests/ray/constraints.txt",
]
"""What is installed for most tests, for the site, and for the tests of the last two folders."""

PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[0-9][A-Za-z0-9.]*)(?: ;.+)?")


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what a release uploads: a source distribution, and the wheel made from it."""
    built = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", built, ROOT],
        check=True,
        capture_output=True,
    )
    return built


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    (wheel,) = distributions.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    with ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return HeaderParser().parsestr(archive.read(name).decode())


def requirements(metadata: Message) -> list[Requirement]:
    return [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]


def tracked_files() -> list[str]:
    """The files of the repository, by their paths from its root."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    return [name for name in listed.stdout.decode().split("\0") if (ROOT / name).is_file()]


def pins(constraints: str) -> dict[str, Version]:
    lines = (ROOT / constraints).read_text().splitlines()
    matches = [match for line in lines if (match := PIN.fullmatch(line))]
    return {canonicalize_name(match["name"]): Version(match["version"]) for match in matches}


def test_the_wheel_holds_both_packages_and_nothing_else(contents: set[str]) -> None:
    folders = {name.partition("/")[0] for name in contents}
    assert {folder for folder in folders if not folder.endswith(".dist-info")} == PACKAGES


def test_the_wheel_holds_every_source_file(contents: set[str]) -> None:
    sources = {path.relative_to(ROOT / "src").as_posix() for path in ROOT.glob("src/**/*.py")}
    assert sources <= contents


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_the_wheel_tells_type_checkers_that_it_is_typed(contents: set[str], package: str) -> None:
    assert f"{package}/py.typed" in contents


def test_the_wheel_holds_the_licence(contents: set[str]) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in contents)


def test_the_source_distribution_holds_every_tracked_file(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    left_out = {name for name in tracked_files() if not name.startswith(".ci/")} - held
    assert left_out == set()


def test_the_page_on_an_index_links_to_no_file_beside_it(metadata: Message) -> None:
    page = metadata.get_payload()
    assert isinstance(page, str)
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert re.findall(r"\]\((?![a-z]+://|#)[^)]*\)", page) == []
    # Nothing else is lost: a link to a page is its text.
    assert "- Errors and retries\n" in page
    assert page.count("\n```") == (ROOT / "README.md").read_text().count("\n```")


def test_nothing_is_required_without_an_extra(metadata: Message) -> None:
    required = [
        str(each)
        for each in requirements(metadata)
        if each.marker is None or each.marker.evaluate({"extra": ""})
    ]
    assert required == []


def test_the_extra_all_brings_what_any_extra_but_ray_brings(metadata: Message) -> None:
    def brought(extra: str) -> set[str]:
        found = {
            each.name
            for each in requirements(metadata)
            if each.marker and each.marker.evaluate({"extra": extra})
        }
        return found - {"gprochat"}

    extras = set(metadata.get_all("Provides-Extra", [])) - {"ray"}
    assert brought("all") == set().union(*map(brought, extras))


def test_the_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path, with_pip=False)
    python = tmp_path / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(python)]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True)
    code = (
        "import gprochat_core, gprochat_transports;"
        "print(gprochat_core.generate_signature(1700000000000, 'Hello, world!', 'secret'))"
    )
    run = subprocess.run(
        [python, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "1e132a12572889b4a97703ee6b1fb93d114b97125478e738c983b693a1b4402a"


@pytest.mark.skipif(sys.platform == "win32", reason="the README is written for a POSIX shell")
def test_the_readmes_first_lines_install_the_project_from_a_checkout_and_chat(
    tmp_path: Path,
) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    install, chat = re.findall(r"^```sh\n(.+)$", readme, re.MULTILINE)[:2]
    venv.create(tmp_path, with_pip=False)
    (packages,) = tmp_path.glob("lib/*/site-packages")
    # What the project requires is the installation that this test runs in.
    (packages / "required.pth").write_text(sysconfig.get_path("purelib"))
    pip = tmp_path / "bin" / "pip"
    pip.write_text(f'#!/bin/sh\nexec {sys.executable} -m pip --python {tmp_path} "$@"\n')
    pip.chmod(0o755)
    environ = os.environ | {
        "PATH": f"{pip.parent}{os.pathsep}{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "no",  # the option's value, not that of its negation
    }
    subprocess.run(["sh", "-c", install], cwd=ROOT, env=environ, check=True, capture_output=True)
    assert (packages / "gprochat").is_dir()
    run = subprocess.run(["sh", "-c", chat], env=environ, check=True, capture_output=True)
    assert run.stdout.strip() == b"Hello"


@pytest.mark.parametrize("constraints", CONSTRAINTS)
def test_every_constraint_is_one_name_at_one_version(constraints: str) -> None:
    lines = (ROOT / constraints).read_text().splitlines()
    others = [line for line in lines if not line.startswith("#") and not PIN.fullmatch(line)]
    assert others == []


def test_every_requirement_is_pinned_within_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras, groups = project["project"]["optional-dependencies"], project["dependency-groups"]
    ray = [groups.pop("ray"), extras.pop("ray"), extras["aiohttp"], extras["batch"]]
    apart, site = groups.pop("clients"), groups.pop("docs")
    here = [project["build-system"]["requires"], *extras.values(), *groups.values()]
    clients = [apart, extras["gateway"], extras["httpx"]]

    def unsatisfied(lists: list[list[object]], constraints: str) -> list[str]:
        named = [Requirement(line) for each in lists for line in each if isinstance(line, str)]
        pinned = pins(constraints)
        return [
            str(each)
            for each in named
            if each.name != "gprochat"
            and pinned.get(canonicalize_name(each.name), Version("0")) not in each.specifier
        ]

    assert unsatisfied(here, "constraints.txt") == []
    assert unsatisfied(clients, "tests/clients/constraints.txt") == []
    assert unsatisfied(ray, "tests/ray/constraints.txt") == []
    assert unsatisfied([site, *clients[1:], extras["trio"]], "docs/constraints.txt") == []


def test_no_file_names_a_package_registry() -> None:
    hosts = re.compile(rb"(?:pypi|pythonhosted|npmjs)\.(?:org|com)")
    naming = [name for name in tracked_files() if hosts.search((ROOT / name).read_bytes())]
    assert naming == []
