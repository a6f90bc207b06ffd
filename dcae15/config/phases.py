"""The phases of the autoencoder's training, and what they say together."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from dcae15.config.autoencoder import AutoencoderConfig, PhaseConfig, PrefixConfig, TrainingConfig
from dcae15.config.identity import result_fields

PARTS = ("all", "encoder", "decoder", "encoder_head", "decoder_input", "decoder_head", "decoder_last_stage")


def prefix_choices(prefix: PrefixConfig, channels: int) -> list[int]:
    """Return the prefixes that training draws from: ascending, ending with all ``channels``."""
    if prefix.kind == "none":
        return [channels]
    return list(prefix.choices) or [*range(prefix.first, channels, prefix.step), channels]


def phases_of(autoencoder: AutoencoderConfig) -> list[PhaseConfig]:
    """Return the phases of the training: those that are given, else the only one."""
    only = PhaseConfig(losses=autoencoder.losses, prefix=autoencoder.prefix, training=autoencoder.training)
    return list(autoencoder.phases) or [only]


def whole_batches(training: TrainingConfig) -> int:
    """Return the images that a training sees: its length, rounded up to whole batches."""
    return math.ceil(training.images / training.batch_size) * training.batch_size


def images_of(phase: PhaseConfig) -> int:
    """Return the images that a phase sees."""
    return whole_batches(phase.training)


def mask_kind(autoencoder: AutoencoderConfig) -> str:
    """Return ``prefix``, ``random`` or ``none``: the first kind of mask that a phase trains with, if any does."""
    return next((p.prefix.kind for p in phases_of(autoencoder) if p.prefix.kind != "none"), "none")


def trained_prefixes(autoencoder: AutoencoderConfig, channels: int) -> list[int]:
    """Return the prefixes that the autoencoder is asked to decode in any phase: ascending, ending with all ``channels``."""
    kinds = [p.prefix for p in phases_of(autoencoder) if p.prefix.kind == "prefix"]
    return sorted({channels}.union(*(prefix_choices(prefix, channels) for prefix in kinds)))


def without_masks(autoencoder: AutoencoderConfig, kind: str = "none") -> AutoencoderConfig:
    """Return the same training with another kind of mask in every phase that has masks: ``none`` (the baseline) or ``random``."""
    phases = [
        dataclasses.replace(p, prefix=dataclasses.replace(p.prefix, kind=kind) if p.prefix.kind != "none" else p.prefix)
        for p in phases_of(autoencoder)
    ]
    return dataclasses.replace(autoencoder, phases=phases)


def prefix_fields(prefix: PrefixConfig, channels: int) -> dict[str, Any]:
    """Return what can change a result of masks, without what has no effect."""
    if prefix.kind == "none":
        return {"kind": "none"}
    fields = result_fields(prefix)
    del fields["first"], fields["step"]
    return {**fields, "choices": prefix_choices(prefix, channels)}


def phase_fields(phase: PhaseConfig, channels: int, resolution: int) -> dict[str, Any]:
    """Return what can change a phase's result, without what has no effect: the same phase said otherwise is the same."""
    fields = result_fields(phase)
    fields["resolution"] = phase.resolution or resolution
    fields["prefix"] = prefix_fields(phase.prefix, channels)
    adversarial = phase.losses.adversarial
    if adversarial.weight and (adversarial.adaptive or adversarial.norm == "batch"):  # they are of each part of a batch
        fields["training"]["accumulation"] = phase.training.accumulation
    losses = fields["losses"]
    for name in ("perceptual", "adversarial"):
        if not losses[name]["weight"]:
            del losses[name]
    perceptual = losses.get("perceptual", {})
    for name in ("vgg", "heads"):
        if perceptual.get(f"{name}_sha256"):
            del perceptual[name]  # the digest names the file, wherever it is
    return fields
