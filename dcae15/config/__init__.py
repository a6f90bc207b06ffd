"""The configuration: schema, layers of YAML files and overrides, checks, help, and the fingerprints of results."""

from dcae15.config.advice import warnings_for
from dcae15.config.autoencoder import (
    AdversarialConfig,
    AutoencoderConfig,
    LossesConfig,
    PerceptualConfig,
    PhaseConfig,
    PrefixConfig,
    TrainingConfig,
)
from dcae15.config.checks import (
    PERCEPTUAL_SOURCES,
    check,
    latent_channels,
    phase_size_problems,
    spatial_compression,
)
from dcae15.config.help import dump, fields_help
from dcae15.config.identity import SCHEMA_VERSION, fingerprint, result_fields
from dcae15.config.layers import Layer, build, from_overrides, from_yaml
from dcae15.config.phases import (
    images_of,
    mask_kind,
    phase_fields,
    phases_of,
    prefix_choices,
    prefix_fields,
    trained_prefixes,
    whole_batches,
    without_masks,
)
from dcae15.config.schema import (
    Config,
    DataConfig,
    DenoiserConfig,
    DiffusionConfig,
    EvaluationConfig,
    LatentsConfig,
    SamplingConfig,
    ScalingConfig,
    ShapesConfig,
    TrackingConfig,
)

__all__ = [
    "PERCEPTUAL_SOURCES",
    "SCHEMA_VERSION",
    "AdversarialConfig",
    "AutoencoderConfig",
    "Config",
    "DataConfig",
    "DenoiserConfig",
    "DiffusionConfig",
    "EvaluationConfig",
    "LatentsConfig",
    "Layer",
    "LossesConfig",
    "PerceptualConfig",
    "PhaseConfig",
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
    "images_of",
    "latent_channels",
    "mask_kind",
    "phase_fields",
    "phase_size_problems",
    "phases_of",
    "prefix_choices",
    "prefix_fields",
    "result_fields",
    "spatial_compression",
    "trained_prefixes",
    "warnings_for",
    "whole_batches",
    "without_masks",
]
