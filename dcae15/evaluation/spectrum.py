"""Low and high spatial frequencies of images and latent maps: a room of its own because pixels and latents share it."""

from __future__ import annotations

import math

import torch
from torch import Tensor


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
