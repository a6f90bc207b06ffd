"""AdamW and its learning rate over images seen."""

from __future__ import annotations

import math

import torch
from torch import nn

from dcae15.config import TrainingConfig


def adamw(network: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """Return AdamW over all trainable parameters; vectors (biases, normalisation weights) are not decayed."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True)


def learning_rate(config: TrainingConfig, images_seen: int) -> float:
    """Return the learning rate of the step that starts at ``images_seen``: linear warm-up, then constant or cosine to zero."""
    after_step = images_seen + config.batch_size
    if after_step < config.warmup_images:
        return config.learning_rate * after_step / config.warmup_images
    if config.schedule == "constant":
        return config.learning_rate
    progress = (images_seen - config.warmup_images) / max(1, config.images - config.warmup_images)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, progress))))
