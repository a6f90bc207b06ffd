"""Shards of images and latents: Parquet files that are written whole or not at all, and checked when they are read.

A shard is the unit of commit. Its side file (``<shard>.json``) is written after it and says that it is complete; a restarted
job redoes only shards without one. Latents are stored as fixed-size binary, raw, little-endian, in the order C, h, w:
``numpy.frombuffer(row, dtype).reshape(C, h, w)`` decodes one.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from dcae15 import storage
from dcae15.artifacts import LATENT_BYTES, Shard
from dcae15.data.disk_cache import DiskCache
from dcae15.errors import DataError

ROW_GROUP = 512
SIDE_FILE_READERS = 16
_EXPONENT = {"float16": 0x7C00, "bfloat16": 0x7F80, "float32": 0x7F800000}  # all set where a value is not finite
_SERIAL_VALUES = 32_768
"""torch converts so few values in the calling thread; for one more it would start a pool of threads of its own here."""


@dataclass
class ShardRecord:
    """The side file of a shard: the shard itself and what its stage wants to merge."""

    shard: Shard  # the shard file
    # ``{"id", "reason", "detail"}`` of each quarantined item
    rejected: list[dict[str, str]] = field(default_factory=list)
    statistics: dict[str, Any] = field(default_factory=dict)  # sums to merge, see `dcae15.data.latent_statistics`


def write_shard(root: str, path: str, table: pa.Table, **record: Any) -> ShardRecord:
    """Write ``table`` to ``root/path`` and its side file; rows must have unique ids in the column ``id``."""
    ids = table.column("id")
    if len(ids.unique()) != len(ids):
        raise DataError(f"shard {path} would hold an id twice; ids must be unique")
    buffer = pa.BufferOutputStream()
    pq.write_table(
        table,
        buffer,
        compression="none",
        row_group_size=ROW_GROUP,
        use_dictionary=False,
        write_statistics=["id", "label"],  # pyright: ignore[reportArgumentType]  # of images they say nothing
    )
    data = memoryview(buffer.getvalue())  # shards are large: no copy
    storage.write_bytes(storage.join(root, path), data)
    shard = Shard(path, table.num_rows, len(data), storage.sha256(data), storage.xxh3(data))
    written = ShardRecord(shard, **record)
    storage.write_json(storage.join(root, path + ".json"), dataclasses.asdict(written))
    return written


def read_records(root: str, paths: Sequence[str] | None = None) -> dict[str, ShardRecord]:
    """Return the side files below ``root`` by shard path: the shards that are complete."""
    if paths is None:
        present = {info.path for info in storage.list_files(root)}
        paths = sorted(
            p[: -len(".json")] for p in present if p.endswith(".parquet.json") and p[: -len(".json")] in present
        )
    with ThreadPoolExecutor(SIDE_FILE_READERS) as pool:  # thousands of small objects, and each is a round trip
        bodies = list(pool.map(lambda path: storage.read_json(storage.join(root, path + ".json")), paths))
    return {
        path: ShardRecord(Shard(**body["shard"]), body["rejected"], body["statistics"])
        for path, body in zip(paths, bodies, strict=True)
    }


def intact(shard: Shard, data: bytes) -> bool:
    """Tell whether these are the bytes of a shard, by its XXH3; by its SHA-256 where it has no other."""
    if len(data) != shard.bytes:
        return False
    return storage.xxh3(data) == shard.xxh3 if shard.xxh3 else storage.sha256(data) == shard.sha256


def read_shard(
    root: str, shard: Shard, *, columns: Sequence[str] | None = None, disk: DiskCache | None = None
) -> pa.Table:
    """Read a shard; raise DataError when it is not what was written."""
    uri = storage.join(root, shard.path)

    def fetch() -> bytes:
        data = storage.read_bytes(uri)
        if not intact(shard, data):
            raise DataError(
                f"shard {uri} is damaged: {len(data)} bytes with another checksum than its manifest says ({shard.bytes} bytes); "
                f"delete the folder {root} and run its stage again"
            )
        return data

    data = disk.read(shard.sha256, fetch, lambda kept: intact(shard, kept)) if disk else fetch()
    # Not pq.read_table: it makes a chunk of each row group, which must be joined again, and holds more memory meanwhile.
    return pq.ParquetFile(pa.BufferReader(data)).read(None if columns is None else list(columns), use_threads=False)


def image_table(
    ids: Sequence[str],
    labels: Sequence[int],
    images: Sequence[bytes],
    metadata: dict[str, Any],
    captions: Sequence[str | None] = (),
) -> pa.Table:
    """Build the rows of an image shard; ``images`` are PNG files or raw H x W x 3 bytes, as ``metadata`` says.

    There is a column ``caption`` only where one of the images has one.
    """
    columns = {
        "id": pa.array(ids, pa.string()),
        "label": pa.array(labels, pa.int32()),
        "image": pa.array(images, pa.binary()),
    }
    if any(text is not None for text in captions):
        columns["caption"] = pa.array(captions, pa.string())
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
        DataError: a latent is not finite, or overflows in the stored type; the id is named.
    """
    stored = latents_BChw.to(getattr(torch, dtype))
    bits = stored.contiguous().view({2: torch.int16, 4: torch.int32}[LATENT_BYTES[dtype]]).numpy()
    exponent = bits.dtype.type(_EXPONENT[dtype])
    if (bits & exponent).max(initial=0) == exponent:  # ten times as fast as isfinite
        _refuse(ids, latents_BChw, stored)
    width = stored[0].numel() * LATENT_BYTES[dtype]
    values = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(stored), [None, pa.py_buffer(bits)])
    columns = {
        "id": pa.array(ids, pa.string()),
        "label": pa.array(labels, pa.int32()),
        "latent": values,
        "flipped": pa.array(flipped, pa.bool_()),
        "source_digest": pa.array(digests, pa.binary(16)),
    }
    return pa.table(columns).replace_schema_metadata({"dcae15": json.dumps({**metadata, "dtype": dtype})})


