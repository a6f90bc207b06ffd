"""measure_milestones: what the denoiser generates at each milestone of its training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dcae15 import artifacts, tracking
from dcae15.config import active_fields
from dcae15.evaluation import needs
from dcae15.stages.base import Context, Output, Stage, View, needs_diffusion
from dcae15.stages.evaluation import require_visible


def active(view: View) -> str:
    """Milestones, and everything that decodes and compares."""
    if (why := needs_diffusion(view)) or view.config.diffusion.milestones == []:
        return why or "diffusion.milestones is empty; give the configuration that train_diffusion had"
    if "denoiser" in view.given:
        return "a given denoiser has no milestones; give the latents that it was trained on instead: latents=URI"
    if "latents" in view.given and not {"images", "autoencoder"} <= view.given.keys():
        return "the images and the autoencoder of given latents must be given, too: images=URI autoencoder=URI"
    return ""


def _images(view: View) -> int:
    return view.config.evaluation.milestone_images or view.config.sampling.images


def identity(view: View) -> dict[str, Any]:
    """How images are generated and compared."""
    config = view.config
    return {
        "sampling": {**active_fields(config.sampling, config), "images": _images(view)},
        "feature_images": config.evaluation.feature_images,
        "neighbours": config.evaluation.neighbours,
        "seed": config.data.seed,
    }


def facts(view: View) -> dict[str, str]:
    """Milestones and images."""
    milestones = ", ".join(f"{images:,}" for images in view.config.diffusion.milestones)
    return {"milestones": milestones, "images": f"{_images(view):,} at each"}


def notes(view: View, inputs: Mapping[str, str]) -> Iterator[str]:
    """Yield what is left out for want of images."""
    counts = needs.counts_of(view.config, inputs["images"])
    if counts is not None:
        wanted = "evaluation.milestone_images" if view.config.evaluation.milestone_images else "sampling.images"
        yield from needs.generation_left_out(view.config, counts, _images(view), wanted)


def measure(context: Context, inputs: Mapping[str, str], output: Output, images: int) -> None:
    """Measure one milestone where networks train, unless that was done before; the row is tracked and handed on."""
    from dcae15.evaluation.milestones import measure_milestone

    arguments = {
        **inputs,
        "config": context.config,
        "denoiser": artifacts.snapshot_uri(inputs["denoiser"], images),
        "uri": output.uri,
    }
    row = context.cluster.call("measure_milestones", measure_milestone, **arguments)
    tracking.Tracker(context.tracker).metrics({k: v for k, v in row.items() if k != "images"}, step=images)
    context.on_row(row)


def run(context: Context, inputs: Mapping[str, str], output: Output) -> None:
    """Measure what was not measured while the denoiser trained, and collect the rows."""
    from dcae15.evaluation.milestones import commit_milestones

    milestones = context.config.diffusion.whole_milestones
    for images in milestones:
        measure(context, inputs, output, images)
    commit_milestones(output.uri, output.fingerprint, milestones)


def curve(uri: str) -> tuple[dict[str, float], ...]:
    """The rows of all milestones."""
    return artifacts.Milestones.open(uri).rows


STAGE = Stage(
    "measure_milestones",
    "Measure what the denoiser generated at each of diffusion.milestones; the full pipeline does it while the denoiser trains.",
    role="milestones",
    makes=artifacts.Milestones,
    reads=("images", "autoencoder", "denoiser"),
    run=run,
    identity=identity,
    facts=facts,
    active=active,
    along="denoiser",
    at_milestone=measure,
    curve=curve,
    ready=lambda view: require_visible(view, "measure_milestones"),
    notes=notes,
    inputs={
        "images": "image set to compare with; default: the one that prepare_images makes",
        "autoencoder": "autoencoder that decodes; default: the one that train_autoencoder makes",
        "latents": "latent set that the denoiser was trained on; default: the one that cache_latents makes",
    },
)
