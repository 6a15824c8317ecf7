"""A missing library is an ImportError that names the extra to install."""

import pytest

from gprochat_transports.extras import needs
from tests.installations import output_with

IMPORT = """
try:
    import {module}
except ImportError as error:
    print(error.name, isinstance(error.__cause__, ImportError), error, sep="|")
"""


@pytest.mark.parametrize(
    ("module", "installed", "missing", "extra"),
    [
        ("gprochat_transports.aiohttp", [], "aiohttp", "aiohttp"),
        ("gprochat_transports.httpx", [], "h11", "httpx"),
        ("gprochat_transports.httpx", ["h11"], "anyio", "httpx"),
        ("gprochat_transports.trio", ["h11"], "trio", "trio"),
        ("gprochat_transports.trio", ["trio"], "h11", "trio"),
        ("gprochat.server", [], "aiohttp", "server"),
        ("gprochat.provider", [], "aiohttp", "aiohttp"),
    ],
)
def test_the_error_names_the_extra(
    module: str, installed: list[str], missing: str, extra: str
) -> None:
    expected = f"No module named '{missing}'. Run: pip install 'gprochat[{extra}]'"
    output = output_with(installed, IMPORT.format(module=module))
    assert output == f"{missing}|True|{expected}\n"


def test_another_error_passes_through_unchanged() -> None:
    broken = ImportError("a library that is installed and broken")
    with pytest.raises(ImportError) as caught, needs("aiohttp"):
        raise broken
    assert caught.value is broken
