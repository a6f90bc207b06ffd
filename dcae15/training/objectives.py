"""The two objectives: structured autoencoding and augmented diffusion training.

An objective is a module that holds the network and returns the loss of one step; what is random about a step is drawn by
``draw`` and handed to ``forward``, so that the whole step can be wrapped for several workers, compiled, and repeated exactly.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dcae15.channels import Kept, PrefixChoices, keep, rows
from dcae15.config import DiffusionConfig
from dcae15.data.loader import Batch
from dcae15.data.pixels import to_pixels
from dcae15.losses import LossTerms
from dcae15.losses.flow import draw_time, interpolate, velocity_loss
from dcae15.losses.reconstruction import l1
from dcae15.models.autoencoder import Autoencoder
from dcae15.models.dit import DiT
from dcae15.training.randomness import StepRandomness


class Objective(Protocol):
    """What the loop trains."""

    network: nn.Module

    def draw(self, batch: Batch, randomness: StepRandomness) -> tuple[Any, ...]:
        """Return the arguments of ``forward`` for one step, on the randomness' device."""
        ...


class AutoencoderObjective(nn.Module):
    """Structured latent space: decode a drawn channel prefix, ask for the whole image (arXiv 2508.00413, Eq. 1)."""

    def __init__(self, network: Autoencoder, choices: PrefixChoices) -> None:
        super().__init__()
        self.network = network
        self.choices = choices

    def draw(self, batch: Batch, randomness: StepRandomness) -> tuple[Any, ...]:
        """Return pixels (b, 3, H, W) in [-1, 1], and what is kept."""
        pixels = to_pixels(batch.inputs.to(randomness.device, non_blocking=True))
        kept = self.choices.draw(randomness.batch_size, randomness.generator("prefix", "cpu"))
        return pixels, [rows(k, randomness.first, randomness.last) for k in kept]

    def forward(self, pixels_BCHW: Tensor, kept: list[Kept]) -> LossTerms:
        """Encode once, decode each draw; the loss is the mean over the draws."""
        latents = self.network.encode(pixels_BCHW)
        losses = [l1(self.network.decode(keep(latents, k)), pixels_BCHW) for k in kept]
        total = torch.stack(losses).mean()
        return LossTerms(total, {"loss": total.detach()})


class DiffusionObjective(nn.Module):
    """Augmented diffusion training: flow matching on a drawn channel prefix (arXiv 2508.00413, Eq. 2)."""

    def __init__(
        self,
        network: DiT,
        choices: PrefixChoices,
        config: DiffusionConfig,
        shift: tuple[float, ...],
        scale: tuple[float, ...],
        null_label: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.choices = choices
        self.config = config
        self.null_label = null_label
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float32)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32)[:, None, None], persistent=False)

    def draw(self, batch: Batch, randomness: StepRandomness) -> tuple[Any, ...]:
        """Return normalised latents and, for each draw, (noise, time, labels with dropout, kept)."""
        latents = (batch.inputs.to(randomness.device, non_blocking=True) - self.shift) * self.scale
        labels = batch.labels.to(randomness.device)
        draws = []
        for i, kept in enumerate(self.choices.draw(randomness.batch_size, randomness.generator("prefix", "cpu"))):
            time = draw_time(
                randomness.uniform(f"time{i}"), randomness.normal(f"time{i}"), self.config.time_distribution
            )
            dropped = randomness.uniform(f"labels{i}") < self.config.denoiser.class_dropout
            noise = randomness.normal(f"noise{i}", tuple(latents.shape[1:]))
            shown = torch.where(dropped, self.null_label, labels)
            draws.append((noise, time, shown, rows(kept, randomness.first, randomness.last)))
        return latents, draws

    def forward(self, latents_BChw: Tensor, draws: list[tuple[Tensor, Tensor, Tensor, Kept]]) -> LossTerms:
        """Run the denoiser once per draw; the loss is the mean over the draws."""
        losses = []
        for noise, time, labels, kept in draws:
            noisy = keep(interpolate(latents_BChw, noise, time), kept)
            losses.append(velocity_loss(self.network(noisy, time, labels), latents_BChw, noise, kept))
        total = torch.stack(losses).mean()
        return LossTerms(total, {"loss": total.detach()})
