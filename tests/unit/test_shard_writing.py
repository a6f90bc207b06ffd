"""Which shards are written, which are kept, and what the driver hears of them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from dcae15 import storage
from dcae15.artifacts import Shard
from dcae15.cluster import Pool
from dcae15.data.shards import ShardRecord, read_records, write_shard
from dcae15.errors import DataError
from dcae15.stages.shard_writing import ShardPlan, write_shards
from tests.here import Here

PLANS = [ShardPlan(f"train/{i:06d}.parquet", 3, i) for i in range(6)]


class Writer:
    """Writes three rows."""

    def __init__(self, root: str) -> None:
        self.root = root

    def write(self, plan: ShardPlan[int]) -> ShardRecord:
        return write_shard(self.root, plan.path, pa.table({"id": [f"{plan.content}/{row}" for row in range(3)]}))


def write(root: str, plans: list[ShardPlan[int]], **options) -> tuple[list[str], int]:
    """The paths of the records, and how many shards were written."""
    cluster = Here()
    records = write_shards(cluster, "test", root, plans, lambda: Writer(root), Pool(1, 1), **options)
    assert read_records(root) == {record.shard.path: record for record in records}
    return [record.shard.path for record in records], len(cluster.mapped)


def paths(plans: list[ShardPlan[int]]) -> list[str]:
    return [plan.path for plan in plans]


def test_only_what_is_missing_is_written_and_all_comes_in_the_order_of_the_plans(tmp_path):
    root = str(tmp_path)
    assert write(root, PLANS[2:4]) == (paths(PLANS[2:4]), 2)
    assert write(root, PLANS) == (paths(PLANS), 4)
    assert write(root, PLANS) == (paths(PLANS), 0)


def test_what_changed_or_is_not_planned_any_more_is_not_kept(tmp_path, capsys):
    root = str(tmp_path)
    write(root, PLANS)
    plans = [PLANS[0], ShardPlan(PLANS[1].path, 3, 100), PLANS[2]]
    assert write(root, plans) == (paths(plans), 1)
    assert "test: 4 finished shards are made again: their source files changed" in capsys.readouterr().out
    assert sorted(path.name for path in Path(root, "train").glob("*.parquet")) == [f"{i:06d}.parquet" for i in range(3)]
    assert sorted(storage.read_json(f"{root}/plan.json")) == paths(plans)


def test_the_driver_hears_of_each_shard_once_and_can_stop_early(tmp_path):
    root, heard = str(tmp_path), []

    def hear(record: ShardRecord) -> None:
        heard.append(record.shard.path)
        if len(heard) == 3:
            raise DataError("enough after 3")

    write(root, PLANS[4:])
    with pytest.raises(DataError, match=r"^enough after 3$"):
        write(root, PLANS, after_each=hear)
    assert heard == paths([*PLANS[4:], PLANS[0]])
    assert sorted(read_records(root)) == paths([PLANS[0], *PLANS[4:]]), "what is done is kept"


def test_the_digest_of_a_plan_is_that_of_its_content():
    table = pa.table({"id": ["a", "b"], "size": [1, 2]})
    digest = ShardPlan("x", 2, table).digest
    assert ShardPlan("y", 2, pa.concat_tables([table.slice(0, 1), table.slice(1)])).digest == digest
    assert ShardPlan("x", 2, table.set_column(1, "size", pa.array([1, 3]))).digest != digest
    assert ShardPlan("x", 3, table).digest != digest


def test_a_plan_of_latents_does_not_depend_on_the_checksum_that_old_sets_lack():
    old, new = (ShardPlan("x", 3, (Shard("x", 3, 9, "0" * 64, xxh3), False)) for xxh3 in ("", "1" * 32))
    assert old.digest == new.digest == "cf35db7b5c3e7d45"
