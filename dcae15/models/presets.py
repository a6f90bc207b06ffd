"""The published autoencoders by name (graphs as in the official DC-Gen configurations)."""

from __future__ import annotations

import dataclasses
import difflib
import re

from dcae15.errors import ConfigError
from dcae15.models.spec import AutoencoderSpec

GRAPH_FIELDS = tuple(f.name for f in dataclasses.fields(AutoencoderSpec))
"""Fields of a configuration that describe a custom graph; each is the field of `AutoencoderSpec` of the same name."""

_F32 = (128, 256, 512, 512, 1024, 1024)


def _dcae_1_0(latent_channels: int, *deeper: int) -> AutoencoderSpec:
    """Three stages of ResBlocks, then attention; ``deeper`` are widths of stages beyond the six of f32."""
    widths = (*_F32, *deeper)
    attention = len(widths) - 3
    return AutoencoderSpec(
        latent_channels,
        widths,
        (0, 4, 8) + (2,) * attention,
        widths,
        (0, 5, 10) + (2,) * attention,
        encoder_blocks=("ResBlock",) * 3 + ("EViTGLU",) * attention,
        decoder_blocks=("ResBlock",) * 3 + ("EViTGLU",) * attention,
        decoder_norms=("batch_norm",) * 3 + ("rms_norm",) * attention,
        decoder_acts=("relu",) * 3 + ("silu",) * attention,
        latent_shortcuts=True,
        out_act="relu",
    )


def _dcae_1_5(widths: tuple[int, ...], depths: tuple[int, ...]) -> AutoencoderSpec:
    return AutoencoderSpec(128, widths, depths, widths, depths)


_SANA_BLOCKS = ("ResBlock",) * 3 + ("EViTS5GLU",) * 3
_SANA = AutoencoderSpec(
    32,
    _F32,
    (2, 2, 2, 3, 3, 3),
    _F32,
    (3, 3, 3, 3, 3, 3),
    encoder_blocks=_SANA_BLOCKS,
    decoder_blocks=_SANA_BLOCKS,
    latent_shortcuts=True,
    out_act="relu",
    downsample="conv",
    upsample="interpolate",
)
_LITE = AutoencoderSpec(
    32,
    _F32,
    (2, 2, 2, 3, 3, 3),
    _F32,
    (0, 3, 5, 4, 4, 4),
    encoder_blocks=_SANA_BLOCKS,
    latent_shortcuts=True,
    downsample="conv",
)
_F32C128 = _dcae_1_5(_F32, (0, 5, 10, 4, 4, 4))

PRESETS = {
    "dc-ae-f32c128-1.5": _F32C128,
    "dc-ae-f64c128-1.5": _dcae_1_5((*_F32, 1024), (0, 5, 10, 4, 4, 4, 4)),
    "dc-ae-f32c128-1.1": _F32C128,  # the graph of 1.5, trained without masks
    "dc-ae-f32c32-in-1.0": _dcae_1_0(32),
    "dc-ae-f32c32-in-1.0-256px": _dcae_1_0(32),
    "dc-ae-f32c32-mix-1.0": _dcae_1_0(32),
    "dc-ae-f64c128-in-1.0": _dcae_1_0(128, 2048),
    "dc-ae-f64c128-mix-1.0": _dcae_1_0(128, 2048),
    "dc-ae-f128c512-in-1.0": _dcae_1_0(512, 2048, 2048),
    "dc-ae-f128c512-mix-1.0": _dcae_1_0(512, 2048, 2048),
    "dc-ae-f32c32-sana-1.0": _SANA,
    "dc-ae-f32c32-sana-1.1": _SANA,
    "dc-ae-lite-f32c32-sana-1.1": _LITE,
}

SCALING_FACTORS = {
    "dc-ae-f64c128-1.5": 0.5935,
    "dc-ae-f32c32-in-1.0": 0.3189,
    "dc-ae-f64c128-in-1.0": 0.2889,
    "dc-ae-f128c512-in-1.0": 0.4883,
    "dc-ae-f32c32-mix-1.0": 0.4552,
    "dc-ae-f64c128-mix-1.0": 0.4538,
    "dc-ae-f128c512-mix-1.0": 0.3620,
    "dc-ae-f32c32-sana-1.0": 0.41407,
    "dc-ae-f32c32-sana-1.1": 0.41407,
    "dc-ae-lite-f32c32-sana-1.1": 0.41407,
}
"""What the latents of the published weights are multiplied with, where that is published (official model zoo)."""


def published_name(name: str) -> str:
    """Return the name under which `PRESETS` knows a model.

    Organisation and ``-diffusers`` are left out ("dc-ai/dc-ae-f64c128-1.5-diffusers"), so is the number of channels that the
    weights were refined for ("dc-ae-f32c128-1.5-c64"), and the later names of 1.5 ("dc-ae-1.5-f64c128") are the earlier ones.
    """
    name = name.strip().split("/")[-1].removesuffix("-diffusers")
    name = re.sub(r"-c\d+$", "", name)
    return re.sub(r"^dc-ae-(1\.\d)-(f\d+c\d+)$", r"dc-ae-\2-\1", name)


def preset(name: str) -> AutoencoderSpec:
    """Return the graph of a published model; its name may be written as `published_name` says.

    Raises:
        ConfigError: No model has this name; the message lists the nearest ones, or all.
    """
    known = published_name(name)
    if known not in PRESETS:
        near = difflib.get_close_matches(known, PRESETS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(PRESETS)}"
        raise ConfigError(f"no published autoencoder has the name {name!r}; {hint}")
    return PRESETS[known]
