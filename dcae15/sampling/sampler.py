"""Generation of latents: reproducible noise, guidance and solver put together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from dcae15.config import SamplingConfig
from dcae15.sampling.guidance import Denoiser, guided_velocity
from dcae15.sampling.solvers import integrate


def initial_noise(indices: Sequence[int], shape: tuple[int, ...], seed: int) -> Tensor:
    """Return standard normal noise, float32 on the CPU, of shape ``(len(indices), *shape)``.

    The noise of image i is a pure function of (seed, i, shape), whatever else is in the batch. To sample a prefix of
    the channels, draw the full shape and slice: all prefixes then start from the same noise.
    """
    noise = torch.empty(len(indices), *shape)
    for row, index in zip(noise, indices, strict=True):
        key = hashlib.sha256(f"noise:{seed}:{index}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)
        row.normal_(generator=generator)
    return noise


@torch.no_grad()
def sample_latents(
    denoiser: Denoiser, labels_B: Tensor, noise_BChw: Tensor, settings: SamplingConfig, null_label: int
) -> Tensor:
    """Carry noise to latents in the denoiser's scaling (undo the latent statistics before decoding).

    Args:
        denoiser: the model, in evaluation mode, on the device of the noise.
        labels_B: the classes asked for, integers, on the same device.
        noise_BChw: the start, from ``initial_noise``; all channels or a prefix of them.
        settings: solver, steps, guidance and its interval are read.
        null_label: the label that stands for "no class".

    Returns:
        Latents of the shape of the noise.

    Raises:
        ConfigError: the solver is unknown, or there is no step.
    """
    velocity = guided_velocity(
        denoiser,
        labels_B,
        null_label=null_label,
        scale=settings.guidance,
        start=settings.guidance_start,
        end=settings.guidance_end,
    )
    return integrate(velocity, noise_BChw, solver=settings.solver, steps=settings.steps)
