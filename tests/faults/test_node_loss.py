"""A node that is lost amid a job costs the shards that it had open, and nothing else."""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
import ray
from ray.cluster_utils import Cluster as Nodes

from dcae15.cluster import Cluster, Pool, Resources
from dcae15.cluster.connection import ENVIRONMENT
from dcae15.config import Config
from dcae15.data.shards import ShardRecord, read_records, write_shard
from dcae15.stages.shard_writing import ShardPlan, write_shards

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests


class Writer:
    """Writes slowly enough that a node can be lost amid its work, and notes which node wrote which shard."""

    def __init__(self, root: str, notes: Path) -> None:
        self.root, self.notes = root, notes
        self.node = ray.get_runtime_context().get_node_id()

    def write(self, plan: ShardPlan[int]) -> ShardRecord:
        time.sleep(0.3)  # work
        record = write_shard(self.root, plan.path, pa.table({"id": [f"{plan.content}/{row}" for row in range(3)]}))
        with (self.notes / "written").open("a") as file:
            file.write(f"{plan.path} {self.node}\n")
        return record


def notes(folder: Path) -> list[tuple[str, str]]:
    file = folder / "written"
    return [tuple(line.split()) for line in file.read_text().splitlines()] if file.exists() else []


def test_the_job_goes_on_without_a_lost_node(tmp_path, monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, os.environ.get(name, value))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    root = str(tmp_path / "set")
    plans = [ShardPlan(f"train/{i:06d}.parquet", 3, i) for i in range(60)]
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    lost = nodes.add_node(num_cpus=1)
    nodes.add_node(num_cpus=1)
    try:
        ray.init(address=nodes.address, log_to_driver=False)
        cluster = Cluster(Config(), Resources(2, 0, local=False))
        killed: list[str] = []

        def lose_one() -> None:
            """Kill a node, and all that runs there, once both have written something."""
            while not killed:
                if len({node for _, node in notes(tmp_path)}) == 2 and len(notes(tmp_path)) >= 8:
                    nodes.remove_node(lost, allow_graceful=False)
                    killed.append(lost.node_id)
                time.sleep(0.1)

        thread = threading.Thread(target=lose_one, daemon=True)
        thread.start()
        records = write_shards(
            cluster, "test", root, plans, functools.partial(Writer, root, tmp_path), Pool(2, 2, cpus=1)
        )
        thread.join(60)
    finally:
        ray.shutdown()
        nodes.shutdown()
    assert killed, "the node was lost amid the work"
    assert [record.shard.path for record in records] == [plan.path for plan in plans]
    assert sorted(read_records(root)) == [plan.path for plan in plans]
    written = Counter(path for path, _ in notes(tmp_path))
    assert set(written) == {plan.path for plan in plans}
    again = sum(count - 1 for count in written.values())
    assert again <= 2, "at most the shard in hand and the waiting one are done again"
    assert sum(node == killed[0] for _, node in notes(tmp_path)) < 20
