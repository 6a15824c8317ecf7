"""Every check of the project, and which interpreters it runs on.

Nox runs the checks, and all tests with their coverage, in the environment that nox itself is
installed in (the Makefile's .venv). The tests with other people's programs, which clash with what
is installed there, have an environment of their own. The other supported interpreters that are
found then run the tests with fewer examples and one case of each row of the fault table. Three tags
select sessions: `lint` the checks, `here` the tests in this environment, `tests` those on every
interpreter. Run as a script, this file adds the session `coverage`, and prints at its end how many
tests passed and failed on all interpreters together. The checks, the session `coverage` and the
other sessions run side by side, so that two cores are busy: the first two are one process each.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import nox
from packaging.requirements import Requirement

SUPPORTED = ("3.11", "3.12", "3.13", "3.14")
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
COVERING = ("tests/core", "tests/transports")
RESULTS = Path(__file__).parent / ".nox" / "results"

BUILD = ("hatchling", "hatch-fancy-pypi-readme")
"""What builds the project, installed beside it instead of into an environment of its own."""

FEWER = ("--one-case", "--hypothesis-profile=quick")
"""How tests are played where another session plays them whole; see `tests/conftest.py`."""

ALIKE = ("tests/docs", "tests/test_packaging.py", "tests/test_walls.py")
"""Tests that come to the same on each interpreter: of pages, of files, of imports."""

nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"
nox.options.download_python = "never"


def interpreters(version: str) -> Iterator[str]:
    """Give the paths where a Python of this version may be: on the PATH, or among pyenv's."""
    name = f"python{version}"
    if found := shutil.which(name):
        yield found
    pyenv = os.environ.get("PYENV_ROOT")
    if pyenv is None and shutil.which("pyenv"):
        pyenv = subprocess.run(["pyenv", "root"], capture_output=True, text=True).stdout.strip()
    for root in {Path(pyenv or "~/.pyenv").expanduser(), Path("~/.pyenv").expanduser()}:
        yield from map(str, sorted(root.glob(f"versions/{version}.*/bin/{name}")))


def works(interpreter: str, version: str) -> bool:
    """Tell whether an interpreter runs: pyenv puts shims on the PATH that refuse to start."""
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    try:
        run = subprocess.run([interpreter, "-c", code], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return run.stdout.strip() == version


def install(session: nox.Session, extra: str, group: str, constraints: str) -> None:
    """Install the project and what its tests need, unless this environment has them already."""
    digest = hashlib.sha256()
    for name in (constraints, "pyproject.toml"):
        digest.update(Path(name).read_bytes())
    stamp = Path(session.virtualenv.location) / "installed"
    if stamp.is_file() and stamp.read_text() == digest.hexdigest():
        return
    constrained = ("-qq", "--constraint", constraints)
    session.install(*constrained, "--upgrade", "pip")
    session.install(*constrained, *BUILD)
    project = ("--no-build-isolation", "--editable", f".[{extra}]")
    session.install(*constrained, *project, "--group", group)
    stamp.write_text(digest.hexdigest())


def pytest_arguments(session: nox.Session, name: str) -> list[str]:
    """Four workers, as many tests wait most of their time; and results for the closing count."""
    result = RESULTS / f"{name}.xml"
    result.unlink(missing_ok=True)
    return ["-q", "-n", "4", "--dist", "worksteal", f"--junit-xml={result}", *session.posargs]


@nox.session(python=False, tags=["lint"])
def lint(session: nox.Session) -> None:
    """Ruff's rules and format."""
    session.run(sys.executable, "-m", "ruff", "check", "--quiet", ".")
    session.run(sys.executable, "-m", "ruff", "format", "--check", "--quiet", ".")


@nox.session(python=False, tags=["lint"])
def mypy(session: nox.Session) -> None:
    """The types, by mypy: seconds, once it has its cache."""
    session.run(sys.executable, "-m", "mypy", "--no-error-summary")


@nox.session(python=False, tags=["lint"])
def pyright(session: nox.Session) -> None:
    """The types, by pyright, which has no cache."""
    session.run(sys.executable, "-m", "pyright", "--pythonpath", sys.executable)


@nox.session(python=False, tags=["tests"])
def package(session: nox.Session) -> None:
    """What a release uploads: the files, their metadata, what they hold, and all public types."""
    # Here pyright ignores --pythonpath, and asks the first Python on the PATH where packages are.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    # typings/ stands in for llm, which is not installed here.
    environment = {"PATH": path, "PYTHONPATH": "typings"}
    verify = (sys.executable, "-m", "pyright", "--ignoreexternal", "--verifytypes")
    for name in ("gprochat_core", "gprochat_transports", "gprochat"):
        session.run(*verify, name, env=environment, silent=True)
    with TemporaryDirectory() as folder:
        build = ("build", "--no-isolation", "--outdir", folder)
        session.run(sys.executable, "-m", *build, silent=True)
        sdist, wheel = (str(next(Path(folder).glob(name))) for name in ("*.tar.gz", "*.whl"))
        session.run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel, silent=True)
        session.run(sys.executable, "-m", "check_wheel_contents", wheel, silent=True)
        # The project has no address and no site yet; RELEASING.md says what to set.
        rate = ("--min", "10", "--skip-tests", "AuthorEmail,Url")
        session.run(sys.executable, "-m", "pyroma", *rate, sdist, silent=True)


