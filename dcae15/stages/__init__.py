"""The stages of a pipeline, in order. A new stage is one file and one row here; a new arm is one row of `dcae15.config.ARMS`."""

from dcae15.stages import autoencoder, diffusion, evaluation, foreign, images, latents, milestones, samples

STAGES = [
    images.STAGE,
    autoencoder.STAGE,
    latents.STAGE,
    diffusion.STAGE,
    milestones.STAGE,
    samples.STAGE,
    evaluation.STAGE,
]
FOREIGN = foreign.STAGE
"""Imports what was trained elsewhere; planned where such weights are given."""
