"""The configuration: every field with its default, unit and meaning, and the checks between fields.

Images are counted, not steps: every length of training, warm-up or interval is a number of images seen by all workers together.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from dcae15.errors import ConfigError

SCHEMA_VERSION = 1


def option(
    default: Any, doc: str, *, unit: str = "", choices: tuple[str, ...] = (), affects_result: bool = True
) -> Any:
    """Declare one configuration field.

    ``affects_result=False`` keeps the field out of fingerprints: changing it never makes a finished stage run again.
    """
    metadata = {"doc": doc, "unit": unit, "choices": choices, "affects_result": affects_result}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def section(cls: type, doc: str, **defaults: Any) -> Any:
    """Declare a nested group of fields, with other defaults than the group's own where given."""
    return field(default_factory=lambda: cls(**defaults), metadata={"doc": doc})


@dataclass
class ShapesConfig:
    """The embedded images: drawn objects (structure) under textures and fine patterns (detail)."""

    images: int = option(12_000, "training images to draw", unit="images")
    val_images: int = option(2_000, "validation images to draw", unit="images")
    classes: int = option(10, "object classes, 2 to 12")
    resolution: int = option(32, "side of the drawn images", unit="pixels")
    seed: int = option(0, "seed of the drawing; image i is a pure function of (seed, split, i)")


@dataclass
class DataConfig:
    """Where images come from and how they are prepared."""

    source: str = option(
        "shapes",
        "'shapes' for the embedded images, or the path or URI of a folder: train/<class>/* with val/<class>/* (ImageNet's layout), or <class>/*",
    )
    shapes: ShapesConfig = section(ShapesConfig, "the embedded images; read only when source is 'shapes'")
    resolution: int = option(32, "side of the prepared images", unit="pixels")
    crop: str = option(
        "center",
        "'center': resize and centre-crop while preparing (box halving, then bicubic, as ADM does); "
        "'random': keep whole images, random-resized crops while training, centre crops elsewhere",
        choices=("center", "random"),
    )
    store_side: int = option(
        0, "with crop 'random': shorter side of the stored images; 0 means resolution * 9 / 8", unit="pixels"
    )
    random_crop_min_area: float = option(
        0.25, "with crop 'random': smallest share of the image's area that a crop covers"
    )
    encoding: str = option(
        "png",
        "how prepared images are stored: 'png' (lossless) or 'raw' (uncompressed, fastest for small images)",
        choices=("png", "raw"),
    )
    shard_images: int = option(1_024, "images per shard, the unit of commit", unit="images")
    limit: int = option(0, "use only the first images of each split; 0 means all", unit="images")
    val_fraction: float = option(0.1, "share of the images held out for validation when the source has no val/ folder")
    max_bad_fraction: float = option(
        0.01, "fail when more than this share of the images is unreadable", affects_result=True
    )
    min_side: int = option(8, "images with a shorter side below this are quarantined", unit="pixels")
    max_pixels: int = option(100_000_000, "images with more pixels than this are quarantined unread", unit="pixels")


@dataclass
class PrefixConfig:
    """The channel prefix: how many front channels are kept in a training step."""

    kind: str = option(
        "prefix",
        "'prefix': the first c channels (the method); 'random': c channels anywhere (the control); 'none': all channels (the baseline)",
        choices=("prefix", "random", "none"),
    )
    first: int = option(4, "smallest prefix", unit="channels")
    step: int = option(
        4,
        "distance between prefixes; the choices are first, first + step, ... and always all channels",
        unit="channels",
    )
    choices: list[int] = option(
        [], "explicit list of prefixes, ascending, ending with all channels; replaces first and step", unit="channels"
    )
    per: str = option(
        "sample", "draw one prefix per 'step' (as the official code) or per 'sample'", choices=("step", "sample")
    )
    draws: int = option(1, "prefixes drawn per step; the losses are averaged")
    always_full: bool = option(False, "all channels are always among the draws")
    always_min_max: bool = option(False, "the smallest prefix and all channels are always among the draws")


