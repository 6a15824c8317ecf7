"""The command `gprochat`. The extra `cli` installs its libraries; nothing else imports them."""

import sys
from io import TextIOWrapper

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit: 0, 1 for a failure, 2 for wrong usage, 130 for Ctrl-C."""
    try:
        from gprochat_transports.extras import needs

        with needs("cli"):
            from .commands import gprochat
    except ImportError as error:
        sys.exit(f"gprochat: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    stream: object = sys.stdout
    if isinstance(stream, TextIOWrapper):
        # A character that the encoding of standard output lacks is printed as "?".
        stream.reconfigure(errors="replace")
    gprochat(prog_name="gprochat")
