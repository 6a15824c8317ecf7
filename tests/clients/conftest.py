"""The gateway and the plugin for llm, with the clients that people use; and some recipes.

These programs bring many libraries, in versions of their own. So their tests run in an environment
of their own: `nox -s clients`. Elsewhere none of them is collected.
"""

import os
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from gprochat.gateway import Running
from gprochat_core import Service
from tests.clients.gateways import embedded, over

collect_ignore_glob = [] if find_spec("litellm") else ["test_*.py"]

# litellm's list of models comes with it; without this it would be fetched.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """An embedded service, see `gateways.reply`."""
    with embedded() as service:
        yield service


@pytest.fixture(scope="session")
def running(service: Service) -> Iterator[Running]:
    """A gateway over the embedded service."""
    with over(service) as running:
        yield running
