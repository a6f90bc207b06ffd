"""Flow matching on the linear path (SiT, arXiv 2401.08740), restricted to the kept channels (arXiv 2508.00413, Eq. 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from dcae15.channels import Kept, keep, mean_over_kept


def interpolate(latents_BChw: Tensor, noise_BChw: Tensor, time_B: Tensor) -> Tensor:
    """Return x_t = t * latents + (1 - t) * noise; t = 0 is noise, t = 1 is data."""
    t = time_B[:, None, None, None]
    return t * latents_BChw + (1 - t) * noise_BChw


def velocity_loss(
    velocity_BChw: Tensor, latents_BChw: Tensor, noise_BChw: Tensor, kept: Kept, weights_C: Tensor | None = None
) -> Tensor:
    """Mean squared error of the velocity over the kept channels.

    Args:
        velocity_BChw: the denoiser's output on the kept channels, with as many channels as `dcae15.channels.keep` returns.
        latents_BChw: normalised latents, all C channels.
        noise_BChw: noise, all C channels.
        kept: the draw.
        weights_C: weights of the channels, summing to 1; None weights the kept ones alike.

    Returns:
        A scalar, normalised by the number of kept channels.
    """
    target = keep(latents_BChw - noise_BChw, kept)
    return mean_over_kept((velocity_BChw.float() - target.float()).square(), kept, weights_C)


def draw_time(uniform_B: Tensor, normal_B: Tensor, distribution: str) -> Tensor:
    """Turn uniform or normal draws into times in (0, 1): ``uniform``, or ``logit_normal`` (the sigmoid of a normal)."""
    return torch.sigmoid(normal_B) if distribution == "logit_normal" else uniform_B
