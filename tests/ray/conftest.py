"""`Ask` in a cluster of Ray on this machine.

Ray brings 400 MB of libraries, so these tests run in an environment of their own: `nox -s ray`.
Elsewhere none of them is collected.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from threading import Condition
from typing import TYPE_CHECKING, Final

import pytest

from gprochat.server import in_thread, serve
from gprochat_core import Message, Service

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

collect_ignore_glob = [] if find_spec("ray") and sys.platform == "linux" else ["test_*.py"]

# Before Ray is imported: nothing is sent to Ray's makers, and no address is looked for.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"

NODE: Final = {
    # Ray replaces 127.0.0.1 by the address of a network card, but not this one.
    "node_ip_address": "127.0.0.2",
    "num_cpus": 4,
    "object_store_memory": 80 << 20,
}
"""A node of the cluster. It claims more processors than there are: processes mostly wait."""


class Asked:
    """What the service was asked. It can be made to answer only so many calls for now."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self._allowed = sys.maxsize
        self._answered = 0
        self._changed = Condition()

    def reset(self, *, allowed: int = sys.maxsize) -> None:
        """Count anew, and hold the calls after the first `allowed`."""
        with self._changed:
            self.counts = Counter()
            self._answered = 0
            self._allowed = allowed

    def release(self) -> None:
        self._allowed = sys.maxsize

    def wait_until_held(self) -> None:
        """Wait until all calls that are allowed have been answered."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._answered >= self._allowed, timeout=60)

    async def answer(self, messages: tuple[Message, ...]) -> AsyncIterator[str]:
        prompt = messages[-1].text
        self.counts[prompt] += 1
        while self._answered >= self._allowed:  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.02)
        yield f"Reply to {prompt}"
        with self._changed:
            self._answered += 1
            self._changed.notify_all()


@pytest.fixture(scope="session")
def asked() -> Asked:
    return Asked()


@pytest.fixture(scope="session")
def service(asked: Asked) -> Iterator[Service]:
    with in_thread(serve(asked.answer, grace=0.0)) as server:
        yield server.service


@pytest.fixture(scope="session")
def logs() -> Iterator[Path]:
    """Where Ray puts its files. The path is short, because sockets of Ray are in it too."""
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def cluster(service: Service, logs: Path) -> "Iterator[Cluster]":
    """A cluster of one node, whose environment names the service."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPROCHAT_URL", service.url)
        patch.setenv("GPROCHAT_SECRET_KEY", service.secret_key or "")
        # Not `temp_dir`: Ray would still write to its default folder, which may not exist.
        patch.setenv("RAY_TMPDIR", str(logs))
        cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
        patch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster
        cluster.shutdown()
