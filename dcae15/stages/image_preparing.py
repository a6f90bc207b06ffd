"""prepare_images: a source of images becomes an image set."""

from __future__ import annotations

import functools
import json
import posixpath
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dcae15 import artifacts, storage
from dcae15.artifacts.claims import claim
from dcae15.cluster import Cluster
from dcae15.config import Config, DataConfig, active_fields, fingerprint
from dcae15.data import images as image_codec
from dcae15.data import inspection, shapes, shards
from dcae15.data.shards import ShardRecord
from dcae15.data.sources import Source, deal
from dcae15.data.sources.reading import read_images
from dcae15.errors import DataError, StorageError
from dcae15.evaluation import needs
from dcae15.stages.shard_writing import ShardPlan, write_shards
from dcae15.stages.source_opening import copy_of, discard, open_source, remove_copies, unpack

DRAWN_PER_PLAN = 500
REJECTED = "rejected.jsonl"
"""The quarantine list of an image set, beside its manifest."""

# Reasons that may be gone when the user has mended something, without a trace in the listing: rights, a server, a list's file.
_LOOK_AGAIN = {"missing", "forbidden", "unreachable"}
_MOST_RAW_BYTES = 1 << 31  # a column has 32-bit offsets


@dataclass
class PrepareWriter:
    """Decodes, crops and stores the images of a shard; quarantines those that cannot be used."""

    root: str
    data: DataConfig
    _pixels: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 0), np.uint8))

    def write(self, plan: ShardPlan[pa.Table]) -> ShardRecord:
        """Write one shard."""
        ids: list[str] = []
        labels: list[int] = []
        images = _RawImages(self._memory(plan.count)) if self._side_by_side else []
        rejected: list[dict[str, str]] = []
        left_out = 0
        captions: list[str | None] = []
        content = [plan.content.column(name).to_pylist() for name in ("id", "label", "caption")]
        for name, label, caption, data in zip(*content, read_images(plan.content), strict=True):
            try:
                images.append(self._prepare(data))
            except image_codec.BadImage as error:
                if error.reason == image_codec.LEFT_OUT:
                    left_out += 1
                else:
                    rejected.append({"id": name, "reason": error.reason, "detail": str(error)})
                continue
            ids.append(name)
            labels.append(label)
            captions.append(caption)
        metadata = {"encoding": self.data.encoding, "crop": self.data.crop, "resolution": self.data.resolution}
        statistics = {image_codec.LEFT_OUT: left_out} if left_out else {}
        pixels = images.column() if isinstance(images, _RawImages) else images
        table = shards.image_table(ids, labels, pixels, metadata, captions)
        return shards.write_shard(self.root, plan.path, table, rejected=rejected, statistics=statistics)

    def _prepare(self, data: bytes | image_codec.BadImage) -> Any:
        if isinstance(data, image_codec.BadImage):
            raise data
        image = inspection.decode(data, self.data)
        if self.data.crop == "random":
            side = inspection.stored_side(self.data)
            return image_codec.encode_png(np.asarray(image_codec.resize_shorter(image, side)))
        array = image_codec.center_crop(image, self.data.resolution)
        if self._side_by_side:
            return array
        return array.tobytes() if self.data.encoding == "raw" else image_codec.encode_png(array)

    @property
    def _side_by_side(self) -> bool:
        size = self.data.resolution**2 * 3 * self.data.shard_images
        return self.data.crop != "random" and self.data.encoding == "raw" and size < _MOST_RAW_BYTES

    def _memory(self, count: int) -> NDArray[np.uint8]:
        """Return room for the pixels of a shard: the same for each, because fresh memory costs as much as copying twice."""
        if len(self._pixels) < count:
            self._pixels = np.empty((count, self.data.resolution**2 * 3), np.uint8)
        return self._pixels


class _RawImages:
    """Images side by side, which become a column without a copy."""

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self.memory, self.count = memory, 0

    def append(self, pixels: NDArray[np.uint8]) -> None:
        self.memory[self.count] = pixels.reshape(-1)
        self.count += 1

    def column(self) -> pa.Array:
        offsets = np.arange(self.count + 1, dtype=np.int32) * self.memory.shape[1]
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(self.memory[: self.count])]
        return pa.Array.from_buffers(pa.binary(), self.count, buffers)


@dataclass(frozen=True)
class DrawWriter:
    """Draws a range of the embedded images as files of a source folder."""

    root: str
    source: str
    data: DataConfig

    def write(self, plan: ShardPlan[tuple[str, int, int]]) -> ShardRecord:
        """Draw the files; the record is a marker."""
        split, start, stop = plan.content
        shapes.write_range(self.source, split, start, stop, self.data.shapes)
        marker = artifacts.Shard(plan.path, plan.count, 0, "")
        return ShardRecord(marker)


def prepare_images(config: Config, cluster: Cluster, *, uri: str, fingerprint: str) -> None:
    """Make the image set of ``config.data`` at ``uri``.

    Raises:
        ConfigError: the kind of the source is not clear, or a class that was asked for is unknown.
        DataError: the source has no images or is damaged, or too many images are bad; the quarantine list stays at
            ``uri/rejected.jsonl``.
    """
    data = config.data
    drawn = data.source == "shapes"
    root = draw_shapes(config, cluster) if drawn else data.source
    remove_copies(config.storage)
    source = open_source(config, cluster, root, "folder" if drawn else data.kind)
    copy = copy_of(config, source, fingerprint) if source.kind == "parquet" else ""
    try:
        _write(config, cluster, unpack(copy, cluster, source, uri) if copy else source, uri, fingerprint)
    except StorageError:
        if not artifacts.finished(uri):  # else another job made the image set meanwhile, and removed the copy
            raise
        print(f"prepare_images: another job has made {uri} meanwhile", flush=True)
    if copy:
        discard(copy)
        remove_copies(config.storage)  # also that of a source that was mended since


