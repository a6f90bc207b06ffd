"""Shards in memory: read once while they stay, several at a time ahead of their use, the least recently used dropped."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from dcae15.artifacts import Split
from dcae15.data import shards
from dcae15.data.disk_cache import DiskCache
from dcae15.data.order import CACHE_BYTES

Columns = dict[str, Any]
"""``values``: the rows of a shard as they are stored, an array or a list; ``labels``: int64 (N,)."""

_MOST_READERS = 4


class ShardCache:
    """The shards of a split in memory, as they are stored; each is read once while it stays.

    A shard beyond the limit is held alone. Memory is ``limit`` (or one shard) and, while shards are being read, about two and
    a half times their bytes; large ones are read one at a time.
    """

    def __init__(
        self,
        root: str,
        split: Split,
        decode: Callable[[pa.Table], Columns],
        *,
        columns: Sequence[str],
        disk: DiskCache | None = None,
        limit: int = CACHE_BYTES,
    ) -> None:
        self.root, self.split, self.decode = root, split, decode
        self.columns, self.disk, self.limit = columns, disk, limit
        self._held: OrderedDict[int, Future[Columns]] = OrderedDict()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False

    def get(self, shard: int) -> Columns:
        """Return the columns of a shard; read it, or wait for whoever reads it already."""
        with self._lock:
            future = self._held.get(shard)
            missing = future is None
            if future is None:
                future = self._begin(shard)
            self._held.move_to_end(shard)
        if missing:
            self._read(shard, future)
        return future.result()

    def ahead(self, wanted: Sequence[int]) -> None:
        """Begin to read the shards that are needed next, the first ones first; as many as fit, others are dropped for them."""
        with self._lock:
            for shard in reversed(wanted):
                if shard in self._held:
                    self._held.move_to_end(shard)
            size = 0
            for shard in wanted:
                size += self.split.shards[shard].bytes
                if size > self.limit or self._closed:
                    return
                if shard not in self._held:
                    self._readers().submit(self._read, shard, self._begin(shard))

    def gather(self, pairs: np.ndarray) -> tuple[Any, np.ndarray]:
        """Return the values (an array (n, ...) or a list) and labels of (shard, row) pairs, in their order."""
        labels = np.empty(len(pairs), np.int64)
        values: Any = None
        by_shard = np.argsort(pairs[:, 0], kind="stable")
        found, begins = np.unique(pairs[by_shard, 0], return_index=True)
        for shard, places in zip(found.tolist(), np.split(by_shard, begins[1:]), strict=True):
            columns, rows = self.get(shard), pairs[places, 1]
            labels[places] = columns["labels"][rows]
            held = columns["values"]
            if values is None:
                array = isinstance(held, np.ndarray)
                values = np.empty((len(pairs), *held.shape[1:]), held.dtype) if array else [None] * len(pairs)
            for place, row in zip(places.tolist(), rows.tolist(), strict=True):
                values[place] = held[row]  # one by one: values[places] = held[rows] copies each twice
        return values, labels

    def close(self) -> None:
        """Read nothing more ahead."""
        with self._lock:
            self._closed = True
            if self._pool is not None:
                self._pool.shutdown(wait=False)

    def _begin(self, shard: int) -> Future[Columns]:
        """Make room for a shard and note that somebody reads it; the lock is held."""
        sizes = [self.split.shards[s].bytes for s in [*self._held, shard]]
        total = sum(sizes)
        for size in sizes[:-1]:
            if total <= self.limit:
                break
            self._held.popitem(last=False)
            total -= size
        self._held[shard] = Future()
        return self._held[shard]

    def _read(self, shard: int, future: Future[Columns]) -> None:
        try:
            if self._closed:
                raise RuntimeError("the loader was closed")
            table = shards.read_shard(self.root, self.split.shards[shard], columns=self.columns, disk=self.disk)
            future.set_result(self.decode(table))
        except BaseException as error:  # raised by whoever asks for the shard
            with self._lock:
                if self._held.get(shard) is future:
                    del self._held[shard]  # another attempt may succeed
            future.set_exception(error)

    def _readers(self) -> ThreadPoolExecutor:
        if self._pool is None:
            largest = max(shard.bytes for shard in self.split.shards)
            readers = max(1, min(_MOST_READERS, self.limit // (8 * largest)))
            self._pool = ThreadPoolExecutor(readers, thread_name_prefix="dcae15-shards")
        return self._pool
