"""Names the extra to install if a library is missing."""

from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["needs"]


@contextmanager
def needs(extra: str) -> Generator[None, None, None]:
    """Import, within the block, libraries that an extra of this project installs.

    Raises:
        ModuleNotFoundError: a library is missing; the message names the extra, and `name` the
            missing module.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error}. Run: pip install 'gprochat[{extra}]'", name=error.name
        ) from error
