"""A cluster of Ray on this machine, whose nodes ask the prompts that it is told to.

One worker runs on each node that asks. Ray takes seconds to start a worker, so prompts are counted
only while all workers ask.
"""

import json
import logging
import os
import sys
import time
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.data import ActorPoolStrategy, DataContext

from gprochat.batch import Ask

NODE = {"node_ip_address": "127.0.0.2", "object_store_memory": 80 << 20, "resources": {"asks": 1}}


class Timed(Ask):
    """Adds which worker asked a batch, and when."""

    def __call__(self, batch: Any) -> Any:
        begin = time.time()
        batch = super().__call__(batch)
        for name, value in (("worker", os.getpid()), ("begin", begin), ("end", time.time())):
            batch = batch.append_column(name, [[value] * batch.num_rows])
        return batch


def rate(batches: list[dict[str, Any]]) -> float:
    """Return how many batches a second all workers together asked while all of them asked."""
    workers: dict[int, list[dict[str, Any]]] = {}
    for each in batches:
        workers.setdefault(each["worker"], []).append(each)
    begin = max(min(each["begin"] for each in asked) for asked in workers.values())
    end = min(max(each["end"] for each in asked) for asked in workers.values())
    within = 0.0
    for each in batches:
        shared = min(end, each["end"]) - max(begin, each["begin"])
        within += max(0.0, shared) / (each["end"] - each["begin"])
    return within / (end - begin)


def ask(nodes: int, count: int, block: int, concurrency: int) -> dict[str, float]:
    prompts = ray.data.from_items([{"prompt": "Hello"}] * count, override_num_blocks=count // block)
    asked = prompts.map_batches(
        Timed,
        fn_constructor_kwargs={"concurrency": concurrency},
        batch_format="pyarrow",
        batch_size=block,
        compute=ActorPoolStrategy(size=nodes),
        num_cpus=0,
        resources={"asks": 1},
    )
    # Rows are read when all are asked: reading them would take a part of a core from the nodes.
    rows = asked.materialize().take_all()
    assert len(rows) == count
    assert {row["error"] for row in rows} == {""}
    batches = list({(row["worker"], row["begin"]): row for row in rows}.values())
    assert len(batches) == count // block
    return {"rate": block * rate(batches), "workers": len({each["worker"] for each in batches})}


def main(url: str) -> None:
    os.environ |= {
        "GPROCHAT_URL": url,
        "GPROCHAT_SECRET_KEY": "made up",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    head = {**NODE, "num_cpus": 4, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(**NODE, num_cpus=0)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    for line in sys.stdin:
        task = json.loads(line)
        del task["task"]
        print(json.dumps(ask(**task)), flush=True)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
