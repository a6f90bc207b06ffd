"""From stored images to latents: what is encoded, how it is named, and the encoding itself. For writing latents and checking."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from dcae15.artifacts import ImageSet
from dcae15.data import loader
from dcae15.data.images import Pixels, center_crop
from dcae15.data.pixels import to_pixels
from dcae15.models.autoencoder import Autoencoder

MIRRORED = "#mirror"
"""Ends the id of a latent whose image was mirrored before it was encoded."""


def squares(table: pa.Table, image_set: ImageSet, side: int) -> np.ndarray:
    """Return the images of a shard as they are encoded: centre crops, reduced to ``side`` pixels, uint8 (N, side, side, 3)."""
    images = [loader.square(value, image_set) for value in loader.decode_images(table, image_set)["values"]]
    if side != image_set.resolution:
        images = [center_crop(Image.fromarray(image), side) for image in images]
    return np.stack(images) if images else np.zeros((0, side, side, 3), np.uint8)


def digest(image: Pixels) -> bytes:
    """Return the 16 bytes that identify the pixels of an image."""
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


@torch.inference_mode()
def encode(autoencoder: Autoencoder, images: np.ndarray, batch_size: int, device: str) -> Tensor:
    """Return raw latents (N, C, h, w), float32 on the CPU, of uint8 images (N, H, W, 3), at least one."""
    parts = [
        autoencoder.encode(to_pixels(torch.from_numpy(images[i : i + batch_size]).to(device))).float().cpu()
        for i in range(0, len(images), batch_size)
    ]
    return torch.cat(parts)
