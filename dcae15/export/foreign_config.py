"""Configurations that others read and write: official dotlists and names, diffusers' config.json, and AutoencoderSpec."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dcae15.errors import ConfigError
from dcae15.models.presets import PRESETS, preset, published_name
from dcae15.models.spec import ACTS, BLOCKS, DOWNSAMPLES, NORMS, UPSAMPLES, AutoencoderSpec


@dataclass(frozen=True)
class _Dialect:
    """How others write a graph. What a configuration does not give has the value that their reader assumes."""

    numbers: dict[str, str]  # our field -> their field
    # our field -> their field, the assumed value, and their values with ours
    names: dict[str, tuple[str, Any, dict[Any, Any]]]
    # their field -> the assumed value, and their values with what they mean
    shortcuts: dict[str, tuple[Any, dict[Any, bool]]]
    # their field -> the assumed value, and the values that our graphs implement
    fixed: dict[str, tuple[Any, tuple[Any, ...]]]

    def read(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of the graph."""
        for name, (default, supported) in self.fixed.items():
            value = config.get(name, default)
            for item in value if isinstance(value, (list, tuple)) else [value]:
                if item not in supported:
                    raise _unsupported(name, value, name in config, supported)
        if missing := [name for name in self.numbers.values() if name not in config]:
            raise ConfigError(f"the autoencoder configuration misses {', '.join(missing)}")
        return {
            **{ours: config[theirs] for ours, theirs in self.numbers.items()},
            **{ours: _translated(config, *entry) for ours, entry in self.names.items()},
            "latent_shortcuts": _shortcuts(config, self.shortcuts),
        }

    def write(self, spec: AutoencoderSpec) -> dict[str, Any]:
        """Return numbers and names as their fields."""
        values = {theirs: getattr(spec, ours) for ours, theirs in self.numbers.items()}
        for ours, (theirs, _, words) in self.names.items():
            value, back = getattr(spec, ours), {ours: theirs for theirs, ours in words.items()}
            values[theirs] = (
                back.get(value, value) if isinstance(value, str) else [back.get(item, item) for item in value]
            )
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _alike(*words: str) -> dict[str, str]:
    return dict(zip(words, words, strict=True))


_OFFICIAL = _Dialect(
    numbers={
        "latent_channels": "latent_channels",
        "encoder_widths": "encoder.width_list",
        "encoder_depths": "encoder.depth_list",
        "decoder_widths": "decoder.width_list",
        "decoder_depths": "decoder.depth_list",
    },
    names={
        "encoder_blocks": ("encoder.block_type", "ResBlock", _alike(*BLOCKS)),
        "decoder_blocks": ("decoder.block_type", "ResBlock", _alike(*BLOCKS)),
        "decoder_norms": ("decoder.norm", "trms2d", {"trms2d": "rms_norm", "bn2d": "batch_norm"}),
        "decoder_acts": ("decoder.act", "silu", _alike(*ACTS)),
        "out_act": ("decoder.out_act", "relu", _alike(*ACTS)),
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
    },
    shortcuts={
        "encoder.out_shortcut": ("averaging", {None: False, "averaging": True}),
        "decoder.in_shortcut": ("duplicating", {None: False, "duplicating": True}),
    },
    fixed={
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
    },
)
_OFFICIAL_IGNORED = {"pretrained_path", "pretrained_source", "pretrained_ema", "scaling_factor"}

