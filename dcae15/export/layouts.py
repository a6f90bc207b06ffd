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


def from_official(state_dict: Mapping[str, Tensor], spec: AutoencoderSpec | None = None) -> StateDict:
    """Rename the keys of official weights to ours; the tensors are shared, not copied.

    The projection to queries, keys and values becomes three matrices, views of it.

    Args:
        state_dict: Official weights.
        spec: Their graph. Given, only the names of this graph are known: latent shortcuts have names of their own, so that
            1.0 is not taken for 1.1. None takes the names that published graphs with such blocks have.

    Raises:
        WeightsError: A key is not one of the graph, or none of an official DC-AE autoencoder.
    """
    shortcuts = any(".project_out.main." in key or ".project_in.main." in key for key in state_dict)
    stem = any(key.startswith("encoder.stages.0.") for key in state_dict)
    strided = any(re.fullmatch(r"encoder\.stages\.\d+\.op_list\.\d+\.main\.conv\.weight", key) for key in state_dict)
    head = any(key.startswith("decoder.stages.0.") for key in state_dict)
    names = _names(spec) if spec else _official_names(shortcuts, stem, head, strided)
    renamed, unknown = _rename(state_dict, names, _QKV)
    if unknown:
        raise WeightsError(f"the weights are not those of {_described('an official', spec)}: unknown {_some(unknown)}")
    for key in [key for key in renamed if key.endswith(_QKV)]:
        before, qkv = key.removesuffix(_QKV), renamed.pop(key)
        if qkv.ndim != 4 or qkv.shape[0] % 3:
            raise WeightsError(f"{key} has shape {tuple(qkv.shape)}, expected (3 x inner channels, channels, 1, 1)")
        block = _block_of(before)
        renamed |= {block + name: part for name, part in zip(_THIRDS, qkv.flatten(1).chunk(3), strict=True)}
    for key in [key for key in renamed if key.endswith(".attn.to_out.weight")]:
        renamed[key] = renamed[key].flatten(1)
    return renamed


def to_official(state_dict: Mapping[str, Tensor], spec: AutoencoderSpec | None = None) -> StateDict:
    """Undo ``from_official``: rename our keys to the official ones, and join queries, keys and values.

    Args:
        state_dict: Weights in our layout.
        spec: Their graph; None takes the published one with such blocks: latent shortcuts come with attention, strided
            convolutions with a plain first layer.

    Raises:
        WeightsError: A key is not one of our autoencoders.
    """
    if spec:
        names = _names(spec)
    else:
        plain = [f"{part}.weight" in state_dict for part in ("encoder.conv_in", "decoder.conv_out")]
        names = _official_names(any(".attn." in key for key in state_dict), *plain, strided=plain[0])
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
    renamed, unknown = _rename(weights, tuple((ours, official) for official, ours in names))
    if unknown:
        raise WeightsError(f"the weights are not those of {_described('a dcae15', spec)}: unknown {_some(unknown)}")
    return renamed | joined


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

    The counters of batch norms may be missing: published files lack them, and inference does not read them.

    Raises:
        WeightsError: Keys are missing, not expected, or have another shape; the message names the first few.
    """
    with torch.device("meta"):
        expected = {key: tuple(value.shape) for key, value in Autoencoder(spec).state_dict().items()}
    missing = [
        f"{key} {shape}" for key, shape in expected.items() if key not in state_dict and not key.endswith(_COUNTER)
    ]
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


def build(state_dict: Mapping[str, Tensor], spec: AutoencoderSpec) -> Autoencoder:
    """Return the autoencoder with these weights in our layout, on the CPU, float32, for evaluation; tensors are shared.

    Raises:
        WeightsError: They do not fit, see `check_fit`.
    """
    check_fit(state_dict, spec)
    with torch.device("meta"):
        autoencoder = Autoencoder(spec)
    weights = dict(state_dict)
    for key in autoencoder.state_dict().keys() - weights.keys():
        weights[key] = torch.zeros((), dtype=torch.long)
    autoencoder.load_state_dict(weights, assign=True)
    return autoencoder.float().eval()


def _names(spec: AutoencoderSpec) -> tuple[tuple[str, str], ...]:
    return _official_names(
        spec.latent_shortcuts, bool(spec.encoder_depths[0]), bool(spec.decoder_depths[0]), spec.downsample == "conv"
    )


def _official_names(shortcuts: bool, stem: bool, head: bool, strided: bool) -> tuple[tuple[str, str], ...]:
    """Pairs of official name and ours.

    Args:
        shortcuts: The latent's two layers have shortcuts; what has one is called main.
        stem: The encoder's first layer is a plain convolution.
        head: The decoder's last layer is a plain convolution.
        strided: The encoder halves with strided convolutions; these are no deeper than that.
    """
    main = "main." if shortcuts else ""
    down = "conv" if strided else "conv.conv"
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


def _described(whose: str, spec: AutoencoderSpec | None) -> str:
    return f"{whose} autoencoder of the graph {spec.to_dict()}" if spec else f"{whose} DC-AE autoencoder"


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"keys ({len(keys)}): " + ", ".join(keys[:_SHOWN]) + more if keys else "no keys at all"
