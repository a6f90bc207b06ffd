"""Configurations that others wrote, read as an AutoencoderSpec: official dotlists and names, diffusers' config.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dcae15.errors import ConfigError
from dcae15.models.autoencoder import AutoencoderSpec
from dcae15.models.presets import preset

# Names that the official repository gave the same models later.
_RENAMED = {
    "dc-ae-1.5-f32c128": "dc-ae-f32c128-1.5",
    "dc-ae-1.5-f64c128": "dc-ae-f64c128-1.5",
}

# Field -> (value that the reader assumes when the field is absent, values that our graph implements).
_OFFICIAL_FEATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "in_channels": (3, (3,)),
    "use_quant_conv": (False, (False,)),
    "encoder.block_type": ("ResBlock", ("ResBlock",)),
    "encoder.norm": ("trms2d", ("trms2d",)),
    "encoder.act": ("silu", ("silu",)),
    "encoder.downsample_block_type": ("ConvPixelUnshuffle", ("ConvPixelUnshuffle",)),
    "encoder.downsample_match_channel": (True, (True,)),
    "encoder.downsample_shortcut": ("averaging", ("averaging",)),
    "encoder.out_norm": (None, (None,)),
    "encoder.out_act": (None, (None,)),
    "encoder.out_shortcut": ("averaging", (None,)),
    "encoder.out_block_type": ("ConvLayer", ("ConvLayer", "AdaptiveOutputConvLayer")),
    "encoder.double_latent": (False, (False,)),
    "decoder.block_type": ("ResBlock", ("ResBlock",)),
    "decoder.norm": ("trms2d", ("trms2d",)),
    "decoder.act": ("silu", ("silu",)),
    "decoder.upsample_block_type": ("ConvPixelShuffle", ("ConvPixelShuffle",)),
    "decoder.upsample_match_channel": (True, (True,)),
    "decoder.upsample_shortcut": ("duplicating", ("duplicating",)),
    "decoder.out_norm": ("trms2d", ("trms2d",)),
    "decoder.out_act": ("relu", ("silu",)),
    "decoder.in_shortcut": ("duplicating", (None,)),
    "decoder.in_block_type": ("ConvLayer", ("ConvLayer", "AdaptiveInputConvLayer")),
}
_OFFICIAL_FIELDS = {
    "latent_channels": "latent_channels",
    "encoder_widths": "encoder.width_list",
    "encoder_depths": "encoder.depth_list",
    "decoder_widths": "decoder.width_list",
    "decoder_depths": "decoder.depth_list",
}

_DIFFUSERS_FEATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "in_channels": (3, (3,)),
    "encoder_block_types": ("ResBlock", ("ResBlock",)),
    "decoder_block_types": ("ResBlock", ("ResBlock",)),
    "downsample_block_type": ("pixel_unshuffle", ("pixel_unshuffle",)),
    "upsample_block_type": ("pixel_shuffle", ("pixel_shuffle",)),
    "decoder_norm_types": ("rms_norm", ("rms_norm",)),
    "decoder_act_fns": ("silu", ("silu",)),
    "encoder_out_shortcut": (True, (False,)),
    "decoder_in_shortcut": (True, (False,)),
    "decoder_conv_act_fn": ("relu", ("silu",)),
}
_DIFFUSERS_FIELDS = {
    "latent_channels": "latent_channels",
    "encoder_widths": "encoder_block_out_channels",
    "encoder_depths": "encoder_layers_per_block",
    "decoder_widths": "decoder_block_out_channels",
    "decoder_depths": "decoder_layers_per_block",
}


def spec_from_official(text: str) -> AutoencoderSpec:
    """Read an official configuration.

    Args:
        text: The name of a published model, with or without its organisation ("dc-ai/dc-ae-f64c128-1.5"), or the
            official dotlist ("latent_channels=16 encoder.width_list=[8,16,32,32] ...").

    Raises:
        ConfigError: The name is unknown, the dotlist is malformed or incomplete, or it asks for a feature that the
            graph of DC-AE 1.1 and 1.5 does not have.
    """
    if "=" not in text:
        name = text.strip().split("/")[-1]
        return preset(_RENAMED.get(name, name))
    try:
        values = OmegaConf.to_container(OmegaConf.from_dotlist(re.split(r"\s+(?=[\w.]+=)", text.strip())))
    except (OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"the autoencoder configuration {text!r} is not a dotlist of key=value: {error}") from error
    flat: dict[Any, Any] = {}
    for key, value in values.items() if isinstance(values, dict) else ():
        nested = key in ("encoder", "decoder") and isinstance(value, dict)
        flat.update({f"{key}.{inner}": v for inner, v in value.items()} if nested else {key: value})
    known = set(_OFFICIAL_FEATURES) | set(_OFFICIAL_FIELDS.values())
    if unknown := sorted(map(str, set(flat) - known)):
        raise ConfigError(f"unknown fields in the official autoencoder configuration: {', '.join(unknown)}")
    return _spec(flat, _OFFICIAL_FIELDS, _OFFICIAL_FEATURES)


def spec_from_diffusers(config: Mapping[str, Any]) -> AutoencoderSpec:
    """Read the config.json of a diffusers ``AutoencoderDC``.

    Its scaling factor is not part of the graph and is ignored.

    Raises:
        ConfigError: The configuration is of another class, is incomplete, or asks for a feature that the graph of
            DC-AE 1.1 and 1.5 does not have.
    """
    if config.get("_class_name", "AutoencoderDC") != "AutoencoderDC":
        raise ConfigError(f"the diffusers configuration is of class {config['_class_name']}, not AutoencoderDC")
    return _spec(config, _DIFFUSERS_FIELDS, _DIFFUSERS_FEATURES)


def spec_from_config(config: Mapping[str, Any]) -> AutoencoderSpec:
    """Read the config.json beside a weights file: official ({"model_name": ...}) or of diffusers."""
    if "model_name" in config:
        return spec_from_official(str(config["model_name"]))
    return spec_from_diffusers(config)


def _spec(
    config: Mapping[str, Any], fields: dict[str, str], features: dict[str, tuple[Any, tuple[Any, ...]]]
) -> AutoencoderSpec:
    for name, (default, supported) in features.items():
        value = config.get(name, default)
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if item not in supported:
                given = "" if name in config else " (the default of a configuration that does not give it)"
                raise ConfigError(
                    f"{name} = {value}{given} is not supported; the graph of DC-AE 1.1 and 1.5 needs "
                    f"{' or '.join(map(str, supported))}"
                )
    if missing := [name for name in fields.values() if name not in config]:
        raise ConfigError(f"the autoencoder configuration misses {', '.join(missing)}")
    return AutoencoderSpec(**{ours: config[theirs] for ours, theirs in fields.items()})
