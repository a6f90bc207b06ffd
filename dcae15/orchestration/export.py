"""Exports without Ray: an autoencoder of this configuration, or a given one, as a folder for others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dcae15 import artifacts, storage
from dcae15.config import Config
from dcae15.config.graph import autoencoder_spec
from dcae15.errors import ArtifactError
from dcae15.export.foreign_weights import import_autoencoder
from dcae15.export.publish import FORMATS, export_folder
from dcae15.library import load_autoencoder
from dcae15.orchestration.plan import IMPORTS, plan


def autoencoder_of(config: Config, given: Mapping[str, str]) -> str:
    """Return the URI of the autoencoder that is given, importing foreign weights, or else that this configuration trained.

    Raises:
        ArtifactError: It is not there; the message names the script that makes it.
    """
    config = replace(config, storage=storage.resolve(config.storage))
    uri = given.get("autoencoder", "")
    stages = {stage.name: stage for stage in plan(config, {"autoencoder": uri} if uri else None)}
    if (stage := stages.get(next(iter(IMPORTS)))) is not None:
        if not stage.done:
            settings = config.autoencoder
            import_autoencoder(
                stage.inputs["weights"],
                autoencoder_spec(settings),
                uri=stage.uri,
                fingerprint=stage.fingerprint,
                preset=settings.preset,
            )
        return stage.uri
    if uri:
        return uri
    stage = stages["train_autoencoder"]
    if not stage.done:
        raise ArtifactError(
            f"there is no autoencoder of this configuration at {stage.uri}; run `python pipelines/train_autoencoder.py` with the "
            "same configuration first, or pass autoencoder=URI"
        )
    return stage.uri


def export(config: Config, inputs: Mapping[str, str], dry_run: bool = False) -> None:
    """Do what pipelines/export.py was asked to.

    Args:
        config: Names the autoencoder, unless one is given.
        inputs: ``to``, and ``autoencoder``, ``latents``, ``format`` and ``license`` where given.
        dry_run: Only say what would be written.
    """
    to, layout = storage.resolve(inputs["to"]), inputs.get("format", FORMATS[0])
    if dry_run:
        print(f"would export {inputs.get('autoencoder', 'the autoencoder of this configuration')} to {to} ({layout})")
        return
    artifact = artifacts.Autoencoder.open(autoencoder_of(config, inputs))
    latents = artifacts.LatentSet.open(inputs["latents"]) if "latents" in inputs else None
    weights = load_autoencoder(artifact.uri).state_dict()
    export_folder(weights, artifact, to, latents=latents, layout=layout, license=inputs.get("license", "unknown"))
    print(f"exported: {to} ({layout}) from {artifact.uri}")
