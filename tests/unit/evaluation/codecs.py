"""Codecs with known answers: lossless linear transforms of 4 x 4 blocks, whose 48 channels are ordered or mixed."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

BLOCK = 4
CHANNELS = 3 * BLOCK**2


def cosine_basis() -> torch.Tensor:
    """An orthonormal basis of 4 x 4 colour blocks, slow cosines first: rows are channels, the first three the block means."""
    k, n = torch.arange(BLOCK)[:, None], torch.arange(BLOCK)[None, :]
    basis = torch.cos(math.pi * k * (n + 0.5) / BLOCK) * math.sqrt(2 / BLOCK)
    basis[0] /= math.sqrt(2)
    planes = torch.einsum("uy,vx->uvyx", basis, basis).flatten(0, 1).flatten(1)
    order = sorted(range(BLOCK**2), key=lambda i: (i // BLOCK) ** 2 + (i % BLOCK) ** 2)
    return torch.stack([torch.kron(torch.eye(3)[c], planes[i]) for i in order for c in range(3)])


def rotation() -> torch.Tensor:
    """A random rotation of the channels: every channel gets a bit of everything."""
    noise = torch.randn(CHANNELS, CHANNELS, generator=torch.Generator().manual_seed(0))
    return torch.linalg.qr(noise).Q


class BlockCodec:
    """Latents are ``mix @ block``; missing channels are zeros; ``gain`` scales latents, and the decoder undoes it."""

    def __init__(self, mix: torch.Tensor, gain: torch.Tensor | float = 1.0, offset: float = 0.0) -> None:
        self.mix, self.offset = mix, offset
        self.gain = torch.as_tensor(gain).expand(CHANNELS)[:, None, None]

    def encode(self, pixels):
        return torch.einsum("ij,bjhw->bihw", self.mix, pixel_unshuffle(pixels, BLOCK)) * self.gain + self.offset

    def decode(self, latents):
        missing = latents.new_full((len(latents), CHANNELS - latents.shape[1], *latents.shape[2:]), self.offset)
        full = (torch.cat([latents, missing], dim=1) - self.offset) / self.gain
        return pixel_shuffle(torch.einsum("ij,bihw->bjhw", self.mix, full), BLOCK)


def ordered(**options) -> BlockCodec:
    return BlockCodec(cosine_basis(), **options)


def spread(**options) -> BlockCodec:
    return BlockCodec(rotation() @ cosine_basis(), **options)


def scenes(count: int = 24, side: int = 32, seed: int = 0, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Images of a bright half (above: class 0, on the left: class 1, ...) under fine noise, and their classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = 110 + rng.normal(0, 14, (count, side, side, 3)) + rng.normal(0, 8, (count, 1, 1, 3))
    for image, label in zip(images, labels, strict=True):
        turned = np.rot90(image, k=label)
        turned[: side // 2] += 60
    return images.clip(30, 225).astype(np.uint8), labels


class Held:
    """Images in memory where measurements take a stream of them."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(self.images), size):
            yield self.images[start : start + size], self.labels[start : start + size]
