"""Is the latent space structured? What the first channels carry of an image set.

The definitions are this project's own; the paper shows the effect in pictures of partial-channel decoding.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dcae15.errors import DataError
from dcae15.evaluation.spectrum import band_energies

LOW_PASS_CYCLES_PER_PIXEL = 1 / 8


def structure_row(
    prefix: int,
    images_NHWC: np.ndarray,
    reconstructions_NHWC: np.ndarray,
    *,
    cutoff: float = LOW_PASS_CYCLES_PER_PIXEL,
    batch_size: int = 32,
) -> dict[str, float]:
    """Return ``{prefix, explained_share, share_low, share_high}`` of reconstructions from a prefix.

    Let R(x) be the reconstruction of image x and m the mean image of the set (the best guess without looking). Then
    ``share = 1 - sum |P x - P R(x)|^2 / sum |P x - P m|^2`` with sums over images, where P is

    - for ``explained_share`` the identity: the explained variance of the pixels;
    - for ``share_low`` an ideal low-pass below ``cutoff``, in the 2-D cosine basis (mirrored borders, so that a border
      is no edge); cosine k of n pixels has the frequency k / 2n;
    - for ``share_high`` the rest of the spectrum.

    A share is 1 for a perfect reconstruction, 0 for one no better than m, negative for a worse one; 0 by definition
    where the images have nothing in the band.

    Args:
        prefix: number of front channels kept; goes into the row.
        images_NHWC: uint8 images.
        reconstructions_NHWC: uint8 reconstructions, of the same shape.
        cutoff: upper end of the low band, cycles per pixel, 0 to 0.5.
        batch_size: images transformed at once.

    Raises:
        DataError: the shapes differ, or the images are all alike.
    """
    if images_NHWC.shape != reconstructions_NHWC.shape or images_NHWC.ndim != 4:
        raise DataError(
            f"images of shape {images_NHWC.shape} and reconstructions of shape {reconstructions_NHWC.shape}; "
            "pass two sets of one shape (N, H, W, C)"
        )
    mean_image = images_NHWC.mean(axis=0, dtype=np.float64)

    def bands(differences_NHWC: np.ndarray) -> Tensor:
        """Return the energies of the low and the high band, summed over images and colours."""
        maps = torch.from_numpy(np.ascontiguousarray(differences_NHWC.transpose(0, 3, 1, 2))).flatten(0, 1)
        return torch.stack([energy.sum() for energy in band_energies(maps, cutoff)])

    error, energy = torch.zeros(2, 2, dtype=torch.float64)
    for start in range(0, len(images_NHWC), batch_size):
        images = images_NHWC[start : start + batch_size].astype(np.float64)
        error += bands(images - reconstructions_NHWC[start : start + batch_size])
        energy += bands(images - mean_image)
    total = energy.sum().item()
    if total <= 0:
        raise DataError(f"all {len(images_NHWC)} images are alike; shares need images that differ")
    low, high = (1 - e / t if t > 1e-9 * total else 0.0 for e, t in zip(error.tolist(), energy.tolist(), strict=True))
    return {
        "prefix": prefix,
        "explained_share": 1 - error.sum().item() / total,
        "share_low": low,
        "share_high": high,
    }