def _refuse(ids: Sequence[str], latents_BChw: torch.Tensor, stored: torch.Tensor) -> None:
    """Raise DataError for latents that cannot be stored: those that no type could hold are told from those that overflow."""
    broken, lost = (~torch.isfinite(values).flatten(1).all(dim=1) for values in (latents_BChw, stored))
    row = int((broken if bool(broken.any()) else lost).nonzero()[0])
    latent, dtype = latents_BChw[row], str(stored.dtype).removeprefix("torch.")
    if bool(broken.any()):
        nans, infinite = int(latent.isnan().sum()), int(latent.isinf().sum())
        raise DataError(
            f"the autoencoder makes {nans:,} NaN and {infinite:,} infinite values among the {latent.numel():,} of the latent of "
            f"{ids[row]} ({int(broken.sum()):,} of {len(ids):,} latents of this shard have some), which no latents.dtype can hold; "
            "pass an autoencoder whose weights are sound, such as one of an earlier checkpoint"
        )
    least = "float32" if dtype == "bfloat16" else "bfloat16 or float32"
    raise DataError(
        f"the latent of {ids[row]} reaches {float(latent.abs().max()):.6g} and overflows as {dtype}, whose largest value is "
        f"{torch.finfo(stored.dtype).max:.6g}; set latents.dtype to {least}"
    )


def decode_latents(column: pa.ChunkedArray, shape: tuple[int, int, int], dtype: str) -> torch.Tensor:
    """Return a latent column as float32 of shape (N, C, h, w)."""
    return float_latents(latent_values(column, shape, dtype).copy(), dtype)


def latent_values(column: pa.ChunkedArray, shape: tuple[int, int, int], dtype: str) -> np.ndarray:
    """Return a latent column as it is stored, (N, C, h, w): float16, float32, or the bits of bfloat16 as uint16."""
    stored = {"float16": np.float16, "bfloat16": np.uint16, "float32": np.float32}[dtype]
    return fixed_rows(column).view(stored).reshape(-1, *shape)


def float_latents(values: np.ndarray, dtype: str) -> torch.Tensor:
    """Return the float32 values of latents as `latent_values` gives them."""
    stored = torch.from_numpy(values).view(getattr(torch, dtype))
    if stored.dtype == torch.float32:
        return stored
    result = torch.empty(stored.shape, dtype=torch.float32)
    for source, target in zip(
        stored.flatten().split(_SERIAL_VALUES), result.view(-1).split(_SERIAL_VALUES), strict=True
    ):
        target.copy_(source)
    return result


def fixed_rows(column: pa.ChunkedArray) -> np.ndarray:
    """Return the bytes (N, width) of a column of binary values of one length, without a Python object for each; read-only."""
    parts = []
    for chunk in column.chunks:
        if pa.types.is_fixed_size_binary(chunk.type):
            width = chunk.type.byte_width
            begin, end, data = chunk.offset * width, (chunk.offset + len(chunk)) * width, chunk.buffers()[1]
        else:
            places = np.int64 if pa.types.is_large_binary(chunk.type) else np.int32
            ends = np.frombuffer(chunk.buffers()[1], places)[chunk.offset : chunk.offset + len(chunk) + 1]
            begin, end, data = int(ends[0]), int(ends[-1]), chunk.buffers()[2]
        parts.append(np.frombuffer(data, np.uint8, end - begin, begin) if end > begin else np.zeros(0, np.uint8))
    rows = parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.zeros(0, np.uint8)
    return rows.reshape(len(column), -1) if len(column) else rows.reshape(0, 0)


def labels_of(table: pa.Table) -> np.ndarray:
    """Return the labels of a shard as int64 of shape (N,)."""
    return table.column("label").to_numpy().astype(np.int64)
