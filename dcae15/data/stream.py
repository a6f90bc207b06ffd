"""Images for measurements: a split's images in batches, read again whenever they are asked for, never held together."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from dcae15.artifacts import ImageSet, Shard
from dcae15.data import shards
from dcae15.data.disk_cache import DiskCache
from dcae15.data.loader import IMAGE_COLUMNS, decode_images, square


class ImageStream:
    """The first images of a split, centre-cropped. A limit of 0 means all of them.

    Memory is that of two shards, as they are stored, and a batch.
    """

    def __init__(self, image_set: ImageSet, split: str, limit: int = 0, disk: DiskCache | None = None) -> None:
        self.image_set, self.disk = image_set, disk
        self.shards = image_set.splits[split].shards
        count = image_set.splits[split].count
        self.count = min(limit, count) if limit else count

    def __len__(self) -> int:
        return self.count

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield uint8 images (n, H, W, 3) and labels (n,), ``size`` at a time whatever the shards; the last ones may be fewer."""
        images: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        missing = size
        for columns in self._columns():
            values, theirs = columns["values"], columns["labels"]
            done = 0
            while done < len(theirs):
                taken = slice(done, done + missing)
                images.append(np.stack([square(value, self.image_set) for value in values[taken]]))
                labels.append(theirs[taken])
                done, missing = done + len(labels[-1]), missing - len(labels[-1])
                if missing == 0:
                    yield np.concatenate(images), np.concatenate(labels)
                    images, labels, missing = [], [], size
        if images:
            yield np.concatenate(images), np.concatenate(labels)

    def by_shard(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield what `batches` yields, all images of a shard at a time."""
        for columns in self._columns():
            yield np.stack([square(value, self.image_set) for value in columns["values"]]), columns["labels"]

    def _columns(self) -> Iterator[dict[str, Any]]:
        """Yield the columns of each shard, cut to the images asked for; the next shard is read meanwhile."""
        left = self.count
        needed = []
        for shard in self.shards:
            if left > 0 and shard.count:
                needed.append((shard, min(left, shard.count)))
            left -= shard.count
        with ThreadPoolExecutor(1, thread_name_prefix="dcae15-stream") as pool:
            ahead = [pool.submit(self._read, *needed[0])] if needed else []
            for following in [*needed[1:], None]:
                if not ahead:
                    return
                columns = ahead.pop().result()
                if following is not None:
                    ahead.append(pool.submit(self._read, *following))
                yield columns

    def _read(self, shard: Shard, count: int) -> dict[str, Any]:
        table = shards.read_shard(self.image_set.uri, shard, columns=IMAGE_COLUMNS, disk=self.disk)
        columns = decode_images(table, self.image_set)
        return {"values": columns["values"][:count], "labels": columns["labels"][:count]}


def load_images(image_set: ImageSet, limit: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the first ``limit`` (0: all) training images, centre-cropped, uint8 (N, H, W, 3), and their labels (N,)."""
    stream = ImageStream(image_set, "train", limit)
    side, done = image_set.resolution, 0
    images, labels = np.empty((len(stream), side, side, 3), np.uint8), np.empty(len(stream), np.int64)
    for some, their_labels in stream.by_shard():
        images[done : done + len(some)], labels[done : done + len(some)] = some, their_labels
        done += len(some)
    return images, labels
