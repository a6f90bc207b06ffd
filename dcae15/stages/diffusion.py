"""train_diffusion: the denoiser, with augmented diffusion training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dcae15 import artifacts
from dcae15.config import active_fields
from dcae15.stages.base import Context, Output, Stage, View, needs_diffusion


def identity(view: View) -> dict[str, Any]:
    """The network, its training, and what it is asked for."""
    settings = view.config.diffusion
    prefix = settings.prefix.changed(choices=settings.prefix.prefixes(_channels(view)))
    return {**active_fields(settings.changed(prefix=prefix), view.config), "seed": view.config.seed}


def _channels(view: View) -> int:
    uri = view.given.get("latents", "")
    return artifacts.LatentSet.open(uri).spec.channels if uri else view.graph.latent_channels


def ready(view: View) -> None:
    """Raise ConfigError when prefixes or patches do not fit the latents."""
    if uri := view.given.get("latents", ""):
        from dcae15.training.diffusion import planned_for

        planned_for(view.config, artifacts.LatentSet.open(uri))
    else:
        view.config.diffusion.prefix.resolved(_channels(view), "diffusion.prefix")


def facts(view: View) -> dict[str, str]:
    """Length, prefixes, and how latents are normalised."""
    settings = view.config.diffusion
    return {
        "length": f"{settings.training.images:,} images in batches of {settings.training.batch_size}",
        "draws": settings.prefix.described(_channels(view)),
        "latents": f"{settings.scaling} scale, {'mean removed' if settings.shift else 'mean kept'}",
    }


def run(context: Context, inputs: Mapping[str, str], output: Output) -> None:
    """Train on the cluster; where somebody measures along, from milestone to milestone."""
    from dcae15.training.diffusion import train_diffusion

    def train(until: int = 0) -> None:
        arguments = {**inputs, "uri": output.uri, "fingerprint": output.fingerprint, "until": until}
        context.cluster.train(train_diffusion, context.config, context.tracker, **arguments)

    if context.reached:
        for images in context.config.diffusion.whole_milestones:
            if not artifacts.finished(artifacts.snapshot_uri(output.uri, images)):
                train(until=images)
            context.reached(images)
    if not artifacts.finished(output.uri):
        train()


STAGE = Stage(
    "train_diffusion",
    "Train the denoiser on a latent set, with augmented diffusion training.",
    role="denoiser",
    makes=artifacts.Denoiser,
    reads=("latents",),
    run=run,
    identity=identity,
    facts=facts,
    ready=ready,
    active=needs_diffusion,
    history="training_diffusion",
    sections=("data", "autoencoder", "latents", "diffusion", "scaling", "tracking"),
    inputs={"latents": "latent set to train on; default: the one that cache_latents makes of this configuration"},
)
