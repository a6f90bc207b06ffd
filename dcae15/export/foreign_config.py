"""Configurations that others read and write: official dotlists and names, diffusers' config.json, and AutoencoderSpec."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dcae15.errors import ConfigError
from dcae15.models.presets import PRESETS, preset, published_name
from dcae15.models.spec import AutoencoderSpec

# Our field -> their field, the value that the reader assumes when it is absent, and their values with ours.
_Names = dict[str, tuple[str, Any, dict[Any, Any]]]

_OFFICIAL_NUMBERS = {
    "latent_channels": "latent_channels",
    "encoder_widths": "encoder.width_list",
    "encoder_depths": "encoder.depth_list",
    "decoder_widths": "decoder.width_list",
    "decoder_depths": "decoder.depth_list",
}
_OFFICIAL_BLOCKS = {"ResBlock": "ResBlock", "EViTGLU": "EViTGLU", "EViTS5GLU": "EViTS5GLU"}
_OFFICIAL_NAMES: _Names = {
    "encoder_blocks": ("encoder.block_type", "ResBlock", _OFFICIAL_BLOCKS),
    "decoder_blocks": ("decoder.block_type", "ResBlock", _OFFICIAL_BLOCKS),
    "decoder_norms": ("decoder.norm", "trms2d", {"trms2d": "rms_norm", "bn2d": "batch_norm"}),
    "decoder_acts": ("decoder.act", "silu", {"silu": "silu", "relu": "relu"}),
    "out_act": ("decoder.out_act", "relu", {"silu": "silu", "relu": "relu"}),
    "downsample": (
        "encoder.downsample_block_type",
        "ConvPixelUnshuffle",
        {"ConvPixelUnshuffle": "pixel_unshuffle", "Conv": "conv"},
    ),
    "upsample": (
        "decoder.upsample_block_type",
        "ConvPixelShuffle",
        {"ConvPixelShuffle": "pixel_shuffle", "InterpolateConv": "interpolate"},
    ),
}
_OFFICIAL_SHORTCUTS: dict[str, tuple[Any, dict[Any, bool]]] = {
    "encoder.out_shortcut": ("averaging", {None: False, "averaging": True}),
    "decoder.in_shortcut": ("duplicating", {None: False, "duplicating": True}),
}
# Field -> (assumed when absent, values that our graphs implement).
_OFFICIAL_FIXED: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "in_channels": (3, (3,)),
    "use_quant_conv": (False, (False,)),
    "encoder.norm": ("trms2d", ("trms2d",)),
    "encoder.act": ("silu", ("silu",)),
    "encoder.downsample_match_channel": (True, (True,)),
    "encoder.downsample_shortcut": ("averaging", ("averaging",)),
    "encoder.out_norm": (None, (None,)),
    "encoder.out_act": (None, (None,)),
    "encoder.out_block_type": ("ConvLayer", ("ConvLayer", "AdaptiveOutputConvLayer")),
    "encoder.double_latent": (False, (False,)),
    "decoder.upsample_match_channel": (True, (True,)),
    "decoder.upsample_shortcut": ("duplicating", ("duplicating",)),
    "decoder.out_norm": ("trms2d", ("trms2d",)),
    "decoder.in_block_type": ("ConvLayer", ("ConvLayer", "AdaptiveInputConvLayer")),
}
_OFFICIAL_IGNORED = {"pretrained_path", "pretrained_source", "pretrained_ema", "scaling_factor"}

_DIFFUSERS_NUMBERS = {
    "latent_channels": "latent_channels",
    "encoder_widths": "encoder_block_out_channels",
    "encoder_depths": "encoder_layers_per_block",
    "decoder_widths": "decoder_block_out_channels",
    "decoder_depths": "decoder_layers_per_block",
}
_DIFFUSERS_BLOCKS = {"ResBlock": "ResBlock", "EfficientViTBlock": "EViTGLU"}
_DIFFUSERS_NAMES: _Names = {
    "encoder_blocks": ("encoder_block_types", "ResBlock", _DIFFUSERS_BLOCKS),
    "decoder_blocks": ("decoder_block_types", "ResBlock", _DIFFUSERS_BLOCKS),
    "decoder_norms": ("decoder_norm_types", "rms_norm", {"rms_norm": "rms_norm", "batch_norm": "batch_norm"}),
    "decoder_acts": ("decoder_act_fns", "silu", {"silu": "silu", "relu": "relu"}),
    "out_act": ("decoder_conv_act_fn", "relu", {"silu": "silu", "relu": "relu"}),
    "downsample": (
        "downsample_block_type",
        "pixel_unshuffle",
        {"pixel_unshuffle": "pixel_unshuffle", "conv": "conv"},
    ),
    "upsample": (
        "upsample_block_type",
        "pixel_shuffle",
        {"pixel_shuffle": "pixel_shuffle", "interpolate": "interpolate"},
    ),
}
_DIFFUSERS_SHORTCUTS: dict[str, tuple[Any, dict[Any, bool]]] = {
    "encoder_out_shortcut": (True, {False: False, True: True}),
    "decoder_in_shortcut": (True, {False: False, True: True}),
}
_DIFFUSERS_FIXED: dict[str, tuple[Any, tuple[Any, ...]]] = {"in_channels": (3, (3,)), "attention_head_dim": (32, (32,))}
_DIFFUSERS_SCALES = ((), (), (), (5,), (5,), (5,))  # what diffusers assumes


def spec_from_official(text: str) -> AutoencoderSpec:
    """Read an official configuration.

    Args:
        text: The name of a published model, with or without its organisation ("dc-ai/dc-ae-f64c128-1.5"), or the
            official dotlist ("latent_channels=16 encoder.width_list=[8,16,32,32] ...").

    Raises:
        ConfigError: The name is unknown, the dotlist is malformed or incomplete, or it asks for a feature that no
            published DC-AE autoencoder has.
    """
    if "=" not in text:
        return preset(text)
    try:
        values = OmegaConf.to_container(OmegaConf.from_dotlist(re.split(r"\s+(?=[\w.]+=)", text.strip())))
    except (OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"the autoencoder configuration {text!r} is not a dotlist of key=value: {error}") from error
    flat: dict[Any, Any] = {}
    for key, value in values.items() if isinstance(values, dict) else ():
        nested = key in ("encoder", "decoder") and isinstance(value, dict)
        flat.update({f"{key}.{inner}": v for inner, v in value.items()} if nested else {key: value})
    known = {*_OFFICIAL_FIXED, *_OFFICIAL_SHORTCUTS, *_OFFICIAL_NUMBERS.values(), *_OFFICIAL_IGNORED}
    known |= {theirs for theirs, _, _ in _OFFICIAL_NAMES.values()}
    if unknown := sorted(map(str, set(flat) - known)):
        raise ConfigError(f"unknown fields in the official autoencoder configuration: {', '.join(unknown)}")
    _check_fixed(flat, _OFFICIAL_FIXED)
    return AutoencoderSpec(
        **_numbers(flat, _OFFICIAL_NUMBERS),
        **{ours: _translated(flat, *entry) for ours, entry in _OFFICIAL_NAMES.items()},
        latent_shortcuts=_shortcuts(flat, _OFFICIAL_SHORTCUTS),
    )


def spec_from_diffusers(config: Mapping[str, Any]) -> AutoencoderSpec:
    """Read the config.json of a diffusers ``AutoencoderDC``.

    Its scaling factor is not part of the graph and is ignored.

    Raises:
        ConfigError: The configuration is of another class, is incomplete, or asks for a feature that no published DC-AE
            autoencoder has.
    """
    if config.get("_class_name", "AutoencoderDC") != "AutoencoderDC":
        raise ConfigError(f"the diffusers configuration is of class {config['_class_name']}, not AutoencoderDC")
    _check_fixed(config, _DIFFUSERS_FIXED)
    numbers = _numbers(config, _DIFFUSERS_NUMBERS)
    names = {ours: _translated(config, *entry) for ours, entry in _DIFFUSERS_NAMES.items()}
    for side in ("encoder", "decoder"):
        names[f"{side}_blocks"] = _with_scales(config, side, names[f"{side}_blocks"], len(numbers["encoder_widths"]))
    return AutoencoderSpec(**numbers, **names, latent_shortcuts=_shortcuts(config, _DIFFUSERS_SHORTCUTS))


def spec_from_config(config: Mapping[str, Any]) -> AutoencoderSpec:
    """Read the config.json beside a weights file: official ({"model_name": ...} or {"dotlist": ...}) or of diffusers."""
    for key in ("dotlist", "model_name"):
        if key in config:
            return spec_from_official(str(config[key]))
    return spec_from_diffusers(config)


def official_config(spec: AutoencoderSpec, name: str = "") -> dict[str, str]:
    """Return the config.json of the official layout.

    Args:
        spec: The graph.
        name: Name of the model that the weights come from, if they do from one.

    Returns:
        ``model_name`` where a published model has this graph (``name`` first), else ``dotlist``: the official code has names
        for published graphs only, and builds others from its dotlist.
    """
    known = published_name(name)
    if PRESETS.get(known) == spec:
        return {"model_name": known}
    for published, graph in PRESETS.items():
        if graph == spec:
            return {"model_name": published}
    return {"dotlist": official_dotlist(spec)}


def official_dotlist(spec: AutoencoderSpec) -> str:
    """Undo ``spec_from_official``: write a graph as the official dotlist; without latent shortcuts it decodes prefixes."""
    words = {theirs: getattr(spec, ours) for ours, theirs in _OFFICIAL_NUMBERS.items()}
    for ours, (theirs, _, values) in _OFFICIAL_NAMES.items():
        words[theirs] = _back(getattr(spec, ours), values)
    if not spec.latent_shortcuts:
        words |= {"encoder.out_shortcut": "null", "decoder.in_shortcut": "null"}
        words["encoder.out_block_type"] = "AdaptiveOutputConvLayer"
        words["decoder.in_block_type"] = "AdaptiveInputConvLayer"
    texts = {k: f"[{','.join(map(str, v))}]" if isinstance(v, (list, tuple)) else str(v) for k, v in words.items()}
    return " ".join(f"{key}={value}" for key, value in texts.items())


def diffusers_config(spec: AutoencoderSpec, scaling_factor: float) -> dict[str, Any]:
    """Return the config.json with which ``diffusers.AutoencoderDC`` builds this graph."""
    config: dict[str, Any] = {"_class_name": "AutoencoderDC", "in_channels": 3, "attention_head_dim": 32}
    config |= {theirs: getattr(spec, ours) for ours, theirs in _DIFFUSERS_NUMBERS.items()}
    config |= {theirs: _back(getattr(spec, ours), values) for ours, (theirs, _, values) in _DIFFUSERS_NAMES.items()}
    for side in ("encoder", "decoder"):
        blocks = getattr(spec, f"{side}_blocks")
        config[f"{side}_block_types"] = ["ResBlock" if b == "ResBlock" else "EfficientViTBlock" for b in blocks]
        config[f"{side}_qkv_multiscales"] = [[5] if block == "EViTS5GLU" else [] for block in blocks]
    shortcuts = dict.fromkeys(_DIFFUSERS_SHORTCUTS, spec.latent_shortcuts)
    return {
        **{key: list(value) if isinstance(value, tuple) else value for key, value in config.items()},
        **shortcuts,
        "scaling_factor": scaling_factor,
    }


def _check_fixed(config: Mapping[str, Any], fixed: dict[str, tuple[Any, tuple[Any, ...]]]) -> None:
    for name, (default, supported) in fixed.items():
        value = config.get(name, default)
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if item not in supported:
                raise _unsupported(name, value, name in config, supported)


def _numbers(config: Mapping[str, Any], fields: dict[str, str]) -> dict[str, Any]:
    if missing := [name for name in fields.values() if name not in config]:
        raise ConfigError(f"the autoencoder configuration misses {', '.join(missing)}")
    return {ours: config[theirs] for ours, theirs in fields.items()}


def _translated(config: Mapping[str, Any], name: str, default: Any, values: dict[Any, Any]) -> Any:
    value = config.get(name, default)
    items = value if isinstance(value, (list, tuple)) else [value]
    for item in items:
        if not isinstance(item, str) or item not in values:
            raise _unsupported(name, value, name in config, tuple(values))
    return [values[item] for item in items] if isinstance(value, (list, tuple)) else values[value]


def _shortcuts(config: Mapping[str, Any], fields: dict[str, tuple[Any, dict[Any, bool]]]) -> bool:
    found: dict[str, bool] = {}
    for name, (default, values) in fields.items():
        value = config.get(name, default)
        if not isinstance(value, (str, bool, type(None))) or value not in values:
            raise _unsupported(name, value, name in config, tuple(values))
        found[name] = values[value]
    if len(set(found.values())) > 1:
        said = ", ".join(
            f"{name} = {config.get(name, fields[name][0])}{'' if name in config else ' (the default)'}"
            for name in found
        )
        raise ConfigError(
            f"{said}: published graphs have both latent shortcuts or none; give the fields the same meaning"
        )
    return next(iter(found.values()))


def _with_scales(config: Mapping[str, Any], side: str, blocks: Any, stages: int) -> list[str]:
    """Tell attention at one scale from that at two."""
    name = f"{side}_qkv_multiscales"
    blocks = [blocks] * stages if isinstance(blocks, str) else list(blocks)
    given = config.get(name, _DIFFUSERS_SCALES)
    if not isinstance(given, (list, tuple)):
        raise ConfigError(f"{name} is {given}; it must be a list with [] or [5] for each stage")
    scales = [tuple(s) if isinstance(s, (list, tuple)) else s for s in given]
    for i, block in enumerate(blocks):
        if block != "ResBlock":
            if i >= len(scales) or scales[i] not in ((), (5,)):
                found = scales[i] if i < len(scales) else "missing"
                raise ConfigError(
                    f"{name}[{i}] is {found}; {side}_block_types[{i}] is EfficientViTBlock, which needs [] or [5] there"
                )
            blocks[i] = "EViTS5GLU" if scales[i] else "EViTGLU"
    return blocks


def _unsupported(name: str, value: Any, given: bool, supported: tuple[Any, ...]) -> ConfigError:
    origin = "" if given else " (the default of a configuration that does not give it)"
    return ConfigError(
        f"{name} = {value}{origin} is not supported; the published DC-AE graphs have {' or '.join(map(str, supported))}"
    )


def _back(value: Any, values: dict[Any, Any]) -> Any:
    names = {ours: theirs for theirs, ours in values.items()}
    return names.get(value, value) if isinstance(value, str) else [names.get(item, item) for item in value]
