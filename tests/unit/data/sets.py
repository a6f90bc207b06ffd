"""Small image and latent sets whose rows say which they are: latent i and image i hold i, and its label is i."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from dcae15 import artifacts
from dcae15.data import shards

SHAPE = (2, 2, 2)
SIDE = 8


def latent_set(root: str, counts: Sequence[int], dtype: str = "float16") -> artifacts.LatentSet:
    written, first = [], 0
    for i, count in enumerate(counts):
        numbers = range(first, first + count)
        latents = torch.arange(first, first + count).float()[:, None, None, None].expand(count, *SHAPE)
        plain = [False] * count, [bytes(16)] * count
        table = shards.latent_table([str(n) for n in numbers], numbers, latents, *plain, dtype, {})
        written.append(shards.write_shard(root, f"train/{i}.parquet", table).shard)
        first += count
    return artifacts.LatentSet(
        root,
        "latents",
        artifacts.LatentSpec(*SHAPE, 8, (2,), "autoencoder"),
        dtype,
        artifacts.Statistics(1, (0.0,) * SHAPE[0], (1.0,) * SHAPE[0]),
        {"train": artifacts.Split(tuple(written))},
        ("a",),
        False,
        "images",
        "autoencoder",
    )


def image_set(root: str, counts: Sequence[int], encoding: str = "raw", split: str = "train") -> artifacts.ImageSet:
    written, first = [], 0
    for i, count in enumerate(counts):
        numbers = range(first, first + count)
        pixels = [np.full((SIDE, SIDE, 3), n % 256, np.uint8) for n in numbers]
        data = [p.tobytes() if encoding == "raw" else _png(p) for p in pixels]
        table = shards.image_table([str(n) for n in numbers], numbers, data, {})
        written.append(shards.write_shard(root, f"{split}/{i}.parquet", table).shard)
        first += count
    splits = {split: artifacts.Split(tuple(written))}
    return artifacts.ImageSet(root, "images", ("a",), SIDE, encoding, "center", splits, {}, "test")


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()
