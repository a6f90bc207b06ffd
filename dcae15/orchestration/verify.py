"""The command cache_latents --verify: which latent set, against what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dcae15 import storage
from dcae15.artifacts import ImageSet, LatentSet
from dcae15.cluster import Cluster
from dcae15.config import Config
from dcae15.errors import ArtifactError, ConfigError
from dcae15.orchestration.export import autoencoder_of
from dcae15.orchestration.plan import plan
from dcae15.stages.latent_check import check_latents, describe_latents


def verify_latents(config: Config, inputs: Mapping[str, str], dry_run: bool = False) -> str:
    """Do what ``cache_latents --verify`` was asked to; return a summary of the good set, or of what would be checked.

    Args:
        config: scaling and batch size; names the latent set unless it is given.
        inputs: ``latents``, ``images`` and ``autoencoder`` where given.
        dry_run: only say what would be checked.

    Raises:
        ArtifactError: there is no such artifact.
        DataError: the set is not what it should be; the message lists what was found.
    """
    config = replace(config, storage=storage.resolve(config.storage))
    uri = inputs.get("latents") or _latents_of(config, inputs)
    latent_set = LatentSet.open(uri)
    if "images" in inputs:
        ImageSet.open(inputs["images"])
    if dry_run:
        against = [name for name in ("images", "autoencoder") if name in inputs]
        return f"would verify {describe_latents(latent_set)}" + (f" against {' and '.join(against)}" if against else "")
    autoencoder = autoencoder_of(config, inputs) if "autoencoder" in inputs else ""
    images = inputs.get("images", "")
    with Cluster(config) as cluster:
        return check_latents(config, cluster, latents=latent_set.uri, images=images, autoencoder=autoencoder)


def _latents_of(config: Config, inputs: Mapping[str, str]) -> str:
    """Return where the latent set of this configuration is."""
    stages = {stage.name: stage for stage in plan(config, inputs)}
    if "cache_latents" not in stages:
        raise ConfigError("diffusion.enabled is false, so there is no latent set; give latents=URI")
    if not stages["cache_latents"].done:
        raise ArtifactError(
            f"there is no latent set of this configuration at {stages['cache_latents'].uri}; give latents=URI, or run "
            "`python pipelines/cache_latents.py` with the same configuration first"
        )
    return stages["cache_latents"].uri
