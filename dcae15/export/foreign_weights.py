"""Weights that others wrote: what a plan must know of them, the autoencoder that they are, and their import as an artifact.

After the import every stage treats them like trained ones.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from safetensors.torch import save as to_safetensors

from dcae15 import artifacts, storage
from dcae15.errors import ConfigError, StorageError, WeightsError
from dcae15.export.foreign_config import spec_from_config, spec_from_official
from dcae15.export.layouts import build_autoencoder, detect_layout, from_official
from dcae15.models.autoencoder import Autoencoder
from dcae15.models.presets import PRESETS, SCALING_FACTORS, published_name
from dcae15.models.spec import AutoencoderSpec
from dcae15.redaction import redact
from dcae15.weights import is_weights_file, read_state_dict

UNKNOWN = "unknown"
"""``mask_kind`` of an imported autoencoder: nobody wrote into its weights how it was trained."""

_FOLDER_FILES = ("diffusion_pytorch_model.safetensors", "model.safetensors")
_PIECE = 2**23


@dataclass(frozen=True)
class GivenAutoencoder:
    """What a plan must know of an autoencoder that is given to it: an artifact, or foreign weights that are imported first."""

    uri: str  # where it is
    foreign: bool  # whether it must be imported
    spec: AutoencoderSpec  # its graph
    digest: str  # what names it: the fingerprint of an artifact, the SHA-256 of foreign weights
    # what else an import depends on: the graph as plain values, and what was published of the weights
    facts: dict[str, Any] = field(default_factory=dict)


def given_autoencoder(uri: str, graph: AutoencoderSpec, preset: str) -> GivenAutoencoder:
    """Find out what is given as an autoencoder.

    Args:
        uri: An artifact, a weights file or a folder of others.
        graph: The configured graph, which a bare weights file needs; folders and artifacts say their own.
        preset: The configured name of a published model, which a bare weights file may have.

    Raises:
        ArtifactError: There is neither foreign weights nor a finished autoencoder.
        ConfigError: The folder's configuration is unknown or unsupported.
        StorageError: A file cannot be read.
    """
    uri = storage.resolve(uri)
    if not is_foreign(uri):
        artifact = artifacts.Autoencoder.open(uri)
        return GivenAutoencoder(uri, False, AutoencoderSpec.from_dict(artifact.spec), artifact.fingerprint)
    spec = foreign_spec(uri, graph)
    return GivenAutoencoder(
        uri, True, spec, _weights_digest(uri), {"spec": spec.to_dict(), **published_facts(uri, preset)}
    )


def is_foreign(uri: str) -> bool:
    """Tell whether there are foreign weights: a weights file, or a folder that has config.json and is no artifact."""
    if artifacts.finished(uri):
        return False
    return storage.exists(uri if is_weights_file(uri) else storage.join(uri, "config.json"))


def foreign_spec(uri: str, config: str | AutoencoderSpec | None = None) -> AutoencoderSpec:
    """Return the graph of foreign weights.

    Args:
        uri: A weights file or a folder with config.json.
        config: The graph, or a name or dotlist of it. Needed for a file; for a folder a text replaces config.json, whereas a
            spec yields to it.

    Raises:
        ConfigError: The configuration is missing, unknown or asks for an unsupported feature.
        StorageError: config.json cannot be read.
    """
    if isinstance(config, str):
        return spec_from_official(config)
    if not is_weights_file(uri):
        try:
            return spec_from_config(_folder_config(uri))
        except ConfigError as error:
            raise ConfigError(f"{storage.join(uri, 'config.json')}: {error}") from error
    if config is None:
        raise ConfigError(
            f"{uri} is a bare weights file, which does not say its configuration; give the name of a published "
            "model (dc-ae-f32c128-1.5) or the official dotlist"
        )
    return config


def load_foreign_autoencoder(
    uri: str, config: str | AutoencoderSpec | None = None, *, ema: float | None = None
) -> Autoencoder:
    """Build an autoencoder from weights in the official or the diffusers layout, recognised by their keys.

    Args:
        uri: A weights file; or a folder with config.json and diffusion_pytorch_model.safetensors (diffusers) or
            model.safetensors (official).
        config: The graph, or the name of a published model or official dotlist, see `foreign_spec`.
        ema: Decay of a moving average to take from a checkpoint of the official trainer, see `dcae15.weights.read_state_dict`.

    Returns:
        The autoencoder in float32 (whatever the file holds), on the CPU, in evaluation mode.

    Raises:
        ConfigError: The configuration is missing, unknown or asks for an unsupported feature.
        StorageError: A file cannot be read.
        WeightsError: The weights are damaged, foreign, or do not fit the configuration.
    """
    spec = foreign_spec(uri, config)
    file = _weights_file(uri)
    weights = read_state_dict(file, ema)
    try:
        return build_autoencoder(
            from_official(weights, spec) if detect_layout(weights) == "official" else weights, spec
        )
    except WeightsError as error:
        mending = (
            "give the graph that they were trained with: autoencoder.preset=NAME or the fields of a custom graph"
            if is_weights_file(uri)
            else "its config.json must describe the graph that they were trained with"
        )
        raise WeightsError(f"{file}: {error}; {mending}") from error


def import_autoencoder(source: str, spec: AutoencoderSpec, *, uri: str, fingerprint: str, preset: str = "") -> None:
    """Write foreign weights as an `Autoencoder` artifact to ``uri``.

    Its prefix choices are empty and its mask kind is ``unknown``; it has seen 0 images here. Its manifest also says where it
    comes from and, where known, what its latents are multiplied with elsewhere (``scaling_factor``) and its published name.

    Raises:
        ConfigError: The folder's configuration is unknown or unsupported.
        StorageError: A file cannot be read or written.
        WeightsError: The weights are damaged, foreign, or do not fit the graph.
    """
    network = load_foreign_autoencoder(source, spec)
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    storage.write_bytes(storage.join(uri, "weights.safetensors"), to_safetensors(state))
    artifacts.Autoencoder(
        uri,
        fingerprint,
        spec=network.spec.to_dict(),
        resolution=0,
        prefix_choices=(),
        mask_kind=UNKNOWN,
        images_seen=0,
        images="",
    ).commit(
        parameters=sum(value.numel() for value in network.parameters()),
        source=redact(source),
        **published_facts(source, preset),
    )


def published_facts(source: str, preset: str) -> dict[str, Any]:
    """Return ``model_name`` and ``scaling_factor`` as far as they are known."""
    config = {"model_name": preset} if is_weights_file(source) else _folder_config(source)
    name = published_name(str(config.get("model_name", "")))
    known: dict[str, Any] = {"model_name": name} if name in PRESETS else {}
    scaling = config.get("scaling_factor", SCALING_FACTORS.get(name))  # null says that it is not known
    if isinstance(scaling, (int, float)):
        known["scaling_factor"] = float(scaling)
    return known


def _weights_file(uri: str) -> str:
    """Return the weights file of a folder with config.json, official or of diffusers; a file is its own."""
    if is_weights_file(uri):
        return uri
    files = [storage.join(uri, name) for name in _FOLDER_FILES]
    for file in files:
        if storage.exists(file):
            return file
    raise StorageError(f"{uri} holds no weights: expected {' (diffusers) or '.join(_FOLDER_FILES)} (official) in it")


def _folder_config(uri: str) -> dict[str, Any]:
    path = storage.join(uri, "config.json")
    values = storage.read_json(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is not a JSON object")
    return values


def _weights_digest(uri: str) -> str:
    digest = hashlib.sha256()
    with storage.open_read(_weights_file(uri)) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
