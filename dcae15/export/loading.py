"""Weights that others wrote: read the file without unpickling anything, and build the autoencoder that fits."""

from __future__ import annotations

from typing import Any

from dcae15 import storage
from dcae15.errors import ConfigError, StorageError, WeightsError
from dcae15.export.foreign_config import spec_from_config, spec_from_official
from dcae15.export.layouts import build, detect_layout, from_official
from dcae15.models.autoencoder import Autoencoder, AutoencoderSpec
from dcae15.weights import is_weights_file, read_state_dict

_FOLDER_FILES = ("diffusion_pytorch_model.safetensors", "model.safetensors")


def foreign_weights(uri: str) -> str:
    """Return the URI of the weights file of a folder with config.json, official or of diffusers; a file is its own.

    Raises:
        StorageError: The folder has none; the message names what was expected.
    """
    if is_weights_file(uri):
        return uri
    files = [storage.join(uri, name) for name in _FOLDER_FILES]
    for file in files:
        if storage.exists(file):
            return file
    raise StorageError(f"{uri} holds no weights: expected {' (diffusers) or '.join(_FOLDER_FILES)} (official) in it")


def foreign_config(uri: str) -> dict[str, Any]:
    """Return the config.json of a folder.

    Raises:
        ConfigError: It is no JSON object.
        StorageError: It cannot be read.
    """
    path = storage.join(uri, "config.json")
    values = storage.read_json(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is not a JSON object")
    return values


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
            return spec_from_config(foreign_config(uri))
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
    file = foreign_weights(uri)
    weights = read_state_dict(file, ema)
    try:
        return build(from_official(weights, spec) if detect_layout(weights) == "official" else weights, spec)
    except WeightsError as error:
        mending = (
            "give the graph that they were trained with: autoencoder.preset=NAME or the fields of a custom graph"
            if is_weights_file(uri)
            else "its config.json must describe the graph that they were trained with"
        )
        raise WeightsError(f"{file}: {error}; {mending}") from error
