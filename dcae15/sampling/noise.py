"""Reproducible noise: the start of every generated image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def initial_noise(indices: Sequence[int], shape: tuple[int, ...], seed: int) -> Tensor:
    """Return standard normal noise, float32 on the CPU, of shape ``(len(indices), *shape)``.

    The noise of image i is a pure function of (seed, i, shape), whatever else is in the batch. To sample a prefix of
    the channels, draw the full shape and slice: all prefixes then start from the same noise.
    """
    noise = torch.empty(len(indices), *shape)
    for row, index in zip(noise, indices, strict=True):
        key = hashlib.sha256(f"noise:{seed}:{index}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)
        row.normal_(generator=generator)
    return noise
