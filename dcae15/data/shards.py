"""Shards of images and latents: Parquet files that are written whole or not at all, and checked when they are read.

A shard is the unit of commit. Its side file (``<shard>.json``) is written after it and says that it is complete; a restarted
job redoes only shards without one. Latents are stored as fixed-size binary, raw, little-endian, in the order C, h, w:
``numpy.frombuffer(row, dtype).reshape(C, h, w)`` decodes one.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from dcae15 import storage
from dcae15.artifacts import Shard
from dcae15.errors import DataError

ROW_GROUP = 512
LATENT_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}


@dataclass
class ShardRecord:
    """The side file of a shard: the shard itself and what its stage wants to merge.

    Attributes:
        shard: the shard file.
        rejected: ``{"id", "reason", "detail"}`` of each quarantined item.
        statistics: sums to merge, see `dcae15.data.statistics`.
    """

    shard: Shard
    rejected: list[dict[str, str]] = field(default_factory=list)
    statistics: dict[str, Any] = field(default_factory=dict)


def write_shard(root: str, path: str, table: pa.Table, **record: Any) -> ShardRecord:
    """Write ``table`` to ``root/path`` and its side file; rows must have unique ids in the column ``id``."""
    ids = table.column("id")
    if len(ids.unique()) != len(ids):
        raise DataError(f"shard {path} would hold an id twice; ids must be unique")
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="none", row_group_size=ROW_GROUP, use_dictionary=False)
    data = buffer.getvalue()
    storage.write_bytes(storage.join(root, path), data)
    written = ShardRecord(Shard(path, table.num_rows, len(data), storage.sha256(data)), **record)
    storage.write_json(storage.join(root, path + ".json"), dataclasses.asdict(written))
    return written


def read_records(root: str, paths: Sequence[str] | None = None) -> dict[str, ShardRecord]:
    """Return the side files below ``root`` by shard path: the shards that are complete."""
    if paths is None:
        present = {info.path for info in storage.list_files(root)}
        paths = sorted(
            p[: -len(".json")] for p in present if p.endswith(".parquet.json") and p[: -len(".json")] in present
        )
    records = {}
    for path in paths:
        body = storage.read_json(storage.join(root, path + ".json"))
        records[path] = ShardRecord(Shard(**body["shard"]), body["rejected"], body["statistics"])
    return records


def read_shard(root: str, shard: Shard) -> pa.Table:
    """Read a whole shard; raise DataError when it is not what was written."""
    uri = storage.join(root, shard.path)
    data = storage.read_bytes(uri)
    if storage.sha256(data) != shard.sha256:
        raise DataError(
            f"shard {uri} is damaged: {len(data)} bytes with another checksum than its manifest says ({shard.bytes} bytes); "
            f"delete the folder {root} and run its stage again"
        )
    return pq.read_table(io.BytesIO(data))


def image_table(
    ids: Sequence[str], labels: Sequence[int], images: Sequence[bytes], metadata: dict[str, Any]
) -> pa.Table:
    """Build the rows of an image shard; ``images`` are PNG files or raw H x W x 3 bytes, as ``metadata`` says."""
    columns = {
        "id": pa.array(ids, pa.string()),
        "label": pa.array(labels, pa.int32()),
        "image": pa.array(images, pa.binary()),
    }
    return pa.table(columns).replace_schema_metadata({"dcae15": json.dumps(metadata)})


def latent_table(
    ids: Sequence[str],
    labels: Sequence[int],
    latents_BChw: torch.Tensor,
    flipped: Sequence[bool],
    digests: Sequence[bytes],
    dtype: str,
    metadata: dict[str, Any],
) -> pa.Table:
    """Build the rows of a latent shard.

    Args:
        ids: id of each source image, with ``#mirror`` appended for mirrored ones.
        labels: class of each image.
        latents_BChw: raw latents, float32.
        flipped: whether the image was mirrored before it was encoded.
        digests: 16 bytes that identify the encoded pixels.
        dtype: stored type, see `LATENT_BYTES`.
        metadata: the LatentSpec as a dict, kept in the file's metadata.

    Raises:
        DataError: a latent is not finite in the stored type; the id is named.
    """
    stored = latents_BChw.to(getattr(torch, dtype))
    finite = torch.isfinite(stored).flatten(1).all(dim=1)
    if not bool(finite.all()):
        bad = ids[int((~finite).nonzero()[0])]
        raise DataError(f"the latent of {bad} is not finite as {dtype}; set latents.dtype to bfloat16 or float32")
    width = stored[0].numel() * LATENT_BYTES[dtype]
    data = stored.contiguous().view(torch.uint8).numpy().tobytes()
    values = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(stored), [None, pa.py_buffer(data)])
    columns = {
        "id": pa.array(ids, pa.string()),
        "label": pa.array(labels, pa.int32()),
        "latent": values,
        "flipped": pa.array(flipped, pa.bool_()),
        "source_digest": pa.array(digests, pa.binary(16)),
    }
    return pa.table(columns).replace_schema_metadata({"dcae15": json.dumps({**metadata, "dtype": dtype})})


def decode_latents(column: pa.ChunkedArray, shape: tuple[int, int, int], dtype: str) -> torch.Tensor:
    """Return a latent column as float32 of shape (N, C, h, w)."""
    chunks = [
        np.frombuffer(c.buffers()[1], np.uint8)[c.offset * c.type.byte_width :][: len(c) * c.type.byte_width]
        for c in column.chunks
    ]
    data = np.concatenate(chunks) if chunks else np.zeros(0, np.uint8)
    return torch.from_numpy(data).view(getattr(torch, dtype)).reshape(-1, *shape).float()


def labels_of(table: pa.Table) -> np.ndarray:
    """Return the labels of a shard as int64 of shape (N,)."""
    return table.column("label").to_numpy().astype(np.int64)
