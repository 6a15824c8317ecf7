"""What is released is complete, needs nothing, and is installed from pinned names alone."""

import re
import shutil
import subprocess
import sys
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
CONSTRAINTS = ["constraints.txt", "docs/constraints.txt", "tests/clients/constraints.txt"]
"""What is installed for most tests, for the site, and for the tests of `tests/clients/`."""

PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[0-9][A-Za-z0-9.]*)(?: ;.+)?")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as a release makes it: from the source distribution, not from the checkout."""
    built = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", built, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = built.glob("*.whl")
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


def test_nothing_is_required_without_an_extra(metadata: Message) -> None:
    required = [
        str(each)
        for each in requirements(metadata)
        if each.marker is None or each.marker.evaluate({"extra": ""})
    ]
    assert required == []


def test_the_extra_all_brings_what_any_extra_brings(metadata: Message) -> None:
    def brought(extra: str) -> set[str]:
        found = {
            each.name
            for each in requirements(metadata)
            if each.marker and each.marker.evaluate({"extra": extra})
        }
        return found - {"gprochat"}

    extras = set(metadata.get_all("Provides-Extra", []))
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


@pytest.mark.parametrize("constraints", CONSTRAINTS)
def test_every_constraint_is_one_name_at_one_version(constraints: str) -> None:
    lines = (ROOT / constraints).read_text().splitlines()
    others = [line for line in lines if not line.startswith("#") and not PIN.fullmatch(line)]
    assert others == []


def test_every_requirement_is_pinned_within_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras, groups = project["project"]["optional-dependencies"], project["dependency-groups"]
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
    assert unsatisfied([site, *clients[1:], extras["trio"]], "docs/constraints.txt") == []


def test_no_file_names_a_package_registry() -> None:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    hosts = re.compile(rb"(?:pypi|pythonhosted|npmjs)\.(?:org|com)")
    naming = [
        name
        for name in listed.stdout.decode().split("\0")
        if (ROOT / name).is_file() and hosts.search((ROOT / name).read_bytes())
    ]
    assert naming == []
