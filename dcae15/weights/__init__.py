"""Named tensors from files that others wrote, without unpickling anything else."""

from __future__ import annotations

import io
import pickle
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from dcae15 import storage
from dcae15.errors import WeightsError

_TORCH_SUFFIXES = (".pt", ".pth")
_SUFFIXES = (".safetensors", *_TORCH_SUFFIXES)
_TOP_KEYS = ("state_dict", "model_state_dict")


def is_weights_file(uri: str) -> bool:
    """Tell by its name whether a URI is a bare weights file."""
    return uri.endswith(_SUFFIXES)


def read_state_dict(uri: str, ema: float | None = None) -> dict[str, Tensor]:
    """Read named tensors from a .safetensors, .pt or .pth file, onto the CPU.

    A .pt file may hold them under the key ``state_dict`` or, as checkpoints of the official trainer do, ``model_state_dict``. Such
    a checkpoint may also have moving averages: ``ema``, a dict from decay to state dict. Pickled objects other than tensors are
    refused. ``ema`` is the decay of the moving average to take; None takes the weights of the last step.

    Raises:
        StorageError: The file cannot be read.
        WeightsError: The file is of another type, truncated, holds something else, or has no such average.
    """
    _check_suffix(uri)
    return parse_state_dict(storage.read_bytes(uri), uri, ema)


def parse_state_dict(data: bytes, uri: str, ema: float | None = None) -> dict[str, Tensor]:
    """Read named tensors from the content of the file ``uri``, see `read_state_dict`."""
    _check_suffix(uri)
    try:
        if uri.endswith(_TORCH_SUFFIXES):
            return _named_tensors(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), uri, ema)
        if ema is not None:
            raise WeightsError(f"{uri} is a safetensors file, which has no moving averages; do not ask for ema {ema:g}")
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


def _check_suffix(uri: str) -> None:
    if not is_weights_file(uri):
        raise WeightsError(f"cannot read weights from {uri}: expected a file ending with {', '.join(_SUFFIXES)}")


def _named_tensors(value: Any, uri: str, ema: float | None) -> dict[str, Tensor]:
    if ema is not None:
        averages = value.get("ema") if isinstance(value, dict) else None
        averages = averages if isinstance(averages, dict) else {}
        found = {float(decay): state for decay, state in averages.items() if isinstance(decay, (int, float))}
        if ema not in found:
            have = f"it has {', '.join(f'{decay:g}' for decay in found)}" if found else "it has none under 'ema'"
            raise WeightsError(f"{uri} has no moving average of decay {ema:g}: {have}")
        value = found[ema]
    elif isinstance(value, dict):
        value = next((value[key] for key in _TOP_KEYS if isinstance(value.get(key), dict)), value)
    if not isinstance(value, dict) or not all(isinstance(v, Tensor) for v in value.values()):
        raise WeightsError(f"{uri} does not hold a state dict (names and tensors) at its top or under 'state_dict'")
    return value
