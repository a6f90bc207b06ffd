"""Weights that others wrote: read the file without unpickling anything, and build the autoencoder that fits."""

from __future__ import annotations

import torch

from dcae15 import storage
from dcae15.errors import ConfigError
from dcae15.export.foreign_config import spec_from_config, spec_from_official
from dcae15.export.layouts import check_fit, detect_layout, from_official
from dcae15.models.autoencoder import Autoencoder
from dcae15.weights import is_weights_file, read_state_dict


def load_foreign_autoencoder(uri: str, config: str | None = None) -> Autoencoder:
    """Build an autoencoder from weights in the official or the diffusers layout, recognised by their keys.

    Args:
        uri: A weights file; or a folder with config.json and diffusion_pytorch_model.safetensors (diffusers) or
            model.safetensors (official).
        config: Name of a published model or official dotlist. Needed for a file; for a folder it replaces config.json.

    Returns:
        The autoencoder in float32 (whatever the file holds), on the CPU, in evaluation mode.

    Raises:
        ConfigError: The configuration is missing, unknown or asks for an unsupported feature.
        StorageError: A file cannot be read.
        WeightsError: The weights are damaged, foreign, or do not fit the configuration.
    """
    if is_weights_file(uri):
        if config is None:
            raise ConfigError(
                f"{uri} is a bare weights file, which does not say its configuration; give the name of a published "
                "model (dc-ae-f32c128-1.5) or the official dotlist"
            )
        spec = spec_from_official(config)
    else:
        values = storage.read_json(storage.join(uri, "config.json"))
        if not isinstance(values, dict):
            raise ConfigError(f"{storage.join(uri, 'config.json')} is not a JSON object")
        spec = spec_from_config(values) if config is None else spec_from_official(config)
        uri = storage.join(
            uri, "model.safetensors" if "model_name" in values else "diffusion_pytorch_model.safetensors"
        )
    weights = read_state_dict(uri)
    if detect_layout(weights) == "official":
        weights = from_official(weights)
    check_fit(weights, spec)
    with torch.device("meta"):
        autoencoder = Autoencoder(spec)
    autoencoder.load_state_dict(weights, assign=True)
    return autoencoder.float().eval()
