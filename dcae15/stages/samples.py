"""sample: the denoiser generates images into an image set of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dcae15 import artifacts
from dcae15.config import active_fields
from dcae15.stages.base import Context, Output, Stage, View, needs_diffusion


def identity(view: View) -> dict[str, Any]:
    """How images are generated."""
    return active_fields(view.config.sampling, view.config)


def facts(view: View) -> dict[str, str]:
    """Images and solver."""
    sampling = view.config.sampling
    solver = f"{sampling.solver}, {sampling.steps} steps, guidance {sampling.guidance:g}"
    return {"images": f"{sampling.images:,}", "solver": solver}


def run(context: Context, inputs: Mapping[str, str], output: Output) -> None:
    """Generate on the cluster."""
    from dcae15.stages.image_sampling import sample_images

    sample_images(context.config, context.cluster, **inputs, uri=output.uri, fingerprint=output.fingerprint)


STAGE = Stage(
    "sample",
    "Generate images with a denoiser into an image set of their own.",
    role="samples",
    makes=artifacts.ImageSet,
    split="generated",
    reads=("denoiser", "autoencoder"),
    run=run,
    identity=identity,
    facts=facts,
    active=needs_diffusion,
    inputs={
        "denoiser": "denoiser; default: the one that train_diffusion makes of this configuration",
        "autoencoder": "autoencoder that decodes; default: the one that train_autoencoder makes",
    },
)
