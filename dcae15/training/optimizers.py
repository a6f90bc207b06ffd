"""AdamW and its learning rate over images seen."""

from __future__ import annotations

import math

import torch
from torch import nn

from dcae15.config import TrainingConfig


def adamw(
    network: nn.Module, *, learning_rate: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.AdamW:
    """Return AdamW over all trainable parameters; vectors (biases, normalisation weights) are not decayed."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, betas=betas, fused=True)


def schedule(config: TrainingConfig, images_seen: int) -> float:
    """Return the share of the peak learning rate in the step that starts after ``images_seen`` images of the phase.

    A linear warm-up, then constant, or cosine to zero at the end.
    """
    after_step = images_seen + config.batch_size
    if after_step < config.warmup_images:
        return after_step / config.warmup_images
    if config.schedule == "constant":
        return 1.0
    progress = (images_seen - config.warmup_images) / max(1, config.images - config.warmup_images)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, progress))))
