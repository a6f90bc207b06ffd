"""Low and high spatial frequencies of images and latent maps, and what the first channels restore of each.

The shares are this project's own; the paper shows the effect in pictures of partial-channel decoding.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

LOW_PASS_CYCLES_PER_PIXEL = 1 / 8
"""Upper end of the low band of images: below are objects and layout, above edges, texture and detail."""

_BATCH = 32  # images transformed at once


def band_energies(maps_BHW: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """Return the energies below and above a frequency of each map, float64 ``B`` each; they add up to the sum of squares.

    The low band holds the coefficients of the orthonormal 2-D cosine basis (DCT-II: borders are mirrored, so that a border
    is no edge) whose frequency ``sqrt(fy^2 + fx^2)`` is below ``cutoff``; cosine k of n places has the frequency k / 2n. The
    basis preserves energy (Parseval), so the high band is what is left and needs no transform.

    Args:
        maps_BHW: planes of any size; computed in their own type.
        cutoff: cycles per place, 0 to 0.5; the constant part belongs to the low band where it is above 0.
    """
    height, width = maps_BHW.shape[-2:]
    rows, columns = (_slow_cosines(n, cutoff).to(maps_BHW) for n in (height, width))
    coefficients = torch.einsum("uh,bhw,vw->buv", rows, maps_BHW, columns)
    fy, fx = _frequencies(height)[: len(rows)], _frequencies(width)[: len(columns)]
    low_UV = (fy[:, None] ** 2 + fx[None, :] ** 2 < cutoff**2).to(maps_BHW.device)
    low = (coefficients * low_UV).to(torch.float64).square().sum(dim=(1, 2))
    return low, (maps_BHW.to(torch.float64).square().sum(dim=(1, 2)) - low).clamp(min=0.0)


def _frequencies(n: int) -> Tensor:
    """Return the frequency of each cosine in cycles per place."""
    return torch.arange(n, dtype=torch.float64) / (2 * n)


def _slow_cosines(n: int, cutoff: float) -> Tensor:
    """Return the rows of the orthonormal cosine basis whose frequency is below the cutoff; the others are not needed."""
    places = torch.arange(n, dtype=torch.float64) + 0.5
    slow = _frequencies(n)[_frequencies(n) < cutoff]
    basis = torch.cos(2 * math.pi * slow[:, None] * places) * math.sqrt(2 / n)
    basis[:1] /= math.sqrt(2)
    return basis


class BandShares:
    """What reconstructions restore of a set of images that comes in parts, in low and high frequencies.

    Let R(x) be the reconstruction of image x and m the mean image of the set (the best guess without looking). Then
    ``share = 1 - sum |P x - P R(x)|^2 / sum |P x - P m|^2`` with sums over images, where P is

    - for ``explained_share`` the identity: the explained variance of the pixels;
    - for ``low_frequency_share`` the low band of `band_energies` below `LOW_PASS_CYCLES_PER_PIXEL`;
    - for ``high_frequency_share`` the rest of the spectrum.

    A share is 1 for a perfect reconstruction, 0 for one no better than m, negative for a worse one; 0 by definition
    where the images have nothing in the band.
    """

    def __init__(self, mean_image_HWC: np.ndarray, device: torch.device | str = "cpu") -> None:
        self.mean, self.device = torch.from_numpy(mean_image_HWC).to(device), device
        self.error, self.energy = torch.zeros(2, 2, dtype=torch.float64)

    def update(self, images_NHWC: np.ndarray, reconstructions_NHWC: np.ndarray) -> None:
        """Take in images and their reconstructions, uint8 of one shape."""
        for start in range(0, len(images_NHWC), _BATCH):
            images, reconstructions = (
                torch.from_numpy(np.ascontiguousarray(a[start : start + _BATCH])).to(self.device).double()
                for a in (images_NHWC, reconstructions_NHWC)
            )
            self.error += self._bands(images - reconstructions)
            self.energy += self._bands(images - self.mean)

    def row(self) -> dict[str, float]:
        """Return the shares; none when all images are alike, as a single one is: shares need images that differ."""
        total = self.energy.sum().item()
        if total <= 0:
            return {}
        pairs = zip(self.error.tolist(), self.energy.tolist(), strict=True)
        low, high = (1 - e / t if t > 1e-9 * total else 0.0 for e, t in pairs)
        return {
            "explained_share": 1 - self.error.sum().item() / total,
            "low_frequency_share": low,
            "high_frequency_share": high,
        }

    def _bands(self, differences_NHWC: Tensor) -> Tensor:
        """Return the energies of the low and the high band, summed over images and colours."""
        maps = differences_NHWC.permute(0, 3, 1, 2).flatten(0, 1)
        return torch.stack([energy.sum() for energy in band_energies(maps, LOW_PASS_CYCLES_PER_PIXEL)]).cpu()
