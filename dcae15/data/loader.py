"""Batches for training: rows of shards in the deterministic order, decoded and prefetched in the background."""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from dcae15.artifacts import ImageSet, LatentSet, Split
from dcae15.data import images as image_codec
from dcae15.data import shards
from dcae15.data.order import Order

CACHE_BYTES = 4 << 30
"""Memory that a process spends on shards; at least the shards of two windows of the order should fit."""


@dataclass(frozen=True)
class Batch:
    """One rank's part of a global batch.

    Attributes:
        start: position of the global batch in the stream: images seen before it.
        inputs: uint8 images (b, H, W, 3), or raw float32 latents (b, C, h, w).
        labels: int64 (b,).
        wait: seconds that the consumer waited for it.
    """

    start: int
    inputs: Tensor
    labels: Tensor
    wait: float = 0.0


class ShardCache:
    """Decoded shards in memory, least recently used ones dropped beyond ``limit`` bytes; each is read once while it stays."""

    def __init__(
        self, root: str, split: Split, decode: Callable[[pa.Table], dict[str, Any]], limit: int = CACHE_BYTES
    ) -> None:
        self.root, self.split, self.decode, self.limit = root, split, decode, limit
        self._held: OrderedDict[int, dict[str, Any]] = OrderedDict()

    def get(self, shard: int) -> dict[str, Any]:
        """Return the decoded columns of a shard."""
        if shard not in self._held:
            while self._held and sum(self.split.shards[s].bytes for s in [*self._held, shard]) > self.limit:
                self._held.popitem(last=False)
            self._held[shard] = self.decode(shards.read_shard(self.root, self.split.shards[shard]))
        self._held.move_to_end(shard)
        return self._held[shard]

    def gather(self, pairs: np.ndarray) -> tuple[list[Any], np.ndarray]:
        """Return the values and labels of (shard, row) pairs, in their order."""
        values: list[Any] = [None] * len(pairs)
        labels = np.zeros(len(pairs), np.int64)
        for shard in dict.fromkeys(pairs[:, 0].tolist()):
            columns = self.get(shard)
            for i in np.flatnonzero(pairs[:, 0] == shard):
                values[i], labels[i] = columns["values"][pairs[i, 1]], columns["labels"][pairs[i, 1]]
        return values, labels


class Batches:
    """An endless iterator over one rank's part of every global batch.

    Args:
        cache: the shards.
        order: the order of rows.
        assemble: makes the inputs of a batch from its values and the stream positions of its rows.
        batch_size: rows of a global batch; must be a multiple of ``world``.
        start: images seen so far.
        rank: which part of each batch.
        world: how many parts.
        depth: batches prepared ahead.
        pin: keep inputs in pinned memory, from which a GPU copies while it computes.
    """

    def __init__(
        self,
        cache: ShardCache,
        order: Order,
        assemble: Callable[[list[Any], np.ndarray], Tensor],
        *,
        batch_size: int,
        start: int,
        rank: int,
        world: int,
        depth: int = 4,
        pin: bool = False,
    ) -> None:
        self.cache, self.order, self.assemble = cache, order, assemble
        self.batch_size, self.start, self.rank, self.world = batch_size, start, rank, world
        self.pin = pin
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="dcae15-loader", daemon=True)

    def _fill(self) -> None:
        try:
            part = self.batch_size // self.world
            start = self.start
            while not self._stop.is_set():
                first = start + self.rank * part
                values, labels = self.cache.gather(self.order.take(first, part))
                inputs = self.assemble(values, np.arange(first, first + part))
                if self.pin:
                    inputs = inputs.pin_memory()
                self._put(Batch(start, inputs, torch.from_numpy(labels)))
                start += self.batch_size
        except BaseException as error:  # handed to the consumer, who raises it
            self._put(error)

    def _put(self, item: Batch | BaseException) -> None:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=0.2)
                return
            except queue.Full:
                continue

    def __iter__(self) -> Generator[Batch, None, None]:
        self._thread.start()
        try:
            while True:
                began = time.perf_counter()
                item = self._ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield Batch(item.start, item.inputs, item.labels, time.perf_counter() - began)
        finally:
            self.close()

    def close(self) -> None:
        """Stop the background thread."""
        self._stop.set()


