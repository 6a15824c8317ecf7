"""The services that `gprochat login` keeps, by name: URLs in a private file, secrets in the
platform's keyring if it works, else in the same file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from gprochat_core import Service
from gprochat_core.messages import Encoding
from gprochat_transports.extras import needs

from .failures import Failed, WrongUsage
from .folders import PRIVATE, config_folder, private_file
from .history import replace

__all__ = ["Services"]

KEYRING: Final = "gprochat"
"""What the keyring calls this program."""

DAMAGE: Final = (ValueError, KeyError, TypeError, RecursionError)
"""What reading raises if the text is no JSON, lacks a key, has a wrong type or nests too deep."""


@dataclass
class Services:
    """The services that are kept.

    Attributes:
        default: the name of the service that is used if no other is named; None if there is
            no service.
        entries: what the file says of each service, by name.
    """

    default: str | None = None
    entries: dict[str, dict[str, str | None]] = field(default_factory=dict[str, Any])

    @classmethod
    def load(cls) -> "Services":
        """Read the services from their file.

        Raises:
            WrongUsage: the file is damaged.
        """
        path = file()
        if not path.exists() or not path.stat().st_size:
            return cls()
        try:
            read = json.loads(path.read_bytes())
            services = cls(read["default"], dict(read["services"]))
            if not isinstance(services.default, str | None):
                raise TypeError
            for entry in services.entries.values():
                _ = entry["url"], entry["encoding"]
                if ("secret_key" in entry) != ("password" in entry):
                    raise KeyError
            return services
        except DAMAGE:
            raise WrongUsage(f"{path} is damaged; correct or remove it") from None

    def find(self, name: str | None) -> Service | None:
        """Return a service by its name, or the default one; None if there is none.

        Raises:
            WrongUsage: there is no service of this name, or its secrets cannot be read.
            ConfigurationError: the file names a URL that cannot be used.
        """
        name = name or self.default
        if name is None:
            return None
        entry = self.entries.get(name)
        if entry is None:
            known = ", ".join(self.entries) or "none"
            raise WrongUsage(f"there is no service {name}; known: {known}; see `gprochat login`")
        secrets = read_keyring(name) if "secret_key" not in entry else entry
        return Service(
            str(entry["url"]),
            secret_key=secrets["secret_key"],
            password=secrets["password"],
            encoding=cast("Encoding", entry["encoding"]),
        )

    @classmethod
    def keep(cls, name: str, service: Service) -> str:
        """Keep a service under a name, as the default one too; return where its secrets are.

        Raises:
            WrongUsage: the file is damaged.
            Failed: the file cannot be written.
        """
        secrets = {"secret_key": service.secret_key, "password": service.password}
        entry: dict[str, str | None] = {"url": service.url, "encoding": service.encoding}
        in_keyring = write_keyring(name, secrets)
        # Read only now: another login may have written while the user was asked.
        services = cls.load()
        services.entries[name] = entry if in_keyring else {**entry, **secrets}
        services.default = name
        services.save()
        return "the keyring" if in_keyring else str(file())

    def forget(self, name: str) -> None:
        """Forget a service and its secrets.

        Raises:
            WrongUsage: there is no service of this name.
            Failed: the file cannot be written, or the keyring does not remove the secrets.
        """
        if name not in self.entries:
            raise WrongUsage(f"there is no service {name}; `gprochat login --list` lists them")
        if "secret_key" not in self.entries.pop(name):
            delete_from_keyring(name)
        if self.default == name:
            self.default = next(iter(self.entries), None)
        self.save()

    def save(self) -> None:
        """Write the file.

        Raises:
            Failed: it cannot be written.
        """
        data = json.dumps({"default": self.default, "services": self.entries}, indent=2).encode()
        try:
            # The whole file or nothing, with the permissions that the file has.
            private_file(file()).chmod(PRIVATE)
            replace(file(), data + b"\n")
        except OSError as error:
            raise Failed(f"cannot write {file()}: {error.strerror}") from None


def file() -> Path:
    return config_folder() / "services.json"


def write_keyring(name: str, secrets: Mapping[str, str | None]) -> bool:
    """Put secrets into the platform's keyring; return whether one works."""
    with needs("cli"):
        import keyring
        from keyring.errors import KeyringError
    text = json.dumps(secrets)
    try:
        keyring.set_password(KEYRING, name, text)
        return keyring.get_password(KEYRING, name) == text
    # A backend may raise what its platform's library raises; each means that it does not work.
    except (KeyringError, OSError, RuntimeError):
        return False


def read_keyring(name: str) -> Mapping[str, str | None]:
    with needs("cli"):
        import keyring
        from keyring.errors import KeyringError
    try:
        text = keyring.get_password(KEYRING, name)
    except (KeyringError, OSError, RuntimeError):
        text = None
    if text is None:
        raise WrongUsage(f"the keyring has no secrets for {name}; run: gprochat login {name}")
    try:
        secrets = json.loads(text)
        return {key: secrets[key] for key in ("secret_key", "password")}
    except DAMAGE:
        raise WrongUsage(
            f"the secrets of {name} in the keyring are damaged; run: gprochat login {name}"
        ) from None


def delete_from_keyring(name: str) -> None:
    with needs("cli"):
        import keyring
        from keyring.errors import KeyringError
    try:
        # What is gone already needs no removal.
        if keyring.get_password(KEYRING, name) is not None:
            keyring.delete_password(KEYRING, name)
    except (KeyringError, OSError, RuntimeError) as error:
        raise Failed(f"the keyring does not remove the secrets of {name}: {error}") from None
