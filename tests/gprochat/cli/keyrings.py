"""A keyring for tests: `PYTHON_KEYRING_BACKEND=tests.gprochat.cli.keyrings.FileKeyring`."""

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.compat import properties
from keyring.errors import PasswordDeleteError

__all__ = ["BACKEND", "FileKeyring"]

BACKEND = f"{__name__}.FileKeyring"


class FileKeyring(KeyringBackend):
    """Keeps its passwords in the file that the variable TEST_KEYRING names."""

    @properties.classproperty
    def priority(cls) -> float:  # noqa: N805
        return 1.0

    def get_password(self, service: str, username: str) -> str | None:
        return self._load().get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self._save({**self._load(), f"{service}/{username}": password})

    def delete_password(self, service: str, username: str) -> None:
        passwords = self._load()
        if passwords.pop(f"{service}/{username}", None) is None:
            raise PasswordDeleteError("not there")
        self._save(passwords)

    def _load(self) -> dict[str, str]:
        path = Path(os.environ["TEST_KEYRING"])
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def _save(self, passwords: dict[str, str]) -> None:
        Path(os.environ["TEST_KEYRING"]).write_text(json.dumps(passwords))
