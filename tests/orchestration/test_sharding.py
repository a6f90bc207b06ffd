"""Shards written by Ray Data, with writers that count, fail and die."""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
import ray
import torch

from dcae15.artifacts import Shard
from dcae15.config import build
from dcae15.data.shards import ShardRecord, read_records, write_shard
from dcae15.errors import DataError
from dcae15.orchestration.cluster import connect
from dcae15.orchestration.sharding import Pool, ShardPlan, write_shards

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests

PLANS = [ShardPlan(f"train/{i:06d}.parquet", 3, i) for i in range(6)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory):
    config, _ = build([])
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with connect(config) as cluster:
            yield cluster


class Writer:
    """Writes three rows; leaves a note about the process and the threads that made it and called it."""

    def __init__(self, root: str, notes: Path, dies_at: int = -1, fails_at: int = -1) -> None:
        self.root, self.notes, self.dies_at, self.fails_at = root, notes, dies_at, fails_at
        self.made_in = threading.get_ident()

    def write(self, plan: ShardPlan[int]) -> ShardRecord:
        died = self.notes / "died"
        if plan.content == self.dies_at and not died.exists():
            died.touch()
            os._exit(1)
        if plan.content == self.fails_at:
            raise DataError(f"shard {plan.content} cannot be made; mend it")
        same = self.made_in == threading.get_ident()
        note = f"{plan.content} {os.getpid()} {same} {torch.get_num_threads()}\n"
        with (self.notes / "written").open("a") as file:
            file.write(note)
        return write_shard(self.root, plan.path, pa.table({"id": [f"{plan.content}/{row}" for row in range(3)]}))


def fail_to_make() -> Writer:
    raise DataError("no weights at /nowhere")


def notes(folder: Path) -> list[list[str]]:
    return [line.split() for line in (folder / "written").read_text().splitlines()]


def test_every_shard_is_written_once_and_returned_in_the_order_of_the_plans(cluster, tmp_path):
    root = str(tmp_path / "set")
    records = write_shards("test", root, PLANS, functools.partial(Writer, root, tmp_path), Pool(1, 1))
    assert [record.shard.path for record in records] == [plan.path for plan in PLANS]
    assert Counter(note[0] for note in notes(tmp_path)) == {str(i): 1 for i in range(6)}
    assert read_records(root) == {record.shard.path: record for record in records}


def test_a_writer_computes_in_the_thread_that_made_it_with_its_own_cpus(cluster, tmp_path):
    root = str(tmp_path / "set")
    write_shards("test", root, PLANS, functools.partial(Writer, root, tmp_path), Pool(1, 1, cpus=1))
    assert {note[2] for note in notes(tmp_path)} == {"True"}
    assert {note[3] for note in notes(tmp_path)} == {"1"}


def test_a_second_call_writes_only_what_is_missing(cluster, tmp_path, capsys):
    root = str(tmp_path / "set")
    make = functools.partial(Writer, root, tmp_path)
    write_shards("test", root, PLANS[:4], make, Pool(1, 1))
    records = write_shards("test", root, PLANS, make, Pool(1, 1))
    assert [record.shard.path for record in records] == [plan.path for plan in PLANS]
    assert Counter(note[0] for note in notes(tmp_path)) == {str(i): 1 for i in range(6)}
    assert "12 of 18 images were done before; continuing" in capsys.readouterr().out


def test_a_pool_has_as_many_actors_as_it_is_given(cluster, tmp_path):
    if cluster.cpus < 2:
        pytest.skip("one CPU")
    root = str(tmp_path / "set")
    plans = [ShardPlan(f"train/{i:06d}.parquet", 3, i) for i in range(40)]
    write_shards("test", root, plans, functools.partial(Writer, root, tmp_path), Pool(2, 2, cpus=1))
    assert len({note[1] for note in notes(tmp_path)}) == 2


def test_a_writer_that_dies_is_replaced(cluster, tmp_path):
    root = str(tmp_path / "set")
    records = write_shards("test", root, PLANS, functools.partial(Writer, root, tmp_path, dies_at=3), Pool(1, 1))
    assert (tmp_path / "died").exists()
    assert [record.shard.path for record in records] == [plan.path for plan in PLANS]
    assert len({note[1] for note in notes(tmp_path)}) == 2, "another process took over"


