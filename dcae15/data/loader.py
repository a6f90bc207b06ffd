"""Batches for training: rows of shards in the deterministic order, decoded and prefetched in the background."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator
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
from dcae15.data.disk_cache import DiskCache
from dcae15.data.order import Order, window_of
from dcae15.data.shard_cache import ShardCache
from dcae15.errors import ConfigError

IMAGE_COLUMNS = ("image", "label")
LATENT_COLUMNS = ("latent", "label")
_CLOSE_SECONDS = 5.0  # longer only where a read from storage hangs


@dataclass(frozen=True)
class Batch:
    """One rank's part of a global batch."""

    start: int  # position of the global batch in the stream: images seen before it
    inputs: Tensor  # uint8 images (b, H, W, 3), or raw float32 latents (b, C, h, w)
    labels: Tensor  # int64 (b,)
    wait: float = 0.0  # seconds that the consumer waited for it


class Batches:
    """An endless iterator over one rank's part of every global batch.

    A thread prepares batches ahead of their use; others read the shards of the next window while this one is used.

    Raises:
        ConfigError: the batch cannot be shared evenly.
    """

    def __init__(
        self,
        cache: ShardCache,
        order: Order,
        assemble: Callable[[Any, np.ndarray], Tensor],
        *,
        batch_size: int,
        start: int,
        rank: int,
        world: int,
        depth: int = 4,
        pin: bool = False,
    ) -> None:
        if batch_size % world:
            raise ConfigError(f"batch_size {batch_size} cannot be shared evenly by {world} workers; change either")
        self.cache, self.order, self.assemble = cache, order, assemble
        self.batch_size, self.start, self.rank, self.world = batch_size, start, rank, world
        self.pin = pin
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="dcae15-loader", daemon=True)

    def _fill(self) -> None:
        try:
            part = self.batch_size // self.world
            start, seen = self.start, None
            while not self._stop.is_set():
                first = start + self.rank * part
                ends = self.order.locate(first), self.order.locate(first + part - 1)
                if ends != seen:
                    self.cache.ahead(self.order.shards_between(first, ends[1][2]))
                    seen = ends
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
        """Stop the background threads; wait a little for them, since a process must not end while they compute."""
        self._stop.set()
        self.cache.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_CLOSE_SECONDS)


def image_batches(
    image_set: ImageSet,
    *,
    seed: int,
    batch_size: int,
    start: int,
    rank: int,
    world: int,
    min_area: float = 1.0,
    flip: bool = False,
    augment: bool = True,
    resolution: int = 0,
    pin: bool = False,
    disk: DiskCache | None = None,
) -> Batches:
    """Batches of uint8 training images (b, H, W, 3): cropped as the set says, half of them mirrored with ``flip``.

    A ``resolution`` below that of the set makes smaller images: random crops are resized to it, stored squares reduced.
    Without ``augment`` they are the centre crops that everything but training uses.
    """
    resolution = resolution or image_set.resolution
    crop = augment and image_set.crop == "random"
    pool = ThreadPoolExecutor(4, thread_name_prefix="dcae15-decode") if image_set.encoding == "png" else None

    def one(value: Any, position: int) -> np.ndarray:
        generator = _generator(seed, position)
        image = image_codec.decode_png(value) if isinstance(value, bytes) else value
        if crop:
            image = image_codec.random_resized_crop(Image.fromarray(image), resolution, generator, min_area=min_area)
        elif image_set.crop == "random" or resolution != image_set.resolution:
            image = image_codec.center_crop(Image.fromarray(image), resolution)
        return image[:, ::-1] if flip and generator.random() < 0.5 else image

    def assemble(values: Any, positions: np.ndarray) -> Tensor:
        if isinstance(values, np.ndarray) and not crop and resolution == image_set.resolution:
            for i, position in enumerate(positions.tolist() if flip else ()):
                if _generator(seed, position).random() < 0.5:
                    values[i] = values[i, :, ::-1]
            return torch.from_numpy(values)
        images = (pool.map if pool else map)(one, values, positions.tolist())
        return torch.from_numpy(np.stack(list(images)))

    split = image_set.splits["train"]
    cache = ShardCache(
        image_set.uri, split, lambda table: decode_images(table, image_set), columns=IMAGE_COLUMNS, disk=disk
    )
    order = order_of(split, seed)
    return Batches(cache, order, assemble, batch_size=batch_size, start=start, rank=rank, world=world, pin=pin)


def _generator(seed: int, position: int) -> np.random.Generator:
    """Return the generator of the crop and mirroring of one position of the stream."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 1, position])))


def order_of(split: Split, seed: int) -> Order:
    """Return the order of a split: of its shards' counts and bytes and the seed alone."""
    return Order([s.count for s in split.shards], seed, window_of([s.bytes for s in split.shards]))


def latent_batches(
    latent_set: LatentSet,
    *,
    seed: int,
    batch_size: int,
    start: int,
    rank: int,
    world: int,
    pin: bool = False,
    disk: DiskCache | None = None,
) -> Batches:
    """Batches of raw float32 latents (b, C, h, w), kept as they are stored until a batch is made."""
    split = latent_set.splits["train"]
    cache = latent_cache(latent_set, split, disk)

    def assemble(values: Any, positions: np.ndarray) -> Tensor:
        return shards.float_latents(values, latent_set.dtype)

    order = order_of(split, seed)
    return Batches(cache, order, assemble, batch_size=batch_size, start=start, rank=rank, world=world, pin=pin)


def latent_cache(latent_set: LatentSet, split: Split, disk: DiskCache | None = None) -> ShardCache:
    """Return the shards of a latent set's split; see `shards.float_latents` for their values."""
    shape = (latent_set.spec.channels, latent_set.spec.height, latent_set.spec.width)

    def decode(table: pa.Table) -> dict[str, Any]:
        values = shards.latent_values(table.column("latent"), shape, latent_set.dtype)
        return {"values": values, "labels": shards.labels_of(table)}

    return ShardCache(latent_set.uri, split, decode, columns=LATENT_COLUMNS, disk=disk)


def decode_images(table: pa.Table, image_set: ImageSet) -> dict[str, Any]:
    """Return a shard's images (raw ones as one uint8 array, PNG files as bytes, decoded when used) and labels."""
    column = table.column("image")
    if image_set.encoding == "png":
        return {"values": column.to_pylist(), "labels": shards.labels_of(table)}
    side = image_set.resolution
    return {"values": shards.fixed_rows(column).reshape(-1, side, side, 3), "labels": shards.labels_of(table)}


def square(value: Any, image_set: ImageSet) -> np.ndarray:
    """Return one stored image as the centre crop (H, W, 3) that everything but training uses."""
    image = image_codec.decode_png(value) if isinstance(value, bytes) else value
    if image_set.crop == "random":
        image = image_codec.center_crop(Image.fromarray(image), image_set.resolution)
    return image
