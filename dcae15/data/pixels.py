"""Conversion between stored images (uint8, channels last) and the pixels that models see (float, -1 to 1)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dcae15.errors import DataError


def to_pixels(images_BHWC: np.ndarray | Tensor, device: torch.device | str | None = None) -> Tensor:
    """Return uint8 images as float32 pixels ``B C H W`` in [-1, 1].

    They go to ``device`` as bytes, before they become floats; None leaves them where they are.

    Raises:
        DataError: the images are not uint8, or not ``B H W 3``.
    """
    if isinstance(images_BHWC, np.ndarray):  # a copy: the array may be read-only, or a mirrored view
        images_BHWC = torch.from_numpy(np.array(images_BHWC, order="C"))
    shape = tuple(images_BHWC.shape)
    if images_BHWC.dtype != torch.uint8 or len(shape) != 4 or shape[-1] != 3:
        raise DataError(
            f"images have type {images_BHWC.dtype} and shape {shape}; pass uint8 images of shape (B, H, W, 3)"
        )
    return images_BHWC.to(device).permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1.0


def to_uint8(pixels_BCHW: Tensor) -> np.ndarray:
    """Return pixels in [-1, 1] as uint8 images ``B H W C``: clamped and rounded. Undoes ``to_pixels`` exactly.

    Raises:
        DataError: a pixel is not finite.
    """
    if not torch.isfinite(pixels_BCHW).all():
        bad = (~torch.isfinite(pixels_BCHW)).flatten(1).any(dim=1).sum().item()
        raise DataError(
            f"{bad} of {len(pixels_BCHW)} images hold pixels that are not finite; decode in float32 instead of half "
            "precision, or go back to an earlier checkpoint"
        )
    levels = (pixels_BCHW.detach().float() * 127.5 + 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