def test_what_a_writer_raises_arrives_as_it_was(cluster, tmp_path):
    root = str(tmp_path / "set")
    with pytest.raises(DataError, match=r"^shard 2 cannot be made; mend it$"):
        write_shards("test", root, PLANS, functools.partial(Writer, root, tmp_path, fails_at=2), Pool(1, 1))


def test_what_making_a_writer_raises_arrives_as_it_was(cluster, tmp_path):
    with pytest.raises(DataError, match=r"^no weights at /nowhere$"):
        write_shards("test", str(tmp_path / "set"), PLANS, fail_to_make, Pool(1, 1))


def test_the_driver_can_stop_early_and_keeps_what_is_done(cluster, tmp_path):
    root = str(tmp_path / "set")

    def stop(records: list[ShardRecord]) -> None:
        raise DataError(f"enough after {len(records)}")

    with pytest.raises(DataError, match=r"^enough after 1$"):
        write_shards("test", root, PLANS, functools.partial(Writer, root, tmp_path), Pool(1, 1), stop)
    assert read_records(root)


def test_what_changed_or_is_not_planned_any_more_is_not_kept(cluster, tmp_path, capsys):
    root = str(tmp_path / "set")
    make = functools.partial(Writer, root, tmp_path)
    write_shards("test", root, PLANS, make, Pool(1, 1))
    plans = [PLANS[0], ShardPlan(PLANS[1].path, 3, 100), PLANS[2]]
    records = write_shards("test", root, plans, make, Pool(1, 1))
    assert "4 shards of another state of the source are made anew" in capsys.readouterr().out
    assert sorted(read_records(root)) == [record.shard.path for record in records] == [plan.path for plan in plans]
    assert sorted(path.name for path in (tmp_path / "set" / "train").iterdir() if path.suffix == ".parquet") == [
        f"{i:06d}.parquet" for i in range(3)
    ]
    assert Counter(note[0] for note in notes(tmp_path)) == {**{str(i): 1 for i in range(6)}, "100": 1}


def test_the_digest_of_a_plan_is_that_of_its_content():
    table = pa.table({"id": ["a", "b"], "size": [1, 2]})
    digest = ShardPlan("x", 2, table).digest
    assert ShardPlan("y", 2, pa.concat_tables([table.slice(0, 1), table.slice(1)])).digest == digest
    assert ShardPlan("x", 2, table.set_column(1, "size", pa.array([1, 3]))).digest != digest
    assert ShardPlan("x", 3, table).digest != digest


def test_a_plan_of_latents_does_not_depend_on_the_checksum_that_old_sets_lack():
    old, new = (ShardPlan("x", 3, (Shard("x", 3, 9, "0" * 64, xxh3), False)) for xxh3 in ("", "1" * 32))
    assert old.digest == new.digest == "cf35db7b5c3e7d45"


def test_nothing_is_started_when_all_is_there(cluster, tmp_path, monkeypatch):
    root = str(tmp_path / "set")
    write_shards("test", root, PLANS, functools.partial(Writer, root, tmp_path), Pool(1, 1))
    monkeypatch.setattr(ray.data, "from_items", lambda *_, **__: pytest.fail("a dataset was made"))
    assert len(write_shards("test", root, PLANS, functools.partial(Writer, root, tmp_path), Pool(1, 1))) == 6


class Uneven:
    """The first actor to come is slow: it finishes its first shard only when all others but one are there."""

    def __init__(self, root: str, notes: Path, total: int) -> None:
        self.root, self.total = root, total
        try:
            (notes / "slow").touch(exist_ok=False)
            self.slow = True
        except FileExistsError:
            self.slow = False

    def write(self, plan: ShardPlan[int]) -> ShardRecord:
        while self.slow and len(read_records(self.root)) < self.total - 2:
            threading.Event().wait(0.05)
        return write_shard(self.root, plan.path, pa.table({"id": [f"{plan.content}/{row}" for row in range(3)]}))


def test_a_slow_actor_does_not_hold_up_the_others(cluster, tmp_path):
    if cluster.cpus < 2:
        pytest.skip("one CPU")
    root = str(tmp_path / "set")
    plans = [ShardPlan(f"train/{i:06d}.parquet", 3, i) for i in range(20)]
    # The slow one has a shard in hand and the next one waiting; it is released when the other 18 are written.
    write_shards("test", root, plans, functools.partial(Uneven, root, tmp_path, len(plans)), Pool(2, 2, cpus=1))
    assert len(read_records(root)) == 20
