"""Key layouts of autoencoder weights: official (DC-Gen) to ours and back. Ours is that of diffusers' AutoencoderDC."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from dcae15.errors import WeightsError
from dcae15.models.autoencoder import Autoencoder
from dcae15.models.spec import AutoencoderSpec
from dcae15.weights.choice import Wanted

Layout = Literal["official", "ours"]
StateDict = dict[str, Tensor]

_OFFICIAL = ("encoder.stages.", "decoder.stages.")
_OURS = ("encoder.down_blocks.", "decoder.up_blocks.")

AUTOENCODER = Wanted(
    "weights of a DC-AE autoencoder",
    lambda name: name.startswith((*_OFFICIAL, *_OURS)),
    "encoder.stages.1... (official) or encoder.down_blocks.1... (diffusers, dcae15)",
    parts=("encoder", "decoder", "quant_conv", "post_quant_conv"),  # these two no graph of ours has
)
"""What is looked for in a file that may hold other networks, too."""

_SHOWN = 3
_COUNTER = ".num_batches_tracked"
_KINDS = "weight|bias|running_mean|running_var|num_batches_tracked"

# Official name and ours within a block, without the final kind (weight, bias, ...); each * is an index that both share.
_BLOCK = (
    ("main.conv1.conv", "conv1"),
    ("main.conv2.conv", "conv2"),
    ("main.conv2.norm", "norm"),
    ("context_module.main.aggreg.*.0", "attn.to_qkv_multiscale.*.proj_in"),
    ("context_module.main.aggreg.*.1", "attn.to_qkv_multiscale.*.proj_out"),
    ("context_module.main.proj.conv", "attn.to_out"),
    ("context_module.main.proj.norm", "attn.norm_out"),
    ("local_module.main.inverted_conv.conv", "conv_out.conv_inverted"),
    ("local_module.main.depth_conv.conv", "conv_out.conv_depth"),
    ("local_module.main.point_conv.conv", "conv_out.conv_point"),
    ("local_module.main.point_conv.norm", "conv_out.norm"),
)
_QKV = "context_module.main.qkv.conv.weight"
_THIRDS = ("attn.to_q.weight", "attn.to_k.weight", "attn.to_v.weight")


def from_official(state_dict: Mapping[str, Tensor], spec: AutoencoderSpec) -> StateDict:
    """Rename the keys of official weights to ours; the tensors are shared, not copied.

    The projection to queries, keys and values becomes three matrices, views of it.

    Args:
        state_dict: Official weights.
        spec: Their graph. Only its names are known: latent shortcuts have names of their own, so that 1.0 is not taken for 1.1.

    Raises:
        WeightsError: A key is not one of the graph.
    """
    renamed, unknown = _rename(state_dict, _names(spec), _QKV)
    if unknown:
        raise WeightsError(
            f"the weights are not those of an official autoencoder of the graph {spec.to_dict()}: "
            f"unknown {_some(unknown)}"
        )
    for key in [key for key in renamed if key.endswith(_QKV)]:
        before, qkv = key.removesuffix(_QKV), renamed.pop(key)
        if qkv.ndim != 4 or qkv.shape[0] % 3:
            raise WeightsError(f"{key} has shape {tuple(qkv.shape)}, expected (3 x inner channels, channels, 1, 1)")
        block = _block_of(before)
        renamed |= {block + name: part for name, part in zip(_THIRDS, qkv.flatten(1).chunk(3), strict=True)}
    for key in [key for key in renamed if key.endswith(".attn.to_out.weight")]:
        renamed[key] = renamed[key].flatten(1)
    return renamed


def to_official(state_dict: Mapping[str, Tensor], spec: AutoencoderSpec) -> StateDict:
    """Undo ``from_official``: rename our keys to the official ones, and join queries, keys and values.

    Raises:
        WeightsError: A key is not one of our autoencoder of this graph.
    """
    weights = dict(state_dict)
    joined: StateDict = {}
    for key in [key for key in weights if key.endswith(_THIRDS[0])]:
        block = key.removesuffix(_THIRDS[0])
        if missing := [block + name for name in _THIRDS if block + name not in weights]:
            raise WeightsError(f"the weights are not those of a dcae15 autoencoder: missing {_some(missing)}")
        qkv = torch.cat([weights.pop(block + name) for name in _THIRDS])
        joined[_official_block(block) + _QKV] = qkv[:, :, None, None]
    for key in [key for key in weights if key.endswith(".attn.to_out.weight")]:
        weights[key] = weights[key][:, :, None, None]
    renamed, unknown = _rename(weights, tuple((ours, official) for official, ours in _names(spec)))
    if unknown:
        raise WeightsError(
            f"the weights are not those of a dcae15 autoencoder of the graph {spec.to_dict()}: unknown {_some(unknown)}"
        )
    return renamed | joined


def detect_layout(state_dict: Mapping[str, Tensor]) -> Layout:
    """Tell by its keys who wrote an autoencoder's weights; 'ours' is also the layout of diffusers.

    Raises:
        WeightsError: The keys are of neither layout.
    """
    if any(key.startswith(_OFFICIAL) for key in state_dict):
        return "official"
    if any(key.startswith(_OURS) for key in state_dict):
        return "ours"
    raise WeightsError(
        f"these are not {AUTOENCODER.what}: {_some(list(state_dict))}. Expected keys such as {AUTOENCODER.example}"
    )


def build_autoencoder(state_dict: Mapping[str, Tensor], spec: AutoencoderSpec) -> Autoencoder:
    """Return the autoencoder with these weights in our layout, on the CPU, float32, for evaluation; tensors are shared.

    The counters of batch norms may be missing: published files lack them, and inference does not read them.

    Raises:
        WeightsError: Keys are missing, not expected, or have another shape; the message names the first few.
    """
    with torch.device("meta"):
        autoencoder = Autoencoder(spec)
    expected = {key: tuple(value.shape) for key, value in autoencoder.state_dict().items()}
    weights = dict(state_dict)
    for key in expected.keys() - weights.keys():
        if key.endswith(_COUNTER):
            weights[key] = torch.zeros((), dtype=torch.long)
    found = {key: tuple(value.shape) for key, value in weights.items()}
    whole = [key for key, value in weights.items() if not value.is_floating_point() and not key.endswith(_COUNTER)]
    problems = {
        "missing": [f"{key} {shape}" for key, shape in expected.items() if key not in found],
        "not expected": [f"{key} {shape}" for key, shape in found.items() if key not in expected],
        "mis-shaped": [
            f"{key} has shape {found[key]}, expected {shape}"
            for key, shape in expected.items()
            if found.get(key, shape) != shape
        ],
        "quantised": [f"{key} is {weights[key].dtype}, expected floating point" for key in whole if key in expected],
    }
    if any(problems.values()):
        said = "; ".join(f"{what} {_some(keys)}" for what, keys in problems.items() if keys)
        raise WeightsError(f"the weights do not fit the model {spec.to_dict()}: {said}")
    autoencoder.load_state_dict(weights, assign=True)
    return autoencoder.float().eval()


def _names(spec: AutoencoderSpec) -> tuple[tuple[str, str], ...]:
    """Pairs of official name and ours."""
    main = "main." if spec.latent_shortcuts else ""  # what has a shortcut is called main
    stem, head = spec.encoder_depths[0], spec.decoder_depths[0]  # 0: the first (last) layer changes the size
    down = "conv" if spec.downsample == "conv" else "conv.conv"  # strided convolutions are no deeper than that
    return (
        (f"encoder.project_in.{'conv' if stem else down}", "encoder.conv_in" + ("" if stem else ".conv")),
        *((f"encoder.stages.*.op_list.*.{theirs}", f"encoder.down_blocks.*.*.{ours}") for theirs, ours in _BLOCK),
        (f"encoder.stages.*.op_list.*.main.{down}", "encoder.down_blocks.*.*.conv"),
        (f"encoder.project_out.{main}op_list.0.conv", "encoder.conv_out"),
        (f"decoder.project_in.{main}conv", "decoder.conv_in"),
        *((f"decoder.stages.*.op_list.*.{theirs}", f"decoder.up_blocks.*.*.{ours}") for theirs, ours in _BLOCK),
        ("decoder.stages.*.op_list.*.main.conv.conv", "decoder.up_blocks.*.*.conv"),
        ("decoder.project_out.op_list.0", "decoder.norm_out"),
        (
            f"decoder.project_out.op_list.2.{'conv' if head else 'conv.conv'}",
            "decoder.conv_out" + ("" if head else ".conv"),
        ),
    )


def _block_of(official: str) -> str:
    """Our name of a block: encoder.stages.3.op_list.0. is encoder.down_blocks.3.0."""
    inner = "down_blocks" if official.startswith("encoder") else "up_blocks"
    return official.replace("stages", inner).replace("op_list.", "")


def _official_block(ours: str) -> str:
    side, _, stage, block, _ = ours.split(".")
    return f"{side}.stages.{stage}.op_list.{block}."


def _rename(
    state_dict: Mapping[str, Tensor], names: tuple[tuple[str, str], ...], kept: str | None = None
) -> tuple[StateDict, list[str]]:
    """Return the renamed tensors and the keys without a name; keys that end with ``kept`` stay as they are."""
    patterns = [
        (re.compile(re.escape(old).replace(r"\*", r"(\d+)") + rf"\.({_KINDS})"), new.replace("*", "{}"))
        for old, new in names
    ]
    renamed, unknown = {}, []
    for key, value in state_dict.items():
        if kept and key.endswith(kept) and re.match(r"(en|de)coder\.stages\.\d+\.op_list\.\d+\.", key):
            renamed[key] = value
            continue
        for pattern, new in patterns:
            if match := pattern.fullmatch(key):
                *indices, kind = match.groups()
                renamed[f"{new.format(*indices)}.{kind}"] = value
                break
        else:
            unknown.append(key)
    return renamed, unknown


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"keys ({len(keys)}): " + ", ".join(keys[:_SHOWN]) + more if keys else "no keys at all"
