"""The published autoencoders by name (widths and depths as in the official DC-Gen configurations)."""

from __future__ import annotations

import difflib

from dcae15.config import AutoencoderConfig
from dcae15.errors import ConfigError
from dcae15.models.autoencoder import AutoencoderSpec


def _symmetric(widths: tuple[int, ...], depths: tuple[int, ...]) -> AutoencoderSpec:
    return AutoencoderSpec(128, widths, depths, widths, depths)


_F32C128 = _symmetric((128, 256, 512, 512, 1024, 1024), (0, 5, 10, 4, 4, 4))

PRESETS = {
    "dc-ae-f32c128-1.1": _F32C128,  # the graph of 1.5, trained without masks
    "dc-ae-f32c128-1.5": _F32C128,
    "dc-ae-f64c128-1.5": _symmetric((128, 256, 512, 512, 1024, 1024, 1024), (0, 5, 10, 4, 4, 4, 4)),
}


def preset(name: str) -> AutoencoderSpec:
    """Return the graph of a published model.

    Raises:
        ConfigError: No model has this name; the message lists the nearest ones.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.5) or list(PRESETS)
        raise ConfigError(f"unknown autoencoder preset {name!r}; did you mean {' or '.join(near)}?")
    return PRESETS[name]


def autoencoder_spec(config: AutoencoderConfig) -> AutoencoderSpec:
    """Return the graph that a configuration asks for."""
    if config.preset != "custom":
        return preset(config.preset)
    return AutoencoderSpec(
        latent_channels=config.latent_channels,
        encoder_widths=tuple(config.encoder_widths),
        encoder_depths=tuple(config.encoder_depths),
        decoder_widths=tuple(config.decoder_widths),
        decoder_depths=tuple(config.decoder_depths),
    )
