"""The command `gprochat`. Its libraries come with the extra `cli` and are imported only here."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit: 0, 1 for a failure, 2 for wrong usage, 130 for Ctrl-C."""
    try:
        from .commands import gprochat
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.exit("gprochat: the command line needs its own libraries: pip install 'gprochat[cli]'")
    except KeyboardInterrupt:
        sys.exit(130)
    gprochat(prog_name="gprochat")
