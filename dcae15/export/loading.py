"""Weights that others wrote: read the file without unpickling anything, and build the autoencoder that fits."""

from __future__ import annotations

import io
import pickle
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from dcae15 import storage
from dcae15.errors import ConfigError, WeightsError
from dcae15.export.foreign_config import spec_from_config, spec_from_official
from dcae15.export.layouts import check_fit, detect_layout, from_official
from dcae15.models.autoencoder import Autoencoder

_TORCH_SUFFIXES = (".pt", ".pth")
_SUFFIXES = (".safetensors", *_TORCH_SUFFIXES)


def read_state_dict(uri: str) -> dict[str, Tensor]:
    """Read named tensors from a .safetensors, .pt or .pth file, onto the CPU.

    A .pt file may hold them under the key ``state_dict``. Pickled objects other than tensors are refused.

    Raises:
        StorageError: The file cannot be read.
        WeightsError: The file is of another type, truncated, or holds something else.
    """
    if not uri.endswith(_SUFFIXES):
        raise WeightsError(f"cannot read weights from {uri}: expected a file ending with {', '.join(_SUFFIXES)}")
    data = storage.read_bytes(uri)
    try:
        if uri.endswith(_TORCH_SUFFIXES):
            return _named_tensors(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), uri)
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise WeightsError(f"{uri} is not a safetensors file, or is truncated ({len(data)} bytes): {error}") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{uri} holds pickled objects other than tensors, or is no torch file; they are never unpickled. "
            "Save the bare state dict again, best as safetensors."
        ) from error
    except (EOFError, RuntimeError, ValueError, KeyError) as error:
        raise WeightsError(f"{uri} is not a torch file, or is truncated ({len(data)} bytes): {error}") from error


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
    if uri.endswith(_SUFFIXES):
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


def _named_tensors(value: Any, uri: str) -> dict[str, Tensor]:
    if isinstance(value, dict) and isinstance(value.get("state_dict"), dict):
        value = value["state_dict"]
    if not isinstance(value, dict) or not all(isinstance(v, Tensor) for v in value.values()):
        raise WeightsError(f"{uri} does not hold a state dict (names and tensors) at its top or under 'state_dict'")
    return value