def tests_on(version: str) -> Callable[[nox.Session], None]:
    """Return the session that runs the tests on an interpreter that nox does not run on."""

    def tests(session: nox.Session) -> None:
        if session.python is False:
            session.skip(f"no Python {version} found")
        install(session, "all", "test", "constraints.txt")
        ignored = [f"--ignore={each}" for each in ALIKE]
        arguments = pytest_arguments(session, version)
        session.run("python", "-m", "pytest", *FEWER, *arguments, *ignored)

    return tests


for version in SUPPORTED:
    if version != OWN:
        found = next((each for each in interpreters(version) if works(each, version)), False)
        nox.session(python=found, name=f"tests-{version}", tags=["tests"])(tests_on(version))


@nox.session(python=sys.executable, tags=["tests"])
def clients(session: nox.Session) -> None:
    """The project with other people's programs: what calls it, and what it is built into."""
    install(session, "gateway,httpx", "clients", "tests/clients/constraints.txt")
    # What these clients leave open or use of others is not for these tests to judge.
    lenient = ("-W", "ignore", "-p", "no:unraisableexception")
    # Their imports take most of the time, so one process does them once.
    arguments = (*pytest_arguments(session, f"{OWN}, clients"), "-n", "0")
    chosen = ("tests/clients", "tests/docs/test_snippets.py", "-k", "clients or needs")
    session.run("python", "-m", "pytest", *arguments, *lenient, *chosen)


@nox.session(python=sys.executable, tags=["tests"])
def ray(session: nox.Session) -> None:
    """`Ask` in a cluster of Ray on this machine."""
    constraints = "tests/ray/constraints.txt"
    pip = ("python", "-m", "pip", "install", "-q", "--constraint", constraints)
    wheel = ("--dry-run", "--no-deps", "--only-binary=:all:", "ray")
    found = session.run(*pip, *wheel, success_codes=(0, 1), silent=True)
    if "No matching distribution" in str(found):
        session.skip(f"no wheel of Ray found for Python {OWN} on this platform")
    install(session, "ray", "ray", constraints)
    # What Ray leaves open is not for these tests to judge. They share one cluster.
    lenient = ("-W", "ignore", "-p", "no:unraisableexception", "-n", "0")
    arguments = pytest_arguments(session, f"{OWN}, Ray")
    session.run("python", "-m", "pytest", *arguments, *lenient, "tests/ray")


@nox.session(python=sys.executable, tags=["tests"])
def docs(session: nox.Session) -> None:
    """The site, without a warning, and its tests; with `build` or `serve`, the site alone."""
    install(session, "gateway,httpx,trio", "docs", "docs/constraints.txt")
    folders = ("docs", "build/docs")
    if "serve" in session.posargs:
        session.run("sphinx-autobuild", "--watch", "src", *folders)
        return
    # From nothing: a page that is not written anew repeats no warning.
    shutil.rmtree("build/docs", ignore_errors=True)
    session.run("python", "-m", "sphinx", "-W", "--keep-going", "-q", *folders)
    if "build" not in session.posargs:
        # One process starts Chromium once.
        arguments = (*pytest_arguments(session, f"{OWN}, site"), "-n", "0")
        session.run("python", "-m", "pytest", *arguments, "tests/site")


