"""cache_latents: every image of an image set is encoded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dcae15 import artifacts
from dcae15.config import Config, active_fields
from dcae15.errors import command
from dcae15.stages.base import Context, Output, Stage, Variant, View, needs_diffusion


def identity(view: View) -> dict[str, Any]:
    """What is stored of which images; the images' own resolution has one name however it is said."""
    fields = active_fields(view.config.latents, view.config)
    return {**fields, "resolution": view.config.latents.resolution or view.resolution}


def facts(view: View) -> dict[str, str]:
    """Copies, shape, bytes."""
    latents, prepared, spec = view.config.latents, view.resolution, view.graph
    pixels = latents.resolution or prepared
    side = pixels // spec.spatial_compression
    size = spec.latent_channels * side * side * artifacts.LATENT_BYTES[latents.dtype]
    copies = "every image and its mirror" if latents.mirror else "every image once"
    if pixels != prepared:
        copies += f", reduced from {prepared} to {pixels} pixels"
    return {"images": copies, "each": f"{spec.latent_channels}x{side}x{side} {latents.dtype}, {size:,} bytes"}


def run(context: Context, inputs: Mapping[str, str], output: Output) -> None:
    """Encode on the cluster."""
    from dcae15.stages.latent_caching import cache_latents

    cache_latents(context.config, context.cluster, **inputs, uri=output.uri, fingerprint=output.fingerprint)


def verify(config: Config, inputs: Mapping[str, str], dry_run: bool, find: Callable[[str], str]) -> str:
    """Check the latent set of this configuration, or a given one; return a summary of the good set.

    Raises:
        ArtifactError: there is no such artifact.
        DataError: the set is not what it should be; the message lists what was found.
    """
    from dcae15.cluster import Cluster
    from dcae15.stages.latent_check import check_latents, describe_latents

    latent_set = artifacts.LatentSet.open(find("latents"))
    if "images" in inputs:
        artifacts.ImageSet.open(inputs["images"])
    if dry_run:
        against = " and ".join(name for name in ("images", "autoencoder") if name in inputs)
        return f"would verify {describe_latents(latent_set)}" + (f" against {against}" if against else "")
    autoencoder = find("autoencoder") if "autoencoder" in inputs else ""
    images = inputs.get("images", "")
    with Cluster(config) as cluster:
        return check_latents(config, cluster, latents=latent_set.uri, images=images, autoencoder=autoencoder)


STAGE = Stage(
    "cache_latents",
    "Encode every image of an image set into a latent set, with any autoencoder; or, with --verify, check a latent set.\n\n"
    f"{command('cache_latents')} images=URI autoencoder=URI\n"
    f"{command('cache_latents')} --verify latents=URI images=URI autoencoder=URI",
    role="latents",
    makes=artifacts.LatentSet,
    reads=("images", "autoencoder"),
    run=run,
    identity=identity,
    facts=facts,
    active=needs_diffusion,
    sections=("data", "autoencoder", "latents", "scaling", "tracking"),
    inputs={
        "images": "image set to encode, or to compare with; default: the one that prepare_images makes of this configuration",
        "autoencoder": "autoencoder, ours or a folder or file with foreign weights; default: the one that train_autoencoder makes",
    },
    variants={
        "verify": Variant(
            "write nothing: check that the latent set is complete and undamaged; with images=URI also that its ids, labels and "
            "pixels are theirs, with autoencoder=URI, too, that it made them (some are encoded again); exit code 1 if not",
            verify,
            {"latents": "with --verify only: latent set to check; default: the one of this configuration"},
        )
    },
)
