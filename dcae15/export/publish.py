"""An autoencoder as a folder for others: weights, config.json, statistics of its latents and a model card."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from safetensors.torch import save as to_safetensors

from dcae15 import artifacts, storage
from dcae15.errors import ArtifactError, ConfigError
from dcae15.export.card import model_card
from dcae15.export.foreign_config import diffusers_config, official_config
from dcae15.export.layouts import StateDict, to_official
from dcae15.models.spec import AutoencoderSpec

FORMATS = ("diffusers", "official")
STATISTICS = "latent_statistics.json"


@dataclass(frozen=True)
class Scaling:
    """What latents are multiplied with before a diffusion model sees them, and where the number comes from."""

    factor: float
    origin: str
    known: bool = True


def export_folder(
    state_dict: StateDict,
    artifact: artifacts.Autoencoder,
    to: str,
    *,
    latents: artifacts.LatentSet | None = None,
    layout: str = "diffusers",
    license: str = "unknown",
) -> None:
    """Write an autoencoder for others; config.json comes last.

    ``diffusers`` is what ``diffusers.AutoencoderDC.from_pretrained`` opens. ``official`` has the key layout of DC-Gen and, where a
    published model has this graph, its name in config.json, as the official folders have; else the official dotlist.

    Args:
        state_dict: Weights in our layout.
        artifact: Where they come from.
        to: Folder to write; files of the same name are replaced.
        latents: A latent set that the autoencoder made; its statistics are written beside the weights, and give the scaling
            factor 1 / RMS. Without it the factor is the published one of imported weights, or 1.
        layout: ``diffusers`` or ``official``.
        license: Licence of the weights, as the hub writes it (``apache-2.0``, ``mit``, ``other``, ...).

    Raises:
        ConfigError: The layout is unknown, or the licence is not one word.
        ArtifactError: The latents are those of another autoencoder, or the folder is an artifact.
        StorageError: A file cannot be written.
    """
    if layout not in FORMATS:
        raise ConfigError(f"format is '{layout}'; it must be {' or '.join(FORMATS)}")
    if not re.fullmatch(r"[\w.+-]+", license):
        raise ConfigError(
            f"license is '{license}'; give one word as model hubs write it, such as apache-2.0, mit or other"
        )
    if artifacts.finished(to):
        raise ArtifactError(
            f"{to} is an artifact of this project, whose files would be replaced; choose another folder"
        )
    if latents is not None and latents.spec.autoencoder != artifact.fingerprint:
        raise ArtifactError(
            f"the latents at {latents.uri} are those of autoencoder {latents.spec.autoencoder}, but {artifact.uri} is "
            f"{artifact.fingerprint}; pass latents that it made"
        )
    spec = AutoencoderSpec.from_dict(artifact.spec)
    manifest = artifacts.read_manifest(artifact.uri)
    scaling = scaling_of(manifest, latents)
    if layout == "official":
        name, weights = "model.safetensors", to_official(state_dict, spec)
        config: dict[str, Any] = official_config(spec, manifest.get("model_name", ""))
        config["scaling_factor"] = (
            scaling.factor if scaling.known else None
        )  # the name alone would say the published one's
    else:
        name, weights = "diffusion_pytorch_model.safetensors", state_dict
        config = diffusers_config(spec, scaling.factor)
    contiguous = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    storage.write_bytes(storage.join(to, name), to_safetensors(contiguous, metadata={"format": "pt"}))
    if latents is not None:
        storage.write_json(storage.join(to, STATISTICS), latent_statistics(latents, scaling.factor))
    card = model_card(
        spec, artifact, scaling.factor, scaling.origin, latents, layout, license, manifest.get("source", "")
    )
    storage.write_bytes(storage.join(to, "README.md"), card.encode())
    storage.write_json(storage.join(to, "config.json"), config)


def scaling_of(manifest: dict[str, Any], latents: artifacts.LatentSet | None) -> Scaling:
    """Return the scaling factor: 1 / RMS of the latents, else the published one of imported weights, else 1."""
    if latents is not None:
        square = sum(rms * rms for rms in latents.statistics.rms) / latents.spec.channels
        if not square > 0:
            raise ArtifactError(f"all latents at {latents.uri} are 0 and cannot be scaled; cache them again")
        images = latents.splits["train"].count // (2 if latents.mirror else 1)
        return Scaling(1 / math.sqrt(square), f"1 / RMS of the latents of {images:,} training images")
    if isinstance(factor := manifest.get("scaling_factor"), (int, float)):
        return Scaling(float(factor), "as published with the weights")
    return Scaling(1.0, "not measured: export with a latent set (latents=URI) to measure it", known=False)


def latent_statistics(latents: artifacts.LatentSet, factor: float) -> dict[str, Any]:
    """Return what latent_statistics.json says of raw latents over all training images and positions."""
    measured = latents.statistics
    return {
        "channels": latents.spec.channels,
        "positions": measured.count,
        "mean": list(measured.mean),
        "std": list(measured.std),
        "scaling_factor": factor,
        "latent_set": latents.fingerprint,
        "autoencoder": latents.spec.autoencoder,
    }
