"""The configuration: schema, layers of YAML files and overrides, checks, help, and the fingerprints of results."""

from dcae15.config.advice import warnings_for
from dcae15.config.checks import check, latent_channels, prefix_choices, spatial_compression
from dcae15.config.help import dump, fields_help
from dcae15.config.identity import SCHEMA_VERSION, fingerprint, result_fields
from dcae15.config.layers import Layer, build, from_overrides, from_yaml
from dcae15.config.schema import (
    AutoencoderConfig,
    Config,
    DataConfig,
    DenoiserConfig,
    DiffusionConfig,
    EvaluationConfig,
    LatentsConfig,
    PrefixConfig,
    SamplingConfig,
    ScalingConfig,
    ShapesConfig,
    TrackingConfig,
    TrainingConfig,
)

__all__ = [
    "SCHEMA_VERSION",
    "AutoencoderConfig",
    "Config",
    "DataConfig",
    "DenoiserConfig",
    "DiffusionConfig",
    "EvaluationConfig",
    "LatentsConfig",
    "Layer",
    "PrefixConfig",
    "SamplingConfig",
    "ScalingConfig",
    "ShapesConfig",
    "TrackingConfig",
    "TrainingConfig",
    "build",
    "check",
    "dump",
    "fields_help",
    "fingerprint",
    "from_overrides",
    "from_yaml",
    "latent_channels",
    "prefix_choices",
    "result_fields",
    "spatial_compression",
    "warnings_for",
]
