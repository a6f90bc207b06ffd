"""Open a source with the CPUs of the cluster: containers are indexed side by side, Parquet files are unpacked."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dcae15 import artifacts, storage
from dcae15.cluster import Cluster
from dcae15.config import Config
from dcae15.data import shards, sources
from dcae15.data.shards import ShardRecord
from dcae15.data.sources import Container, Listing, Selection, Source, parquet
from dcae15.errors import StorageError
from dcae15.evaluation import needs
from dcae15.stages.shard_writing import ShardPlan, write_shards

INDEX_VERSION = 3
"""To be raised when `dcae15.data.sources.index` returns something else than before."""
COPIES = "unpacked"
"""Folder below ``<storage>/sources``: for each copy a folder, and beside it a file that names the image set it is for."""
READERS = 16
"""Small files that the driver reads at once."""


def open_source(config: Config, cluster: Cluster, uri: str, kind: str, *, keep: bool = True) -> Source:
    """List a source, index its containers and take the images that are asked for; say what was found.

    With ``keep`` the indexes stay below the storage for the next time; else nothing is written.

    Raises:
        Dcae15Error: see `sources.find`, `sources.index` and `sources.assemble`.
    """
    remember = functools.partial(_remember, config.storage) if keep else lambda tar, make: make(tar)
    listing = sources.find(uri, kind, remember)
    tables = _indexed(config, cluster, listing, keep) if listing.containers else []
    data = config.data
    selection = Selection(
        data.val_fraction, data.limit, tuple(data.classes), data.seed, data.labels, data.join, needs.HELD_OUT
    )
    source = sources.assemble(listing, tables, selection)
    found = source.describe()
    drawn = config.data.source == "shapes"  # nobody wonders what these are
    print(f"source: {found.splitlines()[0] if drawn else found}", flush=True)
    for sentence in needs.left_out(config, needs.Counts(source.train.num_rows, source.val.num_rows)):
        print(f"source: {sentence}", flush=True)
    return source


def copy_of(config: Config, source: Source, fingerprint: str) -> str:
    """Return the folder for the unpacked images of a source, for the image set of this fingerprint."""
    name = hashlib.sha256(fingerprint.encode())
    for table in (source.train, source.val):
        name.update(_digest(table))
    return storage.join(config.storage, "sources", COPIES, name.hexdigest()[:16])


def unpack(root: str, cluster: Cluster, source: Source, images: str) -> Source:
    """Copy the images of Parquet files into plain files below the storage, so that shards can read them in any order.

    A call that was cut off is continued by the next. A file beside the copy says what it is for, see `remove_copies`.

    Returns:
        The source with the images where they are now.
    """
    tables = {"train": source.train, "val": source.val}
    storage.write_json(root + ".json", {"images": images})
    plans, places = [], []
    for split, table in tables.items():
        for i, (_, rows) in enumerate(by_file(table)):
            plans.append(ShardPlan(f"{split}-{i:06d}.parquet", len(rows), sources.take(table, rows)))
            places.append((split, rows))
    pool = cluster.resources.readers()
    records = write_shards(cluster, "unpack", root, plans, functools.partial(UnpackWriter, root), pool)
    found: dict[str, list[pa.Table]] = {"train": [], "val": []}
    with ThreadPoolExecutor(READERS) as readers:
        unpacked = list(readers.map(lambda record: shards.read_shard(root, record.shard), records))
    for (split, rows), part in zip(places, unpacked, strict=True):
        found[split].append(part.append_column("order", pa.array(rows)))
    moved = {}
    for split, parts in found.items():
        if not parts:
            moved[split] = tables[split]
            continue
        joined = pa.concat_tables(parts).sort_by("order").drop_columns(["order"])
        moved[split] = sources.rows(*(joined.column(name) for name in sources.SCHEMA.names))
    return replace(source, train=moved["train"], val=moved["val"])


def remove_copies(root: str) -> None:
    """Remove the copies below a storage root whose image sets are finished: of jobs that were killed before they did."""
    copies = storage.join(root, "sources", COPIES)
    for marker in [info.path for info in storage.list_files(copies) if "/" not in info.path]:
        try:
            images = storage.read_json(storage.join(copies, marker))["images"]
        except StorageError as error:
            if storage.is_missing(error):  # another job is removing it
                continue
            raise
        if artifacts.finished(images):
            discard(storage.join(copies, marker.removesuffix(".json")))


def discard(root: str) -> None:
    """Remove a copy, and what says what it is for.

    Side files go first: were the job killed in between, the rest would not be taken for complete.
    """
    complete = [storage.join(root, info.path) for info in storage.list_files(root) if info.path.endswith(".json")]
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(storage.remove, complete))
    storage.remove(root)
    storage.remove(root + ".json")


@dataclass(frozen=True)
class UnpackWriter:
    """Copies the images of one Parquet file into plain files; its shard says where they are."""

    root: str

    def write(self, plan: ShardPlan[pa.Table]) -> ShardRecord:
        """Unpack one file."""
        places = parquet.unpack(plan.content, self.root, plan.path.removesuffix(".parquet"))
        plain = places.set_column(2, "uri", places.column("uri").cast(pa.string()))
        return shards.write_shard(self.root, plan.path, plain)


def by_file(images: pa.Table) -> list[tuple[str, np.ndarray]]:
    """Return (file, indices of its images in the order of the file) for each file that images are in."""
    uris = images.column("uri").combine_chunks()
    codes, names = uris.indices.to_numpy(), uris.dictionary.to_pylist()
    order = np.lexsort((images.column("offset").to_numpy(), codes))
    edges = np.flatnonzero(np.diff(codes[order], prepend=-1)) if len(order) else []
    groups = np.split(order, edges[1:]) if len(edges) else []
    return sorted(((names[codes[group[0]]], group) for group in groups), key=lambda pair: pair[0])


def _indexed(config: Config, cluster: Cluster, listing: Listing, keep: bool) -> Sequence[pa.Table]:
    root = _index_root(config.storage, listing.kind, listing.uri, listing.containers) if keep else ""
    tables: list[pa.Table | None] = [None] * len(listing.containers)
    work, pool = functools.partial(_index, root), cluster.resources.readers()
    done = cluster.map("index", lambda: work, listing.containers, pool, unit="files", describe=lambda c: c.name)
    for place, table in done:
        tables[place] = table
    return [table for table in tables if table is not None]


def _remember(root: str, tar: Container, make: Callable[[Container], pa.Table]) -> pa.Table:
    """Index a tar of tars, or read what an earlier call kept below the storage."""
    return _index(_index_root(root, "tar of tars", tar.uri, [tar]), tar, make)


def _index(root: str, container: Container, make: Callable[[Container], pa.Table] = sources.index) -> pa.Table:
    """Index a container, or read what an earlier call kept."""
    if not root:
        return make(container)
    place = storage.join(root, f"{container.split or 'all'}-{quote(container.stem, safe='')}.parquet")
    try:
        return pq.read_table(io.BytesIO(storage.read_bytes(place)))
    except pa.ArrowException:
        pass  # damaged; made anew
    except StorageError as error:
        if not storage.is_missing(error):
            raise
    table = make(container)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    storage.write_bytes(place, buffer.getvalue())
    return table


def _index_root(root: str, kind: str, uri: str, containers: Sequence[Container]) -> str:
    """Return the folder below the storage for the indexes of a source, named by what could make them others."""
    facts = [INDEX_VERSION, kind, uri, [(c.name, c.offset, c.size, c.state) for c in containers]]
    return storage.join(root, "sources", f"index-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}")


def _digest(table: pa.Table) -> bytes:
    digest = hashlib.sha256()
    for name in ("id", "uri"):
        for text in table.column(name).cast(pa.string()).to_pylist():
            digest.update(text.encode() + b"\n")
    for name in ("offset", "state"):
        digest.update(table.column(name).to_numpy().tobytes())
    return digest.digest()
