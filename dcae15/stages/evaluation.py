"""evaluate: every measurement of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dcae15 import artifacts, tracking
from dcae15.config import active_fields
from dcae15.config.arms import CONTROLS, STRUCTURED
from dcae15.errors import ConfigError
from dcae15.evaluation import needs
from dcae15.stages.base import Context, Output, Stage, View

ROLES = {STRUCTURED: "autoencoder", **{name: name for name in CONTROLS}}
"""Roles of the arms' autoencoders."""


def identity(view: View) -> dict[str, Any]:
    """What is measured, also of what is only given; LPIPS where its weights are."""
    config = view.config
    fields = {**active_fields(config.evaluation, config), "seed": config.data.seed}
    fields.pop("milestone_images", None)
    for role, name in (("baseline", "full_channel_gap_db"), ("samples", "neighbours")):
        if role in view.given:
            fields[name] = getattr(config.evaluation, name)
    perceptual = config.autoencoder.losses.perceptual
    if perceptual.vgg and perceptual.heads:
        fields["perceptual"] = active_fields(perceptual.changed(weight=1.0), config)  # whatever the training weighs it
    return fields


def ready(view: View) -> None:
    """Raise ConfigError now, not after days of training, when generated images could not be compared with the prepared ones."""
    ours, prepared = view.config.latents.resolution, view.config.data.resolution
    if view.config.diffusion.enabled and not view.given and ours not in (0, prepared):
        raise ConfigError(
            f"latents.resolution is {ours}, so images of {ours} pixels would be generated, which evaluate cannot compare with "
            f"the prepared ones of {prepared}; set data.resolution={ours}, or run the stages one by one and give evaluate "
            f"images=URI of an image set of {ours} pixels"
        )
    require_visible(view, "evaluate")


def require_visible(view: View, who: str) -> None:
    """Raise ConfigError when the images are too small for the network that measures them."""
    if (side := view.resolution) < needs.LEAST_RESOLUTION:
        given = view.given.get("images", "")
        raise ConfigError(
            f"{f'images={given} has images of' if given else 'data.resolution is'} {side} pixels, but {who} looks at images "
            f"of {needs.LEAST_RESOLUTION} pixels or more; prepare larger ones, or run the other stages one by one"
        )


def notes(view: View, inputs: Mapping[str, str]) -> Iterator[str]:
    """Yield what is left out for want of images."""
    samples, counts = inputs.get("samples", ""), needs.counts_of(view.config, inputs["images"])
    generated = view.config.sampling.images if samples else 0
    if samples and artifacts.finished(samples):
        generated = sum(split.count for split in artifacts.ImageSet.open(samples).splits.values())
    if counts is not None:
        yield from needs.left_out(view.config, counts, generated)


def run(context: Context, inputs: Mapping[str, str], output: Output) -> None:
    """Measure on the cluster; track the headline numbers."""
    from dcae15.evaluation.evaluate_run import evaluate

    scalars = context.cluster.call(
        "evaluate",
        evaluate,
        config=context.config,
        images=inputs["images"],
        autoencoders={arm: inputs[role] for arm, role in ROLES.items() if role in inputs},
        samples=inputs.get("samples", ""),
        uri=output.uri,
        fingerprint=output.fingerprint,
    )
    tracking.Tracker(context.tracker).metrics(scalars, step=0)


STAGE = Stage(
    "evaluate",
    "Measure autoencoders (structured, and its controls) and generated images.",
    role="evaluation",
    makes=artifacts.Evaluation,
    reads=("images", "autoencoder"),
    run=run,
    identity=identity,
    facts=lambda view: {"images": f"{view.config.evaluation.reconstruction_images:,} validation images"},
    ready=ready,
    notes=notes,
    optional=(*CONTROLS, "denoiser", "samples"),
    inputs={
        "images": "image set to compare with; default: the one that prepare_images makes",
        "autoencoder": "the structured autoencoder",
        **{name: f"the control '{name}', see `arms`" for name in CONTROLS},
        "denoiser": "the denoiser that generated",
        "samples": "the generated images",
    },
)