_DIFFUSERS_BLOCKS = {"ResBlock": "ResBlock", "EfficientViTBlock": "EViTGLU"}
_DIFFUSERS = _Dialect(
    numbers={
        "latent_channels": "latent_channels",
        "encoder_widths": "encoder_block_out_channels",
        "encoder_depths": "encoder_layers_per_block",
        "decoder_widths": "decoder_block_out_channels",
        "decoder_depths": "decoder_layers_per_block",
    },
    names={
        "encoder_blocks": ("encoder_block_types", "ResBlock", _DIFFUSERS_BLOCKS),
        "decoder_blocks": ("decoder_block_types", "ResBlock", _DIFFUSERS_BLOCKS),
        "decoder_norms": ("decoder_norm_types", "rms_norm", _alike(*NORMS)),
        "decoder_acts": ("decoder_act_fns", "silu", _alike(*ACTS)),
        "out_act": ("decoder_conv_act_fn", "relu", _alike(*ACTS)),
        "downsample": ("downsample_block_type", "pixel_unshuffle", _alike(*DOWNSAMPLES)),
        "upsample": ("upsample_block_type", "pixel_shuffle", _alike(*UPSAMPLES)),
    },
    shortcuts={
        "encoder_out_shortcut": (True, {False: False, True: True}),
        "decoder_in_shortcut": (True, {False: False, True: True}),
    },
    fixed={"in_channels": (3, (3,)), "attention_head_dim": (32, (32,))},
)
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
    known = {*_OFFICIAL.fixed, *_OFFICIAL.shortcuts, *_OFFICIAL.numbers.values(), *_OFFICIAL_IGNORED}
    known |= {theirs for theirs, _, _ in _OFFICIAL.names.values()}
    if unknown := sorted(map(str, set(flat) - known)):
        raise ConfigError(f"unknown fields in the official autoencoder configuration: {', '.join(unknown)}")
    return AutoencoderSpec(**_OFFICIAL.read(flat))


def spec_from_diffusers(config: Mapping[str, Any]) -> AutoencoderSpec:
    """Read the config.json of a diffusers ``AutoencoderDC``.

    Its scaling factor is not part of the graph and is ignored.

    Raises:
        ConfigError: The configuration is of another class, is incomplete, or asks for a feature that no published DC-AE
            autoencoder has.
    """
    if "_class_name" not in config and (theirs := config.get("architectures") or config.get("model_type")):
        named = " and ".join(map(str, theirs)) if isinstance(theirs, list) else theirs
        raise ConfigError(f"the configuration is that of transformers' {named}, not of an autoencoder")
    if config.get("_class_name", "AutoencoderDC") != "AutoencoderDC":
        raise ConfigError(f"the diffusers configuration is of class {config['_class_name']}, not AutoencoderDC")
    fields = _DIFFUSERS.read(config)
    for side in ("encoder", "decoder"):
        blocks = _with_scales(config, side, fields[f"{side}_blocks"], len(fields["encoder_widths"]))
        fields[f"{side}_blocks"] = blocks
    return AutoencoderSpec(**fields)


def spec_from_config(config: Mapping[str, Any]) -> AutoencoderSpec:
    """Read the config.json beside a weights file: official ({"model_name": ...} or {"dotlist": ...}) or of diffusers."""
    for key in ("dotlist", "model_name"):
        if key in config:
            return spec_from_official(str(config[key]))
    return spec_from_diffusers(config)


def official_config(spec: AutoencoderSpec, name: str = "") -> dict[str, str]:
    """Return the config.json of the official layout.

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
    words = _OFFICIAL.write(spec)
    if not spec.latent_shortcuts:
        words |= {"encoder.out_shortcut": "null", "decoder.in_shortcut": "null"}
        words["encoder.out_block_type"] = "AdaptiveOutputConvLayer"
        words["decoder.in_block_type"] = "AdaptiveInputConvLayer"
    texts = {k: f"[{','.join(map(str, v))}]" if isinstance(v, list) else str(v) for k, v in words.items()}
    return " ".join(f"{key}={value}" for key, value in texts.items())


def diffusers_config(spec: AutoencoderSpec, scaling_factor: float) -> dict[str, Any]:
    """Return the config.json with which ``diffusers.AutoencoderDC`` builds this graph."""
    config = {"_class_name": "AutoencoderDC", "in_channels": 3, "attention_head_dim": 32, **_DIFFUSERS.write(spec)}
    for side in ("encoder", "decoder"):
        blocks = getattr(spec, f"{side}_blocks")
        config[f"{side}_block_types"] = ["ResBlock" if b == "ResBlock" else "EfficientViTBlock" for b in blocks]
        config[f"{side}_qkv_multiscales"] = [[5] if block == "EViTS5GLU" else [] for block in blocks]
    return config | dict.fromkeys(_DIFFUSERS.shortcuts, spec.latent_shortcuts) | {"scaling_factor": scaling_factor}


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
