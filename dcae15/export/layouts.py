"""Key layouts of autoencoder weights: official (DC-Gen) to ours and back. Ours is that of diffusers' AutoencoderDC."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from dcae15.errors import WeightsError
from dcae15.models.autoencoder import Autoencoder, AutoencoderSpec

Layout = Literal["official", "ours"]
StateDict = dict[str, Tensor]

# Official name and ours, without the final .weight or .bias; each * is an index that both share.
_NAMES = (
    ("encoder.project_in.conv.conv", "encoder.conv_in.conv"),
    ("encoder.stages.*.op_list.*.main.conv1.conv", "encoder.down_blocks.*.*.conv1"),
    ("encoder.stages.*.op_list.*.main.conv2.conv", "encoder.down_blocks.*.*.conv2"),
    ("encoder.stages.*.op_list.*.main.conv2.norm", "encoder.down_blocks.*.*.norm"),
    ("encoder.stages.*.op_list.*.main.conv.conv", "encoder.down_blocks.*.*.conv"),
    ("encoder.project_out.op_list.0.conv", "encoder.conv_out"),
    ("decoder.project_in.conv", "decoder.conv_in"),
    ("decoder.stages.*.op_list.*.main.conv1.conv", "decoder.up_blocks.*.*.conv1"),
    ("decoder.stages.*.op_list.*.main.conv2.conv", "decoder.up_blocks.*.*.conv2"),
    ("decoder.stages.*.op_list.*.main.conv2.norm", "decoder.up_blocks.*.*.norm"),
    ("decoder.stages.*.op_list.*.main.conv.conv", "decoder.up_blocks.*.*.conv"),
    ("decoder.project_out.op_list.0", "decoder.norm_out"),
    ("decoder.project_out.op_list.2.conv.conv", "decoder.conv_out.conv"),
)
_SHOWN = 3


def from_official(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Rename the keys of official 1.1 or 1.5 weights to ours; the tensors are shared, not copied.

    Raises:
        WeightsError: A key is not one of an official 1.1 or 1.5 autoencoder.
    """
    return _rename(state_dict, _NAMES, "an official DC-AE 1.1 or 1.5 autoencoder")


def to_official(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Undo ``from_official``: rename our keys to the official ones.

    Raises:
        WeightsError: A key is not one of our 1.1 or 1.5 autoencoder.
    """
    return _rename(state_dict, tuple((ours, official) for official, ours in _NAMES), "a dcae15 autoencoder")


def detect_layout(state_dict: Mapping[str, Tensor]) -> Layout:
    """Tell by its keys who wrote an autoencoder's weights; 'ours' is also the layout of diffusers.

    Raises:
        WeightsError: The keys are of neither layout.
    """
    if any(key.startswith(("encoder.stages.", "decoder.stages.")) for key in state_dict):
        return "official"
    if any(key.startswith(("encoder.down_blocks.", "decoder.up_blocks.")) for key in state_dict):
        return "ours"
    raise WeightsError(
        f"these are not weights of a DC-AE autoencoder: {_some(list(state_dict))}. Expected keys such as "
        "encoder.stages.1... (official) or encoder.down_blocks.1... (diffusers, dcae15)"
    )


def check_fit(state_dict: Mapping[str, Tensor], spec: AutoencoderSpec) -> None:
    """Check that weights in our layout have exactly the keys and shapes of the graph.

    Raises:
        WeightsError: Keys are missing, not expected, or have another shape; the message names the first few.
    """
    with torch.device("meta"):
        expected = {key: tuple(value.shape) for key, value in Autoencoder(spec).state_dict().items()}
    missing = [f"{key} {shape}" for key, shape in expected.items() if key not in state_dict]
    unexpected = [f"{key} {tuple(value.shape)}" for key, value in state_dict.items() if key not in expected]
    misshapen = [
        f"{key} has shape {tuple(state_dict[key].shape)}, expected {shape}"
        for key, shape in expected.items()
        if key in state_dict and tuple(state_dict[key].shape) != shape
    ]
    problems = [
        f"{what} {_some(keys)}"
        for what, keys in (("missing", missing), ("not expected", unexpected), ("mis-shaped", misshapen))
        if keys
    ]
    if problems:
        raise WeightsError(f"the weights do not fit the model {spec.to_dict()}: " + "; ".join(problems))


def _rename(state_dict: Mapping[str, Tensor], names: tuple[tuple[str, str], ...], source: str) -> StateDict:
    patterns = [(re.compile(re.escape(old).replace(r"\*", r"(\d+)") + r"\.(weight|bias)"), new) for old, new in names]
    renamed, unknown = {}, []
    for key, value in state_dict.items():
        for pattern, new in patterns:
            if match := pattern.fullmatch(key):
                *indices, kind = match.groups()
                renamed[new.replace("*", "{}").format(*indices) + "." + kind] = value
                break
        else:
            unknown.append(key)
    if unknown:
        hint = ""
        if any(part in key for key in unknown for part in ("context_module", ".attn.", "project_out.main", "running_")):
            hint = "; linear attention, batch norm and latent shortcuts (DC-AE 1.0, Sana) are not supported"
        raise WeightsError(f"the weights are not those of {source}: unknown {_some(unknown)}{hint}")
    return renamed


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"keys ({len(keys)}): " + ", ".join(keys[:_SHOWN]) + more if keys else "no keys at all"
