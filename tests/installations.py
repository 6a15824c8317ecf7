"""Runs code where only some libraries are installed, in an interpreter of its own."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import files, requires
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["output_with", "run_with"]

ROOT: Final = Path(__file__).parents[1]

HIDE: Final = """
import json, sys

paths, allowed, code = json.loads(sys.argv[1])
sys.path[:0] = paths
allowed = {*allowed, *sys.stdlib_module_names, "gprochat", "gprochat_core", "gprochat_transports"}


class OnlyAllowed:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in allowed:
            return self.finder.find_spec(name, path, target)

    def find_distributions(self, *arguments):
        return getattr(self.finder, "find_distributions", lambda *_: ())(*arguments)


sys.meta_path[:] = [OnlyAllowed(finder) for finder in sys.meta_path]
exec(code, {"__name__": "__main__"})
"""
"""Runs code that can import only this project, the standard library and the allowed modules."""


def run_with(
    installed: Iterable[str], code: str, *, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run code where only these requirements, such as "gprochat[trio]", are installed."""
    allowed = {
        path.parts[0].partition(".")[0]
        for distribution in installed_with(installed)
        for path in files(distribution) or ()
    }
    paths = [str(ROOT / "src"), *filter(None, sys.path)]
    return subprocess.run(
        # -S: the .pth files of site-packages may import anything.
        [sys.executable, "-I", "-S", "-c", HIDE, json.dumps([paths, sorted(allowed), code])],
        capture_output=True,
        encoding="utf-8",
        env=environment,
        check=False,
    )


def output_with(installed: Iterable[str], code: str) -> str:
    """Return what code prints where only these requirements are installed; it must not fail."""
    run = run_with(installed, code)
    assert run.returncode == 0, run.stderr
    return run.stdout


def installed_with(
    requirements: Iterable[str], extras: Iterable[str] = frozenset({""})
) -> set[str]:
    """The distributions that an installer would bring for requirements, the project's resolved."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: set[str] = set()
    for requirement in map(Requirement, requirements):
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in extras):
            continue
        name = canonicalize_name(requirement.name)
        if name == "gprochat":
            for extra in requirement.extras:
                found |= installed_with(project["optional-dependencies"][extra])
        else:
            found |= {name, *installed_with(requires(name) or [], requirement.extras or {""})}
    return found