def image_batches(
    image_set: ImageSet,
    *,
    seed: int,
    batch_size: int,
    start: int,
    rank: int,
    world: int,
    min_area: float,
    flip: bool,
    resolution: int = 0,
    pin: bool = False,
) -> Batches:
    """Batches of uint8 training images (b, H, W, 3): cropped as the set says, half of them mirrored with ``flip``.

    A ``resolution`` below that of the set makes smaller images: random crops are resized to it, stored squares reduced.
    """
    resolution = resolution or image_set.resolution
    pool = ThreadPoolExecutor(4, thread_name_prefix="dcae15-decode") if image_set.encoding == "png" else None

    def one(value: Any, position: int) -> np.ndarray:
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 1, position])))
        image = image_codec.decode_png(value) if isinstance(value, bytes) else value
        if image_set.crop == "random":
            image = image_codec.random_resized_crop(Image.fromarray(image), resolution, generator, min_area=min_area)
        elif resolution != image_set.resolution:
            image = image_codec.center_crop(Image.fromarray(image), resolution)
        return image[:, ::-1] if flip and generator.random() < 0.5 else image

    def assemble(values: list[Any], positions: np.ndarray) -> Tensor:
        images = (pool.map if pool else map)(one, values, positions.tolist())
        return torch.from_numpy(np.stack(list(images)))

    split = image_set.splits["train"]
    cache = ShardCache(image_set.uri, split, lambda table: decode_images(table, image_set))
    order = Order([s.count for s in split.shards], seed)
    return Batches(cache, order, assemble, batch_size=batch_size, start=start, rank=rank, world=world, pin=pin)


def latent_batches(
    latent_set: LatentSet, *, seed: int, batch_size: int, start: int, rank: int, world: int, pin: bool = False
) -> Batches:
    """Batches of raw float32 latents (b, C, h, w)."""
    spec, split = latent_set.spec, latent_set.splits["train"]

    def decode(table: pa.Table) -> dict[str, Any]:
        shape = (spec.channels, spec.height, spec.width)
        return {
            "values": shards.decode_latents(table.column("latent"), shape, latent_set.dtype),
            "labels": shards.labels_of(table),
        }

    cache = ShardCache(latent_set.uri, split, decode)
    order = Order([s.count for s in split.shards], seed)

    def assemble(values: list[Any], positions: np.ndarray) -> Tensor:
        return torch.stack(values)

    return Batches(cache, order, assemble, batch_size=batch_size, start=start, rank=rank, world=world, pin=pin)


def decode_images(table: pa.Table, image_set: ImageSet) -> dict[str, Any]:
    """Return a shard's images (raw ones as one uint8 array, PNG files as bytes, decoded when used) and labels."""
    column = table.column("image")
    if image_set.encoding == "png":
        return {"values": column.to_pylist(), "labels": shards.labels_of(table)}
    side = image_set.resolution
    data = np.frombuffer(b"".join(column.to_pylist()), np.uint8)
    return {"values": data.reshape(-1, side, side, 3), "labels": shards.labels_of(table)}


def iterate_images(image_set: ImageSet, split: str, limit: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the first ``limit`` (0: all) images of a split, centre-cropped, shard by shard: uint8 (n, H, W, 3), labels (n,)."""
    left = limit or image_set.splits[split].count
    for shard in image_set.splits[split].shards:
        if left <= 0:
            return
        columns = decode_images(shards.read_shard(image_set.uri, shard), image_set)
        values, labels = columns["values"][:left], columns["labels"][:left]
        yield np.stack([square(value, image_set) for value in values]), np.asarray(labels, np.int64)
        left -= len(labels)


def load_images(image_set: ImageSet, split: str, limit: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the first ``limit`` (0: all) images of a split, centre-cropped, uint8 (N, H, W, 3), and their labels (N,)."""
    count, side = image_set.splits[split].count, image_set.resolution
    count = min(limit, count) if limit else count
    images, labels, done = np.empty((count, side, side, 3), np.uint8), np.empty(count, np.int64), 0
    for some, their_labels in iterate_images(image_set, split, limit):
        images[done : done + len(some)], labels[done : done + len(some)] = some, their_labels
        done += len(some)
    return images, labels


def square(value: Any, image_set: ImageSet) -> np.ndarray:
    """Return one stored image as the centre crop (H, W, 3) that everything but training uses."""
    image = image_codec.decode_png(value) if isinstance(value, bytes) else value
    if image_set.crop == "random":
        image = image_codec.center_crop(Image.fromarray(image), image_set.resolution)
    return image
