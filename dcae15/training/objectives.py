"""The two objectives: structured autoencoding and augmented diffusion training.

An objective is a module that holds the network and returns the loss of one step; what is random about a step is drawn by
``draw`` and handed to ``forward``, so that the whole step can be wrapped for several workers, compiled, and repeated exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dcae15.channels import Kept, Prefix, as_mask, keep, rows
from dcae15.config import AdversarialConfig, DiffusionConfig, LossesConfig
from dcae15.data.loader import Batch
from dcae15.data.pixels import to_pixels
from dcae15.losses import LossTerms, l1, latent_health
from dcae15.losses.adversarial import LastLayer, adaptive_weight, generator_loss, hinge_discriminator_loss
from dcae15.losses.perceptual import LPIPS
from dcae15.models.autoencoder import Autoencoder
from dcae15.models.discriminator import PatchDiscriminator
from dcae15.models.dit import DiT
from dcae15.paths.linear import draw_time, interpolate, velocity_loss
from dcae15.training.randomness import StepRandomness


class Objective(Protocol):
    """What the loop trains."""

    @property
    def network(self) -> nn.Module:
        """The network; its state dict is what a checkpoint holds."""
        ...

    @property
    def critic(self) -> CriticObjective | None:
        """Another objective, whose network learns from what ``forward`` hands to it; None without a discriminator."""
        ...

    def draw(self, batch: Batch, randomness: StepRandomness) -> tuple[Any, ...]:
        """Return the arguments of ``forward`` for one step, on the randomness' device."""
        ...


class CriticObjective(nn.Module):
    """The discriminator's side of the adversarial game: tell images from reconstructions (hinge loss)."""

    def __init__(self, network: PatchDiscriminator, settings: AdversarialConfig) -> None:
        super().__init__()
        self.network = network
        self.settings = settings

    def forward(self, real_BCHW: Tensor, fake_BCHW: Tensor) -> LossTerms:
        """Judge both apart from each other; the batches may have different sizes."""
        real, fake = self.network(real_BCHW), self.network(fake_BCHW)
        loss = hinge_discriminator_loss(real, fake)
        named = {"discriminator_loss": loss, "logits_real": real.mean(), "logits_fake": fake.mean()}
        return LossTerms(loss, {name: value.detach().float() for name, value in named.items()})


