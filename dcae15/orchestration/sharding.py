"""Shards written by Ray Data: one row of the dataset is the plan of one shard, an actor writes it whole.

A restarted job plans only the shards without a side file, so nothing is lost and nothing is written twice. ``plan.json`` beside
them says what each was planned to hold: where that has changed (files were added, removed or replaced) the shard is made anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import pyarrow as pa
import ray
import torch
from ray.data import ActorPoolStrategy

from dcae15 import storage
from dcae15.artifacts import Shard
from dcae15.data.shards import ShardRecord, read_records
from dcae15.errors import Dcae15Error

PLAN = "plan.json"

PlanT = TypeVar("PlanT")


@dataclass(frozen=True)
class ShardPlan(Generic[PlanT]):
    """One shard to write: its path below the artifact, how many rows it covers, and what its writer needs to know."""

    path: str
    count: int
    content: PlanT

    @property
    def digest(self) -> str:
        """What names the shard's content: count and content, not the path."""
        content: Any = self.content
        content = content.to_pydict() if isinstance(content, pa.Table) else content
        return hashlib.sha256(repr((self.count, content)).encode()).hexdigest()[:16]


class ShardWriter(Protocol):
    """Writes shards; one lives in each actor, so that weights are loaded once."""

    def write(self, plan: ShardPlan[Any]) -> ShardRecord:
        """Write the shard and its side file."""
        ...


@dataclass(frozen=True)
class Pool:
    """Actors that write shards.

    Attributes:
        least: actors to start with.
        most: actors to grow to.
        cpus: CPUs of each.
        gpus: GPUs of each.
    """

    least: int
    most: int
    cpus: float = 1.0
    gpus: float = 0.0


def write_shards(
    stage: str,
    root: str,
    plans: Sequence[ShardPlan[Any]],
    make_writer: Callable[[], ShardWriter],
    pool: Pool,
    after_each: Callable[[list[ShardRecord]], None] = lambda records: None,
) -> list[ShardRecord]:
    """Write every planned shard that is not there yet; return the records of all of them, in the order of ``plans``.

    Args:
        stage: name in progress lines.
        root: URI of the artifact.
        plans: all shards.
        make_writer: makes the writer inside an actor; must be picklable.
        pool: the actors.
        after_each: called on the driver with all records so far; may raise to stop early.

    Raises:
        Dcae15Error: what a writer raised.
    """
    records = _records_of(stage, root, plans)
    missing = [plan for plan in plans if plan.path not in records]
    progress = _Progress(
        stage, sum(p.count for p in plans), sum(p.count for p in plans) - sum(p.count for p in missing)
    )
    if missing:
        rows = [{"plan": pickle.dumps(plan)} for plan in missing]
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _Actor,  # pyright: ignore[reportArgumentType]  # Ray makes the instance
            fn_constructor_args=(make_writer, max(1, int(pool.cpus))),
            compute=ActorPoolStrategy(min_size=min(pool.least, len(rows)), max_size=min(pool.most, len(rows))),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
        )
        counts = {plan.path: plan.count for plan in missing}
        for row in dataset.iter_rows():
            record = _unpack(row["result"])
            records[record.shard.path] = record
            progress.advance(counts[record.shard.path])
            after_each(list(records.values()))
    return [records[plan.path] for plan in plans]


def _records_of(stage: str, root: str, plans: Sequence[ShardPlan[Any]]) -> dict[str, ShardRecord]:
    """Return the records of the shards that are there and hold what is planned; remove all others."""
    digests = {plan.path: plan.digest for plan in plans}
    place = storage.join(root, PLAN)
    before = storage.read_json(place) if storage.exists(place) else {}
    records = read_records(root)
    stale = [path for path in records if path not in digests or digests[path] != before.get(path)]
    for path in stale:
        for name in (path + ".json", path):  # without its side file it does not count
            storage.remove(storage.join(root, name))
        del records[path]
    if stale:
        print(f"{stage}: {len(stale):,} shards of another state of the source are made anew", flush=True)
    if before != digests:
        storage.write_json(place, digests)
    return records


class _Actor:
    """Adapts a writer to a row of a Ray dataset.

    Ray makes the actor in one thread and calls it from another. The writer is made in the latter: a pool of computing
    threads belongs to the thread that started it, and where two pools exceed the CPUs, OpenMP halves the speed of both.
    """

    def __init__(self, make_writer: Callable[[], ShardWriter], threads: int) -> None:
        self.make_writer, self.threads = make_writer, threads
        self.writer: ShardWriter | None = None

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        try:
            if self.writer is None:
                torch.set_num_threads(self.threads)
                self.writer = self.make_writer()
            result = dataclasses.asdict(self.writer.write(pickle.loads(row["plan"])))  # noqa: S301
        except Dcae15Error as error:  # Ray Data would log its trace, and lose it on the way to the driver
            result = error
        return {"result": pickle.dumps(result)}


def _unpack(data: bytes) -> ShardRecord:
    body = pickle.loads(data)  # noqa: S301  # made by our own actor a moment ago
    if isinstance(body, Dcae15Error):
        raise body
    return ShardRecord(Shard(**body["shard"]), body["rejected"], body["statistics"])


class _Progress:
    """A line at least every few seconds while shards arrive."""

    def __init__(self, stage: str, total: int, done: int) -> None:
        self.stage, self.total, self.done, self.before = stage, total, done, done
        self.began = self.printed = time.perf_counter()
        if done:
            print(f"{stage}: {done:,} of {total:,} images were done before; continuing", flush=True)

    def advance(self, count: int) -> None:
        self.done += count
        now = time.perf_counter()
        if now - self.printed < 3 and self.done < self.total:
            return
        self.printed = now
        rate = (self.done - self.before) / (now - self.began)
        eta = int((self.total - self.done) / max(rate, 1e-9))
        print(
            f"{self.stage}: {self.done:,}/{self.total:,} images  {rate:,.0f} images/s  ETA {eta // 60}:{eta % 60:02d}",
            flush=True,
        )
