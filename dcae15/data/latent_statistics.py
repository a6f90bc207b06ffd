"""Exact, mergeable per-channel statistics of latents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from dcae15.artifacts import Statistics
from dcae15.errors import DataError


def measure_latents(latents_BChw: Tensor) -> dict[str, Any]:
    """Return count, mean and sum of squared deviations per channel, in float64, of one shard's latents."""
    values = latents_BChw.double().transpose(0, 1).flatten(1)
    mean = values.mean(dim=1)
    deviation = (values - mean[:, None]).square().sum(dim=1)
    return {"count": values.shape[1], "mean": mean.tolist(), "deviation": deviation.tolist()}


def merge_measured(parts: Iterable[dict[str, Any]]) -> Statistics:
    """Merge the measurements of shards (Chan et al. 1979); the same result up to rounding whatever their sizes."""
    count, mean, deviation = 0, torch.zeros(0), torch.zeros(0)
    for part in parts:
        m, d = torch.tensor(part["mean"], dtype=torch.float64), torch.tensor(part["deviation"], dtype=torch.float64)
        if count == 0:
            count, mean, deviation = part["count"], m, d
            continue
        total = count + part["count"]
        delta = m - mean
        deviation = deviation + d + delta.square() * (count * part["count"] / total)
        mean = mean + delta * (part["count"] / total)
        count = total
    if count == 0:
        raise DataError("there are no latents to measure: the image set has no training images")
    return Statistics(count, tuple(mean.tolist()), tuple((deviation / count).sqrt().tolist()))


def normalisation(statistics: Statistics, scaling: str, shift: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return (shift, scale) per channel: a denoiser sees ``(latent - shift) * scale``.

    Args:
        statistics: of the raw latents.
        scaling: ``scalar``: one scale that gives all channels together unit root mean square; ``per_channel``: one for each.
        shift: remove each channel's mean first.
    """
    mean = torch.tensor(statistics.mean, dtype=torch.float64)
    power = torch.tensor(statistics.std if shift else statistics.rms, dtype=torch.float64).square()
    if not bool((power.mean() > 0) & torch.isfinite(power).all()):
        raise DataError("the latents are constant or not finite: the autoencoder has collapsed; train it again")
    scale = power.mean().rsqrt().expand_as(power) if scaling == "scalar" else power.clamp_min(1e-12).rsqrt()
    return tuple((mean if shift else torch.zeros_like(mean)).tolist()), tuple(scale.tolist())
