"""Training objectives: what a step returns, the loss of pixels, and the health of latents."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_DEAD = 1e-3


class LossTerms(NamedTuple):
    """The result of a training step."""

    total: Tensor  # what is minimised; with an adaptive weight a scalar with the same gradients instead
    named: dict[str, Tensor]  # scalars worth logging, detached, by name; the same names in every step
    # what the discriminator learns from in the same step, detached; empty without one
    for_critic: tuple[Tensor, ...] = ()


def l1(reconstruction_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
    """Mean absolute error in pixels of [-1, 1], computed in float32."""
    return (reconstruction_BCHW.float() - target_BCHW.float()).abs().mean()


@torch.no_grad()
def latent_health(latents_BChw: Tensor) -> dict[str, Tensor]:
    """Measure two ways in which a structured latent space goes wrong, before any image shows them.

    ``dead_channels`` counts channels whose standard deviation over batch and places is below a thousandth of the whole
    latent's RMS: they say nothing about the image, so the latent is smaller than it claims. Rear channels are in danger,
    because few draws keep them. A single value per channel has no spread and counts nothing.

    ``rear_energy`` is the RMS of the last quarter of the channels over that of the first quarter. Channel prefixes make
    it fall below 1, because front channels carry the structure; near 1 the space is not structured, near 0 the rear
    channels are unused.

    Returns:
        Scalars in float32, detached.
    """
    latents = latents_BChw.detach().float()
    deviation_C = latents.std(dim=(0, 2, 3), correction=0)
    energy_C = latents.square().mean(dim=(0, 2, 3))
    dead = (deviation_C < _DEAD * energy_C.mean().sqrt()).sum().float()
    if latents.shape[0] * latents.shape[2] * latents.shape[3] == 1:
        dead = torch.zeros_like(dead)
    quarter = max(1, len(energy_C) // 4)
    front, rear = energy_C[:quarter].mean(), energy_C[-quarter:].mean()
    return {"dead_channels": dead, "rear_energy": (rear / front.clamp_min(torch.finfo(torch.float32).tiny)).sqrt()}