@dataclass
class TrainingConfig:
    """One training run."""

    images: int = option(64_000, "length of training", unit="images")
    batch_size: int = option(64, "images per optimizer step, over all workers together", unit="images")
    learning_rate: float = option(1e-3, "peak learning rate of AdamW")
    beta1: float = option(0.9, "AdamW's first moment decay")
    beta2: float = option(0.999, "AdamW's second moment decay")
    weight_decay: float = option(0.0, "AdamW's weight decay; biases and normalisation weights are exempt")
    warmup_images: int = option(3_200, "linear warm-up of the learning rate", unit="images")
    schedule: str = option(
        "cosine", "after warm-up: 'constant', or 'cosine' down to zero at the end", choices=("constant", "cosine")
    )
    clip_norm: float = option(1.0, "gradients are scaled down to this norm; 0 means never")
    ema_decay: float = option(
        0.999,
        "decay of the weights' exponential moving average per optimizer step; ramps up at the start; 0 means no average",
    )
    bf16: bool = option(False, "compute in bfloat16 under autocast; weights and optimizer stay float32")
    channels_last: bool = option(False, "memory format of convolutions; same numbers, faster on GPUs")
    compile: bool = option(False, "compile the model; same numbers within tolerance, slow first step")
    log_images: int = option(
        3_200, "interval of progress lines and tracked metrics", unit="images", affects_result=False
    )
    checkpoint_images: int = option(16_000, "interval of checkpoints", unit="images", affects_result=False)
    keep_checkpoints: int = option(2, "checkpoints kept; older ones are deleted", affects_result=False)


@dataclass
class AutoencoderConfig:
    """The autoencoder: graph, structured latent space, training."""

    preset: str = option(
        "custom", "name of a published model (dc-ae-f32c128-1.5, ...), or 'custom' for the fields below"
    )
    latent_channels: int = option(32, "C, channels of the latent", unit="channels")
    encoder_widths: list[int] = option(
        [24, 24, 48, 96], "channels of each encoder stage; n stages compress by 2**(n-1)"
    )
    encoder_depths: list[int] = option([0, 1, 1, 2], "ResBlocks of each encoder stage; the first must be 0")
    decoder_widths: list[int] = option([24, 24, 48, 96], "channels of each decoder stage, from image to latent")
    decoder_depths: list[int] = option([0, 1, 1, 2], "ResBlocks of each decoder stage, from image to latent")
    flip: bool = option(True, "mirror half of the training images")
    prefix: PrefixConfig = section(PrefixConfig, "structured latent space", always_min_max=True)
    training: TrainingConfig = section(TrainingConfig, "training of the autoencoder", clip_norm=1.0)


@dataclass
class LatentsConfig:
    """The latent cache."""

    dtype: str = option("float16", "stored type of the latents", choices=("float16", "bfloat16", "float32"))
    mirror: bool = option(False, "also store the latent of every mirrored training image")
    batch_size: int = option(
        64, "images encoded at once; does not change the latents", unit="images", affects_result=False
    )


@dataclass
class DenoiserConfig:
    """The diffusion transformer (DiT)."""

    depth: int = option(6, "transformer blocks")
    width: int = option(128, "channels of a token")
    heads: int = option(4, "attention heads")
    patch_size: int = option(1, "side of a patch", unit="latent pixels")
    mlp_ratio: float = option(4.0, "width of the MLP over width")
    class_dropout: float = option(0.1, "share of labels replaced by the null class, for classifier-free guidance")


@dataclass
class DiffusionConfig:
    """The latent diffusion model: linear-path flow matching with augmented diffusion training."""

    denoiser: DenoiserConfig = section(DenoiserConfig, "the denoiser")
    prefix: PrefixConfig = section(PrefixConfig, "augmented diffusion training", always_full=True)
    scaling: str = option(
        "scalar",
        "'scalar': one scale for all channels, which keeps the order that structured latents carry as energy; 'per_channel': unit variance per channel",
        choices=("scalar", "per_channel"),
    )
    shift: bool = option(True, "remove each channel's mean")
    time_distribution: str = option(
        "uniform", "distribution of the time t of a training sample", choices=("uniform", "logit_normal")
    )
    training: TrainingConfig = section(
        TrainingConfig,
        "training of the denoiser",
        schedule="constant",
        images=64_000,
        learning_rate=1e-3,
        ema_decay=0.998,
    )


