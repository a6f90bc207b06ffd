"""Write many trivial shards on a local Ray: seconds, what the object store holds meanwhile, and memory of the driver.

python tests/benchmarks/many_shards.py [COUNT ...]     default: 3000 30000
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dcae15.artifacts import Shard
from dcae15.cluster import Cluster, Pool
from dcae15.config import Config
from dcae15.data.shards import ShardRecord
from dcae15.stages.shard_writing import ShardPlan, write_shards

PLAN_BYTES = 200_000
"""A plan as large as one of 1,000 images: too large for Ray to send it without its object store."""


@dataclass(frozen=True)
class Nothing:
    """Says that a shard was written."""

    def write(self, plan: ShardPlan[np.ndarray]) -> ShardRecord:
        """Do nothing."""
        return ShardRecord(Shard(plan.path, plan.count, 0, ""))


def main(counts: list[int]) -> None:
    """Print a line for each count."""
    import ray

    content = np.zeros(PLAN_BYTES, np.uint8)  # shared by all plans here; Ray gets a copy of each
    for count in counts:
        plans = [ShardPlan(f"train/{i:06d}.parquet", 1, content) for i in range(count)]
        most, heard = 0.0, 0
        with tempfile.TemporaryDirectory() as folder, Cluster(Config(storage=folder)) as cluster:
            cluster.join()
            store = ray.cluster_resources()["object_store_memory"]

            def look(record: ShardRecord, store: float = store) -> None:
                nonlocal most, heard
                heard += 1
                if heard % 100 == 0:
                    most = max(most, store - ray.available_resources().get("object_store_memory", 0.0))

            began = time.perf_counter()
            write_shards(cluster, "many", folder, plans, Nothing, Pool(2, 2), look)
            seconds = time.perf_counter() - began
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{count:,} plans of {PLAN_BYTES:,} bytes: {seconds:.1f} s, {1000 * seconds / count:.2f} ms each, at most "
            f"{most / 1e6:.1f} MB in the object store, the driver's memory at most {memory:.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [3_000, 30_000])