def _write(config: Config, cluster: Cluster, source: Source, uri: str, fingerprint: str) -> None:
    """Write the shards and the manifest of an image set."""
    data = config.data
    plans = {
        split: [
            ShardPlan(f"{split}/{i:06d}.parquet", len(chunk), chunk)
            for i, chunk in enumerate(deal(items, data.shard_images, data.seed))
        ]
        for split, items in (("train", source.train), ("val", source.val))
    }

    losses = _Losses(uri, source, data.max_bad_fraction)
    losses.check()  # what the source itself leaves out may be too much
    _forget_losses(uri, losses)
    records = write_shards(
        cluster,
        "prepare_images",
        uri,
        plans["train"] + plans["val"],
        functools.partial(PrepareWriter, uri, data),
        cluster.resources.decoders(),
        losses.add,
    )
    losses.check()
    rejected = [item for record in records for item in record.rejected]
    storage.write_bytes(storage.join(uri, REJECTED), _lines(rejected))
    splits = {
        split: artifacts.Split(
            tuple(r.shard for r in records if r.shard.path.startswith(split + "/") and r.shard.count)
        )
        for split in plans
    }
    before = set(needs.left_out(config, needs.Counts(source.train.num_rows, source.val.num_rows)))
    for sentence in needs.left_out(config, needs.Counts(splits["train"].count, splits["val"].count)):
        if sentence not in before:
            print(f"prepare_images: without the bad images {sentence}", flush=True)
    artifacts.ImageSet(
        uri,
        fingerprint,
        class_names=source.class_names,
        resolution=data.resolution,
        encoding="png" if data.crop == "random" else data.encoding,
        crop=data.crop,
        splits=splits,
        rejected=losses.reasons(),
        source=data.source,
    ).commit(**({"captions": source.captions} if source.captions else {}))


def _forget_losses(uri: str, losses: _Losses) -> None:
    """Remove the shards that made an earlier run fail and may be better now, so that the next one does not fail by them at once."""
    if not storage.exists(storage.join(uri, REJECTED)):
        return
    records = shards.read_records(uri)
    if losses.acceptable(sum(len(record.rejected) for record in records.values())):
        return
    again = [path for path, record in records.items() if _LOOK_AGAIN & {item["reason"] for item in record.rejected}]
    for path in again:
        for file in (path + ".json", path):  # without its side file it does not count
            storage.remove(storage.join(uri, file))
    if again:
        print(
            f"prepare_images: {len(again):,} shards are made again: images that could not be read may be there now",
            flush=True,
        )


def draw_shapes(config: Config, cluster: Cluster) -> str:
    """Draw the embedded images as files in ImageNet's layout, once; return their folder."""
    name = fingerprint("shapes", active_fields(config.data.shapes, config))
    root = storage.join(config.storage, "sources", f"shapes-{name}")
    marker, shape = storage.join(root, "complete.json"), config.data.shapes
    if storage.exists(marker):
        return root
    plans = []
    for split, count in (("train", shape.images), ("val", shape.val_images)):
        for start in range(0, count, DRAWN_PER_PLAN):
            stop = min(start + DRAWN_PER_PLAN, count)
            plans.append(ShardPlan(f"{split}/{start:08d}", stop - start, (split, start, stop)))
    with claim(config.storage, posixpath.basename(root), lambda line: print(f"draw_shapes: {line}", flush=True)):
        if not storage.exists(marker):  # image sets of several resolutions or seeds share what they are made of
            writer = functools.partial(DrawWriter, root, root, config.data)
            write_shards(cluster, "draw_shapes", root, plans, writer, cluster.resources.decoders())
            storage.write_json(marker, {"images": shape.images + shape.val_images})
    return root


class _Losses:
    """What was quarantined or left out so far, and whether that is too much."""

    def __init__(self, uri: str, source: Source, share: float) -> None:
        self.uri, self.source, self.share = uri, source, share
        self.rejected: list[dict[str, str]] = []
        self.left_out = 0

    def add(self, record: ShardRecord) -> None:
        self.rejected += record.rejected
        self.left_out += record.statistics.get(image_codec.LEFT_OUT, 0)
        self.check()

    def reasons(self) -> dict[str, int]:
        """Return how many images were lost for which reason."""
        too_small = {image_codec.LEFT_OUT: self.left_out} if self.left_out else {}
        return self.source.lost | dict(Counter(item["reason"] for item in self.rejected)) | too_small

    def acceptable(self, bad: int) -> bool:
        """Tell whether an image set can be made although so many images are bad."""
        reasons = {**self.source.lost, "bad": bad, image_codec.LEFT_OUT: self.left_out}
        return not inspection.refusal(self.source, reasons, self.share)

    def check(self) -> None:
        """Raise DataError when there are too many; all of them are written down then."""
        if self.acceptable(len(self.rejected)):
            return
        examples = [f"{item['id']}: {item['detail']}" for item in self.rejected[:3]]
        message = inspection.refusal(self.source, self.reasons(), self.share, examples)
        if not self.rejected:
            raise DataError(message)
        path = storage.join(self.uri, REJECTED)
        try:
            storage.write_bytes(path, _lines(self.rejected))
        except StorageError:
            path = "(the list could not be written)"
        raise DataError(f"{message} All bad ones: {path}")


def _lines(rejected: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(item) + "\n" for item in rejected).encode()
