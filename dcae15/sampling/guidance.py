"""Classifier-free guidance: from a class-conditional denoiser to the velocity field that a solver follows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dcae15.sampling.solvers import Velocity

Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``denoiser(latents_BChw, t_B, labels_B)`` returns the velocity, shaped as the latents (of any prefix)."""


def guided_velocity(
    denoiser: Denoiser, labels_B: Tensor, *, null_label: int, scale: float, start: float = 0.0, end: float = 1.0
) -> Velocity:
    """Return the velocity field ``unconditional + scale * (conditional - unconditional)``.

    Guidance acts where ``start <= t <= end``; elsewhere, and everywhere with scale 1, the field is the conditional one
    and the denoiser sees each latent once. Where guidance acts, one call of twice the batch answers both.

    Source: Ho and Salimans 2022, classifier-free guidance; Kynkäänniemi et al. 2024 for the interval.

    Args:
        denoiser: the conditional model.
        labels_B: the classes asked for, integers.
        null_label: the label that stands for "no class" (the number of classes, in our denoisers).
        scale: guidance scale; 1 is none, 0 is unconditional.
        start: first time, 0 to 1, at which guidance acts.
        end: last time, 0 to 1, at which guidance acts.
    """
    both_2B = torch.cat([labels_B, torch.full_like(labels_B, null_label)])

    def velocity(x: Tensor, t: float) -> Tensor:
        t_B = torch.full((len(x),), t, dtype=x.dtype, device=x.device)
        if scale == 1.0 or not start <= t <= end:
            return denoiser(x, t_B, labels_B).to(x.dtype)
        answers = denoiser(torch.cat([x, x]), torch.cat([t_B, t_B]), both_2B).to(x.dtype)
        conditional, unconditional = answers.chunk(2)
        return unconditional + scale * (conditional - unconditional)

    return velocity
