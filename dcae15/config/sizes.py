"""Sizes of a latent that a configuration implies."""

from __future__ import annotations

import re

from dcae15.config.autoencoder import AutoencoderConfig
from dcae15.errors import ConfigError


def spatial_compression(autoencoder: AutoencoderConfig) -> int:
    """Return f, the image's side over the latent's side; a published model says it in its name.

    Raises:
        ConfigError: the preset's name does not look like a published model's.
    """
    if autoencoder.preset == "custom":
        return 2 ** (len(autoencoder.encoder_widths) - 1)
    return _published(autoencoder.preset)[0]


def latent_channels(autoencoder: AutoencoderConfig) -> int:
    """Return C, the channels of the latent; a published model says it in its name.

    Raises:
        ConfigError: the preset's name does not look like a published model's.
    """
    if autoencoder.preset == "custom":
        return autoencoder.latent_channels
    return _published(autoencoder.preset)[1]


def _published(preset: str) -> tuple[int, int]:
    found = re.search(r"-f(\d+)c(\d+)(-|$)", preset)
    if not found:
        raise ConfigError(
            f"autoencoder.preset is '{preset}', which names no published model; "
            "use one such as dc-ae-f32c128-1.5, or 'custom' with your own widths and depths"
        )
    return int(found[1]), int(found[2])
