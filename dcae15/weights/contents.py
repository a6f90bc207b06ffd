"""The content of a weights file: what kind it is, whatever its name says, and the values in it."""

from __future__ import annotations

import io
import pickle
import re
import warnings
import zipfile
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from dcae15 import storage
from dcae15.errors import WeightsError

_LARGEST_HEADER = 100_000_000  # bytes of JSON at the beginning of a safetensors file; safetensors refuses more
_SHOWN = 3


def values_of(data: bytes, uri: str) -> Any:
    """Return what a weights file holds: named tensors, or whatever else was saved with torch and is no Python object.

    Args:
        data: its content, which decides what it is: suffixes are wrong at times.
        uri: its name, for messages.

    Raises:
        WeightsError: it is no weights file, is truncated, or holds pickled objects other than tensors.
    """
    if 2 <= int.from_bytes(data[:8], "little") <= _LARGEST_HEADER and data[8:9] == b"{":
        try:
            return safetensors.torch.load(data)
        except SafetensorError as error:
            raise WeightsError(f"{uri} is a safetensors file that {_cut(data)}: {error}") from error
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise WeightsError(
                f"{uri} is a safetensors file with values that torch {torch.__version__} cannot hold ({error}); convert them, "
                "best to float32"
            ) from error
    if data[:4] == b"PK\x03\x04":
        _require_torch_archive(data, uri)
    elif data[:1] != b"\x80":  # the first byte of a pickle, which files of torch before 1.6 are
        found = storage.stand_in(data[: storage.HEAD_BYTES])
        said = f"it is {found}" if found else f"its first bytes are {data[:8].hex(' ')}"
        raise WeightsError(f"{uri} is neither a safetensors nor a torch file: {said}")
    try:
        with warnings.catch_warnings(action="ignore"):  # of old formats and protocols
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|global) `?([\w.]+)", str(error))
        what = f" ({named[1]})" if named else ""
        raise WeightsError(
            f"{uri} holds pickled objects other than tensors{what}, or is no torch file; they are never unpickled. Where you trust "
            "the file, save its state dict alone with the code that it comes from, best as safetensors: "
            "safetensors.torch.save_file(state_dict, 'weights.safetensors')"
        ) from error
    except Exception as error:  # torch raises whatever the bytes lead to
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise WeightsError(f"{uri} is a torch file that {_cut(data)}: {reason}") from error


def _cut(data: bytes) -> str:
    return f"is truncated or damaged ({len(data):,} bytes)"


def _require_torch_archive(data: bytes, uri: str) -> None:
    """Raise WeightsError for a zip archive that torch cannot load."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise WeightsError(
            f"{uri} is a torch file or another zip archive that {_cut(data)}; fetch or copy it again"
        ) from error
    if any(re.fullmatch(r"[^/]+/code/.*", name) for name in names):
        raise WeightsError(
            f"{uri} is a TorchScript archive, which holds code; save the weights alone: "
            "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pt')"
        )
    if not any(name.endswith("data.pkl") for name in names):
        kind = (
            "an archive of numpy arrays (.npz)" if names and all(n.endswith(".npy") for n in names) else "a zip archive"
        )
        shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
        raise WeightsError(
            f"{uri} is {kind} of {len(names):,} files ({shown}), not weights; unpack it, and give what lies in it"
        )