@nox.session(python=False, default=False)
def coverage(session: nox.Session) -> None:
    """The tests of core and transports, and the coverage that they must reach by themselves."""
    coverage = (sys.executable, "-m", "coverage")
    session.run(*coverage, "erase", silent=True)
    # A worker would spend 14 seconds on imports and collecting while it is measured.
    arguments = (*pytest_arguments(session, f"{OWN}, core and transports"), "-n", "0")
    session.run(*coverage, "run", "-m", "pytest", *arguments, *COVERING)
    session.run(*coverage, "combine", "--quiet")
    for package, percent in {"gprochat_core": 100, "gprochat_transports": 95}.items():
        session.run(*coverage, "report", f"--include=*/{package}/*", f"--fail-under={percent}")


@nox.session(python=False, name=f"tests-{OWN}", tags=["here", "tests"])
def other_tests(session: nox.Session) -> None:
    """All other tests on nox's own interpreter, without what measuring coverage costs."""
    ignored = [f"--ignore={folder}" for folder in COVERING]
    arguments = pytest_arguments(session, f"{OWN}, all others")
    session.run(sys.executable, "-m", "pytest", *arguments, *ignored)


def floors() -> set[str]:
    """Return a line `name==version` for each lower bound of an extra in `pyproject.toml`."""
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    return {
        f"{requirement.name}=={bound.version}"
        for requirement in map(Requirement, chain.from_iterable(extras.values()))
        for bound in requirement.specifier
        if bound.operator == ">="
    }


@nox.session(default=False)
def lowest(session: nox.Session) -> None:
    """The tests of adapters and command with the lowest versions that the extras allow."""
    constraints = Path(session.create_tmp()) / "floors.txt"
    constraints.write_text("\n".join(sorted(floors())))
    pinned = ("-qq", "--constraint", "constraints.txt")
    session.install(*pinned, "--upgrade", "pip")
    session.install(*pinned, *BUILD)
    # What the lowest versions need themselves is often older than the pinned version.
    lowest = ("-qq", "--constraint", str(constraints))
    session.install(*lowest, "--no-build-isolation", "--editable", ".[all]")
    session.install(*pinned, "--group", "test")
    test_versions(session, "lowest versions")


@nox.session(default=False)
def latest(session: nox.Session) -> None:
    """The tests of adapters and command with the latest versions that the extras allow."""
    eager = ("-qq", "--upgrade", "--upgrade-strategy", "eager")
    session.install(*eager, "pip", *BUILD)
    session.install(*eager, "--no-build-isolation", "--editable", ".[all]", "--group", "test")
    test_versions(session, "latest versions")


def test_versions(session: nox.Session, versions: str) -> None:
    """Run the tests of the adapters and of the command with what a session has installed."""
    arguments = pytest_arguments(session, f"{OWN}, {versions}")
    tests = ("tests/contract", "tests/transports", "tests/gprochat/cli")
    session.run("python", "-m", "pytest", *FEWER, *arguments, *tests)


def main() -> int:
    """Run the chosen sessions beside the session `coverage`, then count the tests of all."""
    shutil.rmtree(RESULTS, ignore_errors=True)
    chosen = (["--session", "coverage"], sys.argv[1:])
    runs = [subprocess.Popen([sys.executable, "-m", "nox", *each]) for each in chosen]
    status = max(abs(run.wait()) for run in runs)
    passed = failed = 0
    for result in sorted(RESULTS.glob("*.xml")):
        suite = next(ElementTree.parse(result).iter("testsuite"))
        count = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
        bad = count["failures"] + count["errors"]
        good = count["tests"] - bad - count["skipped"]
        print(f"Python {result.stem}: {good} passed, {bad} failed, {count['skipped']} skipped")
        passed += good
        failed += bad
    if status and not failed:
        print("Something else than a test failed: see the sessions above")
    print(f"{passed} passed, {failed} failed", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
