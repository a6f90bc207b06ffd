"""The configuration: schema, layers of YAML files and words, rules, help, and what follows from active fields."""

from dcae15.config.activity import SCHEMA_VERSION, active_fields, fingerprint, leaves, warnings_for
from dcae15.config.arms import ARMS, with_arm
from dcae15.config.graph import autoencoder_spec
from dcae15.config.help import dump, fields_help
from dcae15.config.layers import (
    PHASES,
    Layer,
    build,
    field_type,
    flatten,
    from_overrides,
    from_yaml,
    overlaid,
    yaml_tree,
)
from dcae15.config.rules import check, phase_size_problems
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
from dcae15.config.spelling import plain, texts
from dcae15.config.training import (
    AdversarialConfig,
    AutoencoderConfig,
    LossesConfig,
    PerceptualConfig,
    PhaseConfig,
    TrainingConfig,
)
