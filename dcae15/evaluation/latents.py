"""What the channels of a latent look like by themselves, without the decoder: energy, bands, rank, pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dcae15.evaluation.distances import FeatureStatistics
from dcae15.evaluation.frequencies import band_energies

LOW_PASS_CYCLES_PER_PLACE = 1 / 4
"""Half of the highest frequency that a latent map can hold: on few places a lower cutoff would leave the mean alone."""

DEAD = 1e-3
"""A channel with less standard deviation than this share of the latent's root mean square says nothing."""


class LatentSums:
    """Moments and band energies of the channels of latents that come in parts; memory does not grow with their number."""

    def __init__(self) -> None:
        self.moments: FeatureStatistics | None = None
        self._near: Tensor | None = None
        self._bands = torch.zeros(0)
        self._shape = (0, 0, 0, 0)

    def update(self, latents_NChw: Tensor) -> None:
        """Take in some latents."""
        count, channels, height, width = latents_NChw.shape
        values = latents_NChw.to(torch.float64)
        if self.moments is None:
            self.moments = FeatureStatistics.empty(channels)
            self._near = values.mean(dim=(0, 2, 3))  # near the mean, so that no digits cancel when it is known
            self._bands = torch.zeros(channels, 2, dtype=torch.float64)
        self.moments = self.moments.update(values.permute(0, 2, 3, 1).reshape(-1, channels).numpy())
        self._shape = (self._shape[0] + count, channels, height, width)
        if height * width > 1:
            assert self._near is not None
            maps = (values - self._near[:, None, None]).flatten(0, 1)
            energies = torch.stack(band_energies(maps, LOW_PASS_CYCLES_PER_PLACE), dim=1)
            self._bands += energies.reshape(count, channels, 2).sum(dim=0)

    def rows(self) -> list[dict[str, float]]:
        """Return ``{channel, mean, std, latent_low, latent_high}`` of each channel over images and places.

        ``latent_low`` and ``latent_high`` are the parts of the variance below and above `LOW_PASS_CYCLES_PER_PLACE` of the
        channel's map (its mean over the set removed): they add up to the square of ``std``. They are left out for latents of
        a single place. A slow latent map is no proof of slow image content, because a channel may mean a texture; see
        `dcae15.evaluation.channel_effects` for what a channel does to the image.
        """
        assert self.moments is not None and self._near is not None, "no latents were taken in"
        count, _, height, width = self._shape
        places, mean = count * height * width, torch.from_numpy(self.moments.mean)
        variance = np.diag(self.moments.scatter) / places
        bands = self._bands / places
        bands[:, 0] = (bands[:, 0] - (mean - self._near) ** 2).clamp(min=0.0)
        rows = []
        for channel in range(len(mean)):
            row = {"channel": channel, "mean": mean[channel].item(), "std": float(variance[channel] ** 0.5)}
            if height * width > 1:
                row |= {"latent_low": bands[channel, 0].item(), "latent_high": bands[channel, 1].item()}
            rows.append(row)
        return rows

    def ranks(self, prefixes: Sequence[int]) -> list[float]:
        """Return the effective rank of the first c channels for each c, 1 to c; 0 where the channels never change.

        It is ``exp(-sum p log p)`` with p the eigenvalues of the channels' covariance (over images and places), divided by
        their sum: how many directions carry the variance. Source: Roy & Vetterli 2007 ("The effective rank"). Latents are
        taken raw: scaled to unit variance per channel, the order that they carry as energy would be gone.
        """
        assert self.moments is not None, "no latents were taken in"
        covariance = torch.from_numpy(self.moments.scatter / self.moments.count)
        ranks = []
        for prefix in prefixes:
            shares = torch.linalg.eigvalsh(covariance[:prefix, :prefix]).clamp(min=0.0)
            total = shares.sum()
            ranks.append(torch.special.entr(shares / total).sum().exp().item() if total > 0 else 0.0)
        return ranks


def dead_channels(rows: Sequence[dict[str, float]]) -> list[int]:
    """Return the channels, counted from 1, whose std is below ``DEAD`` of the root mean square over all channels."""
    rms = np.sqrt(np.mean([row["mean"] ** 2 + row["std"] ** 2 for row in rows]))
    return [int(row["channel"]) + 1 for row in rows if row["std"] <= DEAD * rms]


def channel_means(latents_Nchw: Tensor, prefixes: Sequence[int]) -> np.ndarray:
    """Return maps of the mean over the first c channels, as the paper's Figure 2 shows them.

    Where the mean over channels shows no object, object information is sparse: few channels have it and the others
    drown it. Channels are taken raw, so strong ones show most.

    Returns:
        uint8 ``P N h w``: each map stretched from its own minimum (0) to its own maximum (255); a flat one is 128.
    """
    maps = torch.stack([latents_Nchw[:, :prefix].double().mean(dim=1) for prefix in prefixes])
    low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
    flat = high - low <= 1e-12 * maps.abs().amax(dim=(2, 3), keepdim=True)
    levels = (maps - low) / (high - low).masked_fill(flat, 1.0) * 255
    return levels.masked_fill(flat, 128.0).round().to(torch.uint8).numpy()
