"""respx: the tests that the recipe shows pass."""

from collections.abc import Callable

import pytest

from tests.docs.pages import module_of

SHOWN: dict[str, Callable[[], None]] = {
    name: function
    for name, function in vars(module_of("respx", "test_with_respx.py")).items()
    if name.startswith("test_")
}


@pytest.mark.parametrize("name", SHOWN)
def test_the_shown_test_passes(name: str) -> None:
    SHOWN[name]()
