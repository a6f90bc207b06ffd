"""Is the latent space structured? What the first channels carry of an image set.

The definitions are this project's own; the paper shows the effect in pictures of partial-channel decoding.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dcae15.errors import DataError

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
    height, width = images_NHWC.shape[1:3]
    rows, columns = _cosines(height), _cosines(width)
    low_HW = _frequencies(height)[:, None] ** 2 + _frequencies(width)[None, :] ** 2 < cutoff**2
    mean_image = images_NHWC.mean(axis=0, dtype=np.float64)

    def spectrum(differences_NHWC: np.ndarray) -> Tensor:
        coefficients = torch.einsum("uh,nhwc,vw->nuvc", rows, torch.from_numpy(differences_NHWC), columns)
        return coefficients.square().sum(dim=(0, 3))

    error_HW, energy_HW = torch.zeros(2, height, width, dtype=torch.float64)
    for start in range(0, len(images_NHWC), batch_size):
        images = images_NHWC[start : start + batch_size].astype(np.float64)
        error_HW += spectrum(images - reconstructions_NHWC[start : start + batch_size])
        energy_HW += spectrum(images - mean_image)
    total = energy_HW.sum().item()
    if total <= 0:
        raise DataError(f"all {len(images_NHWC)} images are alike; shares need images that differ")

    def share(band_HW: Tensor) -> float:
        energy = energy_HW[band_HW].sum().item()
        return 1.0 - error_HW[band_HW].sum().item() / energy if energy > 1e-9 * total else 0.0

    return {
        "prefix": prefix,
        "explained_share": share(torch.ones_like(low_HW)),
        "share_low": share(low_HW),
        "share_high": share(~low_HW),
    }


def channel_rows(latents_NChw: Tensor) -> list[dict[str, float]]:
    """Return ``{channel, mean, std}`` of each channel over images and places; structured latents fall off in std."""
    values_CN = latents_NChw.to(torch.float64).transpose(0, 1).flatten(1)
    means, stds = values_CN.mean(dim=1).tolist(), values_CN.std(dim=1, correction=0).tolist()
    return [
        {"channel": channel, "mean": mean, "std": std}
        for channel, (mean, std) in enumerate(zip(means, stds, strict=True))
    ]


def _frequencies(n: int) -> Tensor:
    """Return the frequency of each cosine in cycles per pixel."""
    return torch.arange(n, dtype=torch.float64) / (2 * n)


def _cosines(n: int) -> Tensor:
    """Return the orthonormal cosine basis (DCT-II), one cosine per row: it preserves energy."""
    places = torch.arange(n, dtype=torch.float64) + 0.5
    basis = torch.cos(2 * math.pi * _frequencies(n)[:, None] * places) * math.sqrt(2 / n)
    basis[0] /= math.sqrt(2)
    return basis