@dataclass
class SamplingConfig:
    """Generation."""

    images: int = option(1_000, "images to generate, spread evenly over the classes", unit="images")
    solver: str = option("heun", "ODE solver", choices=("euler", "heun"))
    steps: int = option(25, "steps of the solver")
    guidance: float = option(1.5, "classifier-free guidance scale; 1 means none")
    guidance_start: float = option(0.0, "guidance acts from this time on (0 is noise, 1 is data)")
    guidance_end: float = option(1.0, "guidance acts until this time")
    prefix: int = option(0, "generate only the first channels; 0 means all", unit="channels")
    seed: int = option(0, "image i is a pure function of (seed, i) and the weights")
    shard_images: int = option(
        500, "generated images per shard, the unit of commit", unit="images", affects_result=False
    )
    batch_size: int = option(250, "images generated at once", unit="images", affects_result=False)


@dataclass
class EvaluationConfig:
    """What is measured."""

    reconstruction_images: int = option(1_000, "validation images for the reconstruction curves", unit="images")
    features: str = option(
        "train",
        "'train': train the feature network on the run's own image set (its distance is never called FID)",
        choices=("train",),
    )
    feature_images: int = option(36_000, "length of the feature network's training", unit="images")
    neighbours: int = option(3, "k of the precision and recall manifolds")
    grid_images: int = option(8, "rows of the partial-channel grid", unit="images", affects_result=False)


@dataclass
class ScalingConfig:
    """Workers and resources. Nothing here changes a result beyond float tolerance."""

    num_workers: int = option(
        0, "training workers; 0 means one per GPU of the cluster, or one without GPUs", affects_result=False
    )
    use_gpu: str = option(
        "auto", "'auto' uses GPUs when the cluster has any", choices=("auto", "yes", "no"), affects_result=False
    )
    cpus_per_worker: int = option(
        0, "CPUs of a training worker; 0 means an even share of the cluster's", unit="CPUs", affects_result=False
    )
    encoders: list[int] = option(
        [1, 0],
        "least and most encoder or sampler actors; 0 as the most means as many as the cluster holds",
        affects_result=False,
    )
    max_failures: int = option(
        3, "restarts of a training stage after lost workers before the stage fails", affects_result=False
    )


@dataclass
class TrackingConfig:
    """MLflow."""

    enabled: bool = option(True, "track with MLflow", affects_result=False)
    uri: str = option(
        "",
        "tracking server or database; empty means MLFLOW_TRACKING_URI, or an SQLite file beside the artifacts",
        affects_result=False,
    )
    experiment: str = option("dcae15", "name of the MLflow experiment", affects_result=False)


@dataclass
class Config:
    """Everything that a pipeline needs."""

    storage: str = option(
        "${oc.env:DCAE15_STORAGE,~/dcae15}", "path or URI under which all artifacts live", affects_result=False
    )
    name: str = option("shapes", "name of the run in reports and MLflow", affects_result=False)
    seed: int = option(0, "seed of weights, order, draws and noise")
    baseline: bool = option(True, "also train the same autoencoder without masks, to compare with")
    data: DataConfig = section(DataConfig, "images")
    autoencoder: AutoencoderConfig = section(AutoencoderConfig, "the autoencoder")
    latents: LatentsConfig = section(LatentsConfig, "the latent cache")
    diffusion: DiffusionConfig = section(DiffusionConfig, "the latent diffusion model")
    sampling: SamplingConfig = section(SamplingConfig, "generation")
    evaluation: EvaluationConfig = section(EvaluationConfig, "measurements")
    scaling: ScalingConfig = section(ScalingConfig, "workers and resources")
    tracking: TrackingConfig = section(TrackingConfig, "experiment tracking")


def result_fields(config: Any) -> dict[str, Any]:
    """Return the fields of a config section that can change a result, as plain nested dicts."""
    values: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            values[f.name] = result_fields(value)
        elif f.metadata.get("affects_result", True):
            values[f.name] = list(value) if isinstance(value, list) else value
    return values


def fingerprint(kind: str, inputs: dict[str, Any]) -> str:
    """Return 16 hex digits that name a result: the same for the same kind, schema and inputs, whatever the machine.

    ``inputs`` holds plain values: result fields of the config sections that matter, and the fingerprints of the inputs.
    """
    text = json.dumps({"kind": kind, "schema": SCHEMA_VERSION, "inputs": inputs}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check(config: Config) -> None:
    """Raise ConfigError, naming the fields, where fields contradict each other or are out of range."""
    raise ConfigError("filled in by command-line work")
