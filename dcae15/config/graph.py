"""The graph that a configuration asks for, as the specs of `dcae15.models` know it."""

from __future__ import annotations

from dcae15.config.training import AutoencoderConfig
from dcae15.errors import ConfigError
from dcae15.models.presets import GRAPH_FIELDS, preset
from dcae15.models.spec import AutoencoderSpec


def autoencoder_spec(config: AutoencoderConfig) -> AutoencoderSpec:
    """Return the graph that a configuration asks for.

    Raises:
        ConfigError: The preset is unknown, or the custom fields contradict each other; the message names them.
    """
    custom = config.preset == "custom"
    try:
        if not custom:
            return preset(config.preset)
        return AutoencoderSpec(**{name: getattr(config, name) for name in GRAPH_FIELDS})
    except ConfigError as error:
        if custom:
            raise ConfigError(f"autoencoder.{error}") from error
        own = "or give 'custom', and your own widths and depths"
        raise ConfigError(f"autoencoder.preset is '{config.preset}', but {error}; {own}") from error
