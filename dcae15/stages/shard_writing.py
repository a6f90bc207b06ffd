"""Shards that are missing are written on the cluster, each whole by one worker; those that are there are kept.

A restarted job plans only the shards without a side file, so nothing is lost and nothing is written twice. ``plan.json`` beside
them says what each was planned to hold: where that has changed (files were added, removed or replaced) the shard is made anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import pyarrow as pa

from dcae15 import storage
from dcae15.cluster import Cluster, Pool
from dcae15.data.shards import ShardRecord, read_records

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


def write_shards(
    cluster: Cluster,
    name: str,
    root: str,
    plans: Sequence[ShardPlan[Any]],
    make_writer: Callable[[], ShardWriter],
    pool: Pool,
    after_each: Callable[[ShardRecord], None] = lambda record: None,
) -> list[ShardRecord]:
    """Write every planned shard that is not there yet; return the records of all of them, in the order of ``plans``.

    Args:
        cluster: the cluster.
        name: of the stage, in progress lines.
        root: URI of the artifact.
        plans: all shards.
        make_writer: makes the writer inside an actor; must be picklable.
        pool: the actors.
        after_each: called on the driver once with every record, first those that were there; may raise to stop early.

    Raises:
        Dcae15Error: what a writer raised.
        DataError: the workers of a shard died each time; it is named.
    """
    records = _records_of(name, root, plans)
    for record in records.values():
        after_each(record)
    missing = [plan for plan in plans if plan.path not in records]
    total = sum(plan.count for plan in plans)
    work = cluster.map(
        name,
        lambda: make_writer().write,
        missing,
        pool,
        size=lambda plan: plan.count,
        total=total,
        done=total - sum(plan.count for plan in missing),
        describe=lambda plan: f"shard {plan.path}",
    )
    with closing(work):  # else actors write on while an error is reported
        for _, record in work:
            records[record.shard.path] = record
            after_each(record)
    return [records[plan.path] for plan in plans]


def _records_of(name: str, root: str, plans: Sequence[ShardPlan[Any]]) -> dict[str, ShardRecord]:
    """Return the records of the shards that are there and hold what is planned; remove all others."""
    digests = {plan.path: plan.digest for plan in plans}
    place = storage.join(root, PLAN)
    before = storage.read_json(place) if storage.exists(place) else {}
    records = read_records(root)
    stale = [path for path in records if path not in digests or digests[path] != before.get(path)]
    for path in stale:
        for file in (path + ".json", path):  # without its side file it does not count
            storage.remove(storage.join(root, file))
        del records[path]
    if stale:
        print(f"{name}: {len(stale):,} finished shards are made again: their source files changed", flush=True)
    if before != digests:
        storage.write_json(place, digests)
    return records
