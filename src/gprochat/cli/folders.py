"""Where the command keeps what it remembers: the platform's folders, for this user alone.

A folder is made when something is written there, and not by reading.
"""

import os
from pathlib import Path
from typing import Final

from gprochat_transports.extras import needs

__all__ = ["PRIVATE", "config_folder", "data_folder", "private_file", "private_folder"]

PRIVATE: Final = 0o600

PRIVATE_FOLDER: Final = 0o700


def data_folder() -> Path:
    """Return the folder for conversations and the lines that were typed."""
    with needs("cli"):
        from platformdirs import user_data_path

    return user_data_path("gprochat", appauthor=False)


def config_folder() -> Path:
    """Return the folder for the services that `gprochat login` keeps."""
    with needs("cli"):
        from platformdirs import user_config_path

    return user_config_path("gprochat", appauthor=False)


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner can use, unless the folder exists."""
    path.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)
    return path


def private_file(path: Path) -> Path:
    """Make an empty file that only its owner can read and write, unless the file exists.

    Its folder is made too, as `private_folder` does.
    """
    private_folder(path.parent)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE))
    return path
