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
from dcae15.config.checks import check, phase_size_problems
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
from dcae15.config.sizes import latent_channels, spatial_compression
from dcae15.config.sweep import Figure, Range, Sweep, Trial, Value
from dcae15.config.sweep_checks import is_whole
from dcae15.config.sweep_file import sweep_from_yaml
from dcae15.config.sweep_trials import (
    check_overrides,
    check_trials,
    make_trial,
    trial_command,
    trial_config,
    trials_of,
)

__all__ = [
    "SCHEMA_VERSION",
    "AdversarialConfig",
    "AutoencoderConfig",
    "Config",
    "DataConfig",
    "DenoiserConfig",
    "DiffusionConfig",
    "EvaluationConfig",
    "Figure",
    "LatentsConfig",
    "Layer",
    "LossesConfig",
    "PerceptualConfig",
    "PhaseConfig",
    "PrefixConfig",
    "Range",
    "SamplingConfig",
    "ScalingConfig",
    "ShapesConfig",
    "Sweep",
    "TrackingConfig",
    "TrainingConfig",
    "Trial",
    "Value",
    "build",
    "check",
    "check_overrides",
    "check_trials",
    "dump",
    "fields_help",
    "fingerprint",
    "from_overrides",
    "from_yaml",
    "images_of",
    "is_whole",
    "latent_channels",
    "make_trial",
    "mask_kind",
    "phase_fields",
    "phase_size_problems",
    "phases_of",
    "prefix_choices",
    "prefix_fields",
    "result_fields",
    "spatial_compression",
    "sweep_from_yaml",
    "trained_prefixes",
    "trial_command",
    "trial_config",
    "trials_of",
    "warnings_for",
    "whole_batches",
    "without_masks",
]