class AutoencoderObjective(nn.Module):
    """Structured latent space: decode a drawn channel prefix, ask for the whole image (arXiv 2508.00413, Eq. 1).

    Args:
        network: the autoencoder.
        choices: the channel prefix.
        losses: their weights.
        perceptual: LPIPS; needed when it has a weight.
        critic: the discriminator; needed when it has a weight.
        judged_from: images seen from which on the discriminator's judgement counts.
        average: returns the mean of a tensor over all workers.
        fixed_shapes: mask prefixes instead of slicing by them, so that a compiled network sees one shape.
    """

    def __init__(
        self,
        network: Autoencoder,
        choices: Prefix,
        losses: LossesConfig,
        perceptual: LPIPS | None,
        critic: CriticObjective | None,
        *,
        judged_from: int,
        average: Callable[[Tensor], Tensor],
        fixed_shapes: bool,
    ) -> None:
        super().__init__()
        self.network = network
        self.choices = choices
        self.fixed_shapes = fixed_shapes
        self.losses = losses
        self.perceptual = perceptual
        self._critic = (critic,)  # in a tuple: its parameters are not this module's
        self.judged_from = judged_from
        self.average = average
        self.last_layer = LastLayer(network.decoder) if critic and self.losses.adversarial.adaptive else None

    @property
    def critic(self) -> CriticObjective | None:
        """The discriminator's side."""
        return self._critic[0]

    def draw(self, batch: Batch, randomness: StepRandomness) -> tuple[Any, ...]:
        """Return pixels (b, 3, H, W) in [-1, 1], what is kept, and whether the discriminator's judgement counts."""
        pixels = to_pixels(batch.inputs.to(randomness.device, non_blocking=True))
        kept = self.choices.draw(randomness.batch_size, randomness.generator("prefix", "cpu"))
        if self.fixed_shapes:
            kept = [as_mask(k, self.choices.channels) for k in kept]
        judged = randomness.images_seen >= self.judged_from
        return pixels, [rows(k, randomness.first, randomness.last) for k in kept], judged

    def forward(self, pixels_BCHW: Tensor, kept: list[Kept], judged: bool) -> LossTerms:
        """Encode once, decode each draw; the loss is the average over the draws."""
        if self.last_layer is not None:
            self.last_layer.reset()
        latents = self.network.encode(pixels_BCHW)
        decoded = [self.network.decode(keep(latents, k)) for k in kept]
        adaptive = self.last_layer is not None and judged
        # With an adaptive weight the losses are differentiated twice; cut off the network, which is passed once.
        reconstructions = [r.detach().requires_grad_() for r in decoded] if adaptive else decoded
        terms = {"l1": self.choices.average([l1(r, pixels_BCHW) for r in reconstructions])}
        total = self.losses.l1 * terms["l1"]
        if self.perceptual is not None:
            terms["lpips"] = self.choices.average([self.perceptual(r, pixels_BCHW).mean() for r in reconstructions])
            total = total + self.losses.perceptual.weight * terms["lpips"]
        named = {"loss": total} if len(terms) == 1 else {"loss": total, **terms}
        health = latent_health(latents)
        if self.critic is None:
            return LossTerms(total, {**_logged(named), **health})
        pair = (pixels_BCHW.detach(), torch.cat([r.detach() for r in decoded]))
        nothing = total.new_zeros(())
        game = {"generator_loss": nothing, "adversarial_weight": nothing}
        if judged:
            judgement = self._judge(reconstructions)
            weight = total.new_tensor(self.losses.adversarial.weight)
            if self.last_layer is None:
                total = total + weight * judgement
            else:
                total, weight = self._balance(total, judgement, weight, reconstructions, decoded)
            game = {"generator_loss": judgement, "adversarial_weight": weight}
        return LossTerms(total, {**_logged({**named, **game}), **health}, pair)

    def _judge(self, reconstructions: list[Tensor]) -> Tensor:
        """Return the discriminator's judgement; its own weights get no gradient."""
        assert self.critic is not None
        judge = self.critic.network
        judge.requires_grad_(False)
        judgement = self.choices.average([generator_loss(judge(r)) for r in reconstructions])
        judge.requires_grad_(True)
        return judgement

    def _balance(
        self, loss: Tensor, judgement: Tensor, weight: Tensor, reconstructions: list[Tensor], decoded: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Weigh the judgement by both gradients at the decoder's last layer.

        Returns:
            A scalar whose gradient at the decoder's outputs is that of ``loss + weight * judgement``, and the weight.
        """
        assert self.last_layer is not None
        ours = torch.autograd.grad(loss, reconstructions)
        theirs = torch.autograd.grad(judgement, reconstructions)
        weight = weight * adaptive_weight(
            self.average(self.last_layer.gradient(ours)), self.average(self.last_layer.gradient(theirs))
        )
        pushes = [(r * (a + weight * b)).sum() for r, a, b in zip(decoded, ours, theirs, strict=True)]
        return torch.stack(pushes).sum(), weight


def _logged(named: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().float() for name, value in named.items()}


class DiffusionObjective(nn.Module):
    """Augmented diffusion training: flow matching on a drawn channel prefix (arXiv 2508.00413, Eq. 2)."""

    def __init__(
        self,
        network: DiT,
        choices: Prefix,
        config: DiffusionConfig,
        shift: tuple[float, ...],
        scale: tuple[float, ...],
        null_label: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.critic: CriticObjective | None = None
        self.fixed_shapes = config.training.compile
        self.choices = choices
        self.config = config
        self.null_label = null_label
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float32)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32)[:, None, None], persistent=False)
        self.weights: Tensor | None
        weights = choices.channel_weights()
        self.register_buffer("weights", None if weights is None else torch.tensor(weights), persistent=False)

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
            if self.fixed_shapes:
                kept = as_mask(kept, self.choices.channels)
            shown = torch.where(dropped, self.null_label, labels)
            draws.append((noise, time, shown, rows(kept, randomness.first, randomness.last)))
        return latents, draws

    def forward(self, latents_BChw: Tensor, draws: list[tuple[Tensor, Tensor, Tensor, Kept]]) -> LossTerms:
        """Run the denoiser once per draw; the loss is the average over the draws."""
        losses = []
        for noise, time, labels, kept in draws:
            noisy = keep(interpolate(latents_BChw, noise, time), kept)
            losses.append(velocity_loss(self.network(noisy, time, labels), latents_BChw, noise, kept, self.weights))
        total = self.choices.average(losses)
        return LossTerms(total, {"loss": total.detach()})
