"""Writes the reference, HTML pages made from the docstrings of all public modules, to a folder.

    python docs/reference.py build/docs

Every warning of pdoc's, such as a type that it cannot resolve, is an error here.
"""

import pkgutil
import sys
import warnings
from pathlib import Path

import pdoc.render

import gprochat
import gprochat.server
import gprochat_transports

PROGRAMS = {"cli", "demo", "llm_plugin"}
"""Modules that people, or llm, run and nobody imports; `--help` describes the command."""


def modules() -> list[str]:
    """Every module with a page of its own: the core is one page, because it is imported as one."""
    names = ["gprochat_core"]
    for package in (gprochat_transports, gprochat):
        found = [module.name for module in pkgutil.iter_modules(package.__path__)]
        public = [name for name in found if not name.startswith("_") and name not in PROGRAMS]
        names += [package.__name__, *[f"{package.__name__}.{name}" for name in public]]
    return names


def main() -> None:
    """Write the pages."""
    (folder,) = sys.argv[1:]
    warnings.simplefilter("error")
    # pdoc sees a name that is imported when it is first used only after that.
    for name in gprochat.server.__all__:
        getattr(gprochat.server, name)
    pdoc.render.configure(docformat="google", footer_text="gprochat")
    pdoc.pdoc(*modules(), output_directory=Path(folder))


if __name__ == "__main__":
    main()
