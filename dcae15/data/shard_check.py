"""Is a shard of latents what its latent set says, and what its images and its autoencoder make it? Without changing anything."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from dcae15 import artifacts, storage
from dcae15.artifacts import ImageSet, LatentSet, LatentSpec, Shard
from dcae15.data import encoding, latent_statistics, shards
from dcae15.data.findings import LatentFindings
from dcae15.errors import DataError, StorageError
from dcae15.models.autoencoder import Autoencoder

TOLERANCE = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 2e-3}
"""A latent encoded again may differ from the stored one by this share of its size: of the value plus the latent's root mean
square. Four times the largest rounding of the 16-bit types, and for float32 as much as for float16: batches of another size take
other kernels, and GPUs may convolve in TF32, which rounds like float16."""


@dataclass(frozen=True)
class ShardTask:
    """What to check of one shard."""

    split: str  # its split
    shard: Shard  # what the manifest says about it
    images: Shard | None = None  # the shard of images that it was made from; None if these are not compared
    encode_again: int = 0  # how many of its latents to encode again


@dataclass
class ShardResult:
    """What came out."""

    path: str  # the shard
    findings: LatentFindings = field(default_factory=LatentFindings)  # what is wrong with it
    id_digests: bytes = b""  # 16 bytes of each row's id, in order; empty where they could not be read
    # of its latents, see `dcae15.data.latent_statistics`; empty where they could not be read
    statistics: dict[str, Any] = field(default_factory=dict)
    encoded_again: int = 0  # how many latents were
    deviation: float = 0.0  # their largest difference, as a share of the latent's root mean square


class ShardChecker:
    """Checks one shard after another; runs anywhere, without Ray too."""

    def __init__(
        self,
        latents: str,
        images: str = "",
        autoencoder: Autoencoder | None = None,
        batch_size: int = 64,
        device: str = "cpu",
    ) -> None:
        self.latent_set = LatentSet.open(latents)
        self.image_set = ImageSet.open(images) if images else None
        self.autoencoder, self.batch_size, self.device = autoencoder, batch_size, device

    def check(self, task: ShardTask) -> ShardResult:
        """Check one shard. Raises StorageError: it cannot be read, for another reason than what is in it."""
        result = ShardResult(task.shard.path)
        table = self._read(task.shard, result.findings)
        if table is None:
            return result
        ids = table.column("id").to_pylist()
        result.id_digests = b"".join(hashlib.blake2b(i.encode(), digest_size=16).digest() for i in ids)
        self._check_rows(task, table, ids, result.findings)
        spec = self.latent_set.spec
        shape = (spec.channels, spec.height, spec.width)
        latents = shards.decode_latents(table.column("latent"), shape, self.latent_set.dtype)
        bad = ~torch.isfinite(latents).flatten(1).all(dim=1)
        for row in bad.nonzero().flatten().tolist():
            result.findings.add("not finite", f"{task.shard.path}: {ids[row]}")
        if len(ids) and not bool(bad.any()):
            result.statistics = latent_statistics.measure_latents(latents)
        self._check_side_file(task.shard, result)
        if self.image_set and task.images:
            self._compare_images(task, table, ids, latents, result)
        return result

    def _read(self, shard: Shard, findings: LatentFindings) -> pa.Table | None:
        """Return the table if its bytes and columns are what they must be."""
        data = storage.read_bytes(storage.join(self.latent_set.uri, shard.path))
        found = {"bytes": len(data), "sha256": storage.sha256(data), "xxh3": shard.xxh3 and storage.xxh3(data)}
        wrong = [name for name, value in found.items() if value != getattr(shard, name)]
        if wrong:
            said = f"{len(data):,} bytes, the manifest says {shard.bytes:,}"
            findings.add("damaged", f"{shard.path}: {said}; not as it says: {', '.join(wrong)}")
            return None
        try:
            table = pq.read_table(io.BytesIO(data))
        except (pa.ArrowException, OSError) as error:
            findings.add("damaged", f"{shard.path}: no Parquet file ({error})")
            return None
        schema = latent_schema(self.latent_set.spec, self.latent_set.dtype)
        wrong = [
            f"{f.name} is {_type_of(table, f.name)}, not {f.type}" for f in schema if _type_of(table, f.name) != f.type
        ]
        wrong += [f"{name} has gaps" for name in schema.names if name in table.column_names and table[name].null_count]
        wrong += [f"{name} does not belong here" for name in table.column_names if name not in schema.names]
        if wrong:
            findings.add("schema", f"{shard.path}: {'; '.join(wrong)}")
            return None
        if table.num_rows != shard.count:
            findings.add("count", f"{shard.path}: {table.num_rows:,} latents, the manifest says {shard.count:,}")
        _check_metadata(self.latent_set, table, shard.path, findings)
        return table

    def _check_rows(self, task: ShardTask, table: pa.Table, ids: list[str], findings: LatentFindings) -> None:
        classes, mirrors = len(self.latent_set.class_names), self.latent_set.mirror and task.split == "train"
        labels, flipped = shards.labels_of(table), table.column("flipped").to_pylist()
        for row in np.flatnonzero((labels < 0) | (labels >= classes)):
            findings.add("label", f"{task.shard.path}: {ids[row]} has label {labels[row]}, there are {classes} classes")
        for row, turned in enumerate(flipped):
            if turned != ids[row].endswith(encoding.MIRRORED) or (turned and not mirrors):
                findings.add("mirror", f"{task.shard.path}: {ids[row]} is {'mirrored' if turned else 'not mirrored'}")

    def _check_side_file(self, shard: Shard, result: ShardResult) -> None:
        path = f"{shard.path}.json"
        try:
            record = shards.read_records(self.latent_set.uri, [shard.path])[shard.path]
        except (StorageError, KeyError, TypeError) as error:
            result.findings.add("side file", f"{path} is missing or damaged ({type(error).__name__})")
            return
        if record.shard != shard:
            theirs, ours = dataclasses.asdict(record.shard), dataclasses.asdict(shard)
            result.findings.add("side file", f"{path} describes {theirs}, the manifest {ours}")
        if result.statistics and not same_statistics([record.statistics], [result.statistics]):
            result.findings.add("statistics", f"{path} says otherwise than the latents in the shard")

    def _compare_images(
        self, task: ShardTask, table: pa.Table, ids: list[str], latents: Tensor, result: ShardResult
    ) -> None:
        """Compare ids, labels and pixels with the shard of images; encode some images again."""
        assert self.image_set and task.images
        side = self.latent_set.spec.height * self.latent_set.spec.compression
        path, findings = task.shard.path, result.findings
        try:
            source = shards.read_shard(self.image_set.uri, task.images)
            images = encoding.squares(source, self.image_set, side)
        except DataError as error:
            findings.add("image set", str(error))
            return
        names, labels = source.column("id").to_pylist(), shards.labels_of(source)
        expected = {name: (row, False) for row, name in enumerate(names)}
        if self.latent_set.mirror and task.split == "train":
            expected |= {name + encoding.MIRRORED: (row, True) for row, name in enumerate(names)}
        present = set(ids)
        for name in (name for name in expected if name not in present):
            findings.add("not encoded", f"{path}: {name} of the image set is not there")
        known: list[tuple[int, np.ndarray]] = []
        theirs, digests = shards.labels_of(table), table.column("source_digest").to_pylist()
        again = set(np.linspace(0, len(ids) - 1, min(task.encode_again, len(ids))).round().astype(int).tolist())
        for row, name in enumerate(ids):
            if name not in expected:
                findings.add("not an image", f"{path}: {name} is not in the image set's shard of this name")
                continue
            place, turned = expected[name]
            image = images[place, :, ::-1] if turned else images[place]
            if theirs[row] != labels[place]:
                findings.add("label", f"{path}: {name} has label {theirs[row]}, in the image set {labels[place]}")
            if encoding.digest(image) != digests[row]:
                findings.add("pixels", f"{path}: {name} was made of other pixels than the image set has")
            elif row in again:
                known.append((row, image))
        if self.autoencoder and known:
            rows, pictures = zip(*known, strict=True)
            self._encode_again(path, [ids[row] for row in rows], latents[list(rows)], np.stack(pictures), result)

    def _encode_again(
        self, path: str, ids: Sequence[str], stored: Tensor, images: np.ndarray, result: ShardResult
    ) -> None:
        """Encode images and compare with their stored latents (n, C, h, w)."""
        assert self.autoencoder
        fresh = encoding.encode(self.autoencoder, images, self.batch_size, self.device)
        result.encoded_again = len(ids)
        if fresh.shape != stored.shape:
            result.findings.add(
                "autoencoder",
                f"{path}: latents of {tuple(stored.shape[1:])}, this autoencoder makes {tuple(fresh.shape[1:])}",
            )
            return
        rms = fresh.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
        difference = (stored - fresh).abs()
        result.deviation = (difference / rms).max().item()
        within = difference <= TOLERANCE[self.latent_set.dtype] * (fresh.abs() + rms)
        for row, good in enumerate(within.flatten(1).all(dim=1).tolist()):
            if not good:
                share = (difference[row] / rms[row]).max().item()
                result.findings.add(
                    "autoencoder",
                    f"{path}: {ids[row]} encoded again differs by up to {share:.1%} of its root mean square",
                )


def latent_schema(spec: LatentSpec, dtype: str) -> pa.Schema:
    """Return the columns of a latent shard; `docs/latents.md` says what they hold."""
    width = spec.channels * spec.height * spec.width * shards.LATENT_BYTES[dtype]
    return pa.schema(
        {
            "id": pa.string(),
            "label": pa.int32(),
            "latent": pa.binary(width),
            "flipped": pa.bool_(),
            "source_digest": pa.binary(16),
        }
    )


def same_statistics(parts: Sequence[dict[str, Any]], other: artifacts.Statistics | Sequence[dict[str, Any]]) -> bool:
    """Tell whether two measurements of the same latents agree, up to the order of summation."""
    merge = latent_statistics.merge_measured
    try:
        a, b = merge(parts), other if isinstance(other, artifacts.Statistics) else merge(other)
        near = np.allclose((a.mean, a.std), (b.mean, b.std), rtol=1e-6, atol=1e-6 * max(a.rms))
    except (KeyError, TypeError, ValueError, RuntimeError, DataError):  # not what `measure_latents` returns
        return False
    return a.count == b.count and near


def _type_of(table: pa.Table, name: str) -> pa.DataType | None:
    return table.schema.field(name).type if name in table.column_names else None


def _check_metadata(latent_set: LatentSet, table: pa.Table, path: str, findings: LatentFindings) -> None:
    expected = json.loads(json.dumps({**dataclasses.asdict(latent_set.spec), "dtype": latent_set.dtype}))
    try:
        found = json.loads((table.schema.metadata or {})[b"dcae15"])
    except (KeyError, ValueError):
        findings.add("metadata", f"{path}: its metadata has no readable entry 'dcae15'")
        return
    if found != expected:
        names = [name for name in sorted({*expected, *found}) if expected.get(name) != found.get(name)]
        texts = [f"{name} is {found.get(name)}, the manifest says {expected.get(name)}" for name in names]
        findings.add("metadata", f"{path}: {'; '.join(texts)}")
