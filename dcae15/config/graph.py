"""The graph that a configuration asks for."""

from __future__ import annotations

from dcae15.config.autoencoder import AutoencoderConfig
from dcae15.errors import ConfigError
from dcae15.models.presets import GRAPH_FIELDS, preset
from dcae15.models.spec import AutoencoderSpec


def autoencoder_spec(config: AutoencoderConfig) -> AutoencoderSpec:
    """Return the graph that a configuration asks for.

    Raises:
        ConfigError: The preset is unknown, or the custom fields contradict each other; the message names them.
    """
    if config.preset != "custom":
        return preset(config.preset)
    try:
        return AutoencoderSpec(**{name: getattr(config, name) for name in GRAPH_FIELDS})
    except ConfigError as error:
        raise ConfigError(f"autoencoder.{error}") from error
