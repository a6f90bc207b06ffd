"""train_autoencoder: the autoencoder with a structured latent space, and the controls beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dcae15 import artifacts, storage
from dcae15.config import PhaseConfig, active_fields, autoencoder_spec
from dcae15.errors import ConfigError
from dcae15.stages.base import Context, Output, Stage, View


def identity(view: View) -> dict[str, Any]:
    """The graph, the phases, and what concerns the images while training."""
    config = view.config
    fields = {
        "spec": autoencoder_spec(config.autoencoder).to_dict(),
        "flip": config.autoencoder.flip,
        "phases": [_phase_identity(view, phase) for phase in config.autoencoder.all_phases],
        "seed": config.seed,
    }
    if config.data.crop == "random" or "images" in view.given:
        fields["random_crop_min_area"] = config.data.random_crop_min_area
    return fields


def _phase_identity(view: View, phase: PhaseConfig) -> dict[str, Any]:
    """The same phase said otherwise is the same."""
    prefixes = phase.prefix.prefixes(autoencoder_spec(view.config.autoencoder).latent_channels)
    said = phase.changed(
        resolution=phase.resolution or view.config.data.resolution, prefix=phase.prefix.changed(choices=prefixes)
    )
    fields, adversarial = active_fields(said, view.config), phase.losses.adversarial
    if adversarial.weight and (adversarial.adaptive or adversarial.norm == "batch"):  # they are of each part of a batch
        fields["training"]["accumulation"] = phase.training.accumulation
    return fields


def facts(view: View) -> dict[str, str]:
    """Latent, and each phase."""
    spec, phases = autoencoder_spec(view.config.autoencoder), view.config.autoencoder.all_phases
    found = {"latent": f"{spec.latent_channels} channels, f{spec.spatial_compression}"}
    for i, phase in enumerate(phases):
        prefix = phase.prefix
        found[f"phase {i + 1}"] = "; ".join(
            [
                *([phase.name] if len(phases) > 1 else []),
                f"{phase.training.whole_batches:,} images in batches of {phase.training.batch_size}",
                f"{phase.resolution or view.config.data.resolution} pixels",
                f"trains {', '.join(phase.parts)}",
                prefix.described(spec.latent_channels),
            ]
        )
    return found


def ready(view: View) -> None:
    """Raise ConfigError when a file of LPIPS is missing."""
    settings = view.config.autoencoder
    shared = settings.losses.perceptual
    needed = {"autoencoder": shared} if shared.vgg and shared.heads else {}
    needed |= {settings.phase_path(i): p.losses.perceptual for i, p in enumerate(settings.all_phases)}
    for path, perceptual in needed.items():
        for name in ("vgg", "heads") if perceptual.weight or perceptual is shared else ():
            uri = getattr(perceptual, name)
            if uri and not storage.exists(storage.expanded(uri)):
                from dcae15.losses.perceptual import PERCEPTUAL_SOURCES

                raise ConfigError(
                    f"{path}.losses.perceptual.{name} is {uri}, which does not exist; {PERCEPTUAL_SOURCES[name]}"
                )


def run(context: Context, inputs: Mapping[str, str], output: Output) -> None:
    """Train on the cluster."""
    from dcae15.training.autoencoder import train_autoencoder

    context.cluster.train(
        train_autoencoder, context.config, context.tracker, uri=output.uri, fingerprint=output.fingerprint, **inputs
    )


STAGE = Stage(
    "train_autoencoder",
    "Train the structured autoencoder on an image set, and the controls that `arms` names beside it.",
    role="autoencoder",
    makes=artifacts.Autoencoder,
    reads=("images", "initial"),
    run=run,
    identity=identity,
    facts=facts,
    ready=ready,
    per_arm=True,
    history="training_autoencoder",
    sections=("data", "autoencoder", "scaling", "tracking"),
    inputs={"images": "image set to train on; default: the one that prepare_images makes of this configuration"},
)
