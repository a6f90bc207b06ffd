"""prepare_images on Ray Data: a folder of images becomes an image set."""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dcae15 import artifacts, storage
from dcae15.config import Config, DataConfig, fingerprint, result_fields
from dcae15.data import images as image_codec
from dcae15.data import shapes, shards
from dcae15.data.shards import ShardRecord
from dcae15.data.sources import Source, SourceImage, list_folder
from dcae15.errors import DataError, StorageError
from dcae15.orchestration.cluster import Cluster
from dcae15.orchestration.sharding import Pool, ShardPlan, write_shards

DRAWN_PER_PLAN = 500


@dataclass(frozen=True)
class PrepareWriter:
    """Decodes, crops and stores the images of a shard; quarantines those that cannot be used."""

    root: str
    data: DataConfig

    def write(self, plan: ShardPlan[tuple[SourceImage, ...]]) -> ShardRecord:
        """Write one shard."""
        ids: list[str] = []
        labels: list[int] = []
        images: list[bytes] = []
        rejected = []
        for item in plan.content:
            try:
                image = self._prepare(storage.read_bytes(item.uri))
            except image_codec.BadImage as error:
                rejected.append({"id": item.id, "reason": error.reason, "detail": str(error)})
                continue
            ids.append(item.id)
            labels.append(item.label)
            images.append(image)
        metadata = {"encoding": self.data.encoding, "crop": self.data.crop, "resolution": self.data.resolution}
        return shards.write_shard(
            self.root, plan.path, shards.image_table(ids, labels, images, metadata), rejected=rejected
        )

    def _prepare(self, data: bytes) -> bytes:
        image = image_codec.decode(data, min_side=self.data.min_side, max_pixels=self.data.max_pixels)
        if self.data.crop == "random":
            side = self.data.store_side or self.data.resolution * 9 // 8
            return image_codec.encode_png(np.asarray(image_codec.resize_shorter(image, side)))
        array = image_codec.center_crop(image, self.data.resolution)
        return array.tobytes() if self.data.encoding == "raw" else image_codec.encode_png(array)


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
        DataError: the source has no images, or too many of them are bad; the quarantine list stays at ``uri/rejected.jsonl``.
    """
    data = config.data
    pool = Pool(least=max(1, cluster.cpus), most=max(1, cluster.cpus))
    root = draw_shapes(config, cluster) if data.source == "shapes" else data.source
    source = list_folder(root, val_fraction=data.val_fraction, limit=data.limit, seed=config.seed)
    plans = {
        split: _plans(split, items, data.shard_images, config.seed)
        for split, items in (("train", source.train), ("val", source.val))
    }
    total = len(source.train) + len(source.val)

    def enough_good(records: list[ShardRecord]) -> None:
        _check_rejects(uri, source, total, records, data.max_bad_fraction)

    records = write_shards(
        "prepare_images",
        uri,
        plans["train"] + plans["val"],
        functools.partial(PrepareWriter, uri, data),
        pool,
        after_each=enough_good,
    )
    enough_good(records)
    rejected = [item for record in records for item in record.rejected]
    storage.write_bytes(storage.join(uri, "rejected.jsonl"), "".join(json.dumps(r) + "\n" for r in rejected).encode())
    splits = {
        split: artifacts.Split(
            tuple(r.shard for r in records if r.shard.path.startswith(split + "/") and r.shard.count)
        )
        for split in plans
    }
    artifacts.ImageSet(
        uri,
        fingerprint,
        class_names=source.class_names,
        resolution=data.resolution,
        encoding="png" if data.crop == "random" else data.encoding,
        crop=data.crop,
        splits=splits,
        rejected=dict(Counter(item["reason"] for item in rejected)),
        source=data.source,
    ).commit()


def drawn_source(config: Config) -> str:
    """Return the folder that the embedded images are drawn into."""
    name = fingerprint("shapes", result_fields(config.data.shapes))
    return storage.join(config.storage, "sources", f"shapes-{name}")


def draw_shapes(config: Config, cluster: Cluster) -> str:
    """Draw the embedded images as files in ImageNet's layout, once; return their folder."""
    root = drawn_source(config)
    marker = storage.join(root, "complete.json")
    if storage.exists(marker):
        return root
    shape = config.data.shapes
    plans = []
    for split, count in (("train", shape.images), ("val", shape.val_images)):
        for start in range(0, count, DRAWN_PER_PLAN):
            stop = min(start + DRAWN_PER_PLAN, count)
            plans.append(ShardPlan(f"{split}/{start:08d}", stop - start, (split, start, stop)))
    pool = Pool(least=max(1, cluster.cpus), most=max(1, cluster.cpus))
    write_shards("draw_shapes", root, plans, functools.partial(DrawWriter, root, root, config.data), pool)
    storage.write_json(marker, {"images": shape.images + shape.val_images})
    return root


def _plans(split: str, items: Sequence[SourceImage], size: int, seed: int) -> list[ShardPlan[tuple[SourceImage, ...]]]:
    """Deal images to shards in a fixed random order, so that each shard, and the first ones, hold all classes."""
    dealt = sorted(items, key=lambda item: hashlib.blake2b(f"{seed}/{item.id}".encode(), digest_size=8).digest())
    chunks = [tuple(dealt[i : i + size]) for i in range(0, len(dealt), size)]
    return [ShardPlan(f"{split}/{i:06d}.parquet", len(chunk), chunk) for i, chunk in enumerate(chunks)]


def _check_rejects(uri: str, source: Source, total: int, records: list[ShardRecord], share: float) -> None:
    rejected = [item for record in records for item in record.rejected]
    if len(rejected) <= share * total and len(rejected) < total:
        return
    reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(r["reason"] for r in rejected).most_common())
    path = storage.join(uri, "rejected.jsonl")
    try:
        storage.write_bytes(path, "".join(json.dumps(r) + "\n" for r in rejected).encode())
    except StorageError:
        path = "(the list could not be written)"
    examples = "; ".join(f"{r['id']}: {r['detail']}" for r in rejected[:3])
    raise DataError(
        f"{len(rejected)} of {total} images of {source.uri} cannot be used ({reasons}), more than data.max_bad_fraction={share} "
        f"allows. First ones: {examples}. All of them: {path}. Repair or remove them, or raise data.max_bad_fraction"
    )
