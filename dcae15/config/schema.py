"""The schema: every configuration field with its default, unit, range and meaning.

Images are counted, not steps: every length of training, warm-up or interval is a number of images seen by all workers
together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def option(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    affects_result: bool = True,
) -> Any:
    """Declare one configuration field.

    Args:
        default: the value where nobody gives another; a list is copied for each config.
        doc: the meaning, one sentence.
        unit: unit of a number.
        choices: valid values of a text.
        least: smallest valid number (of a list: of each item).
        most: largest valid number.
        above: valid numbers are larger than this.
        below: valid numbers are smaller than this.
        affects_result: False keeps the field out of fingerprints: changing it never makes a finished stage run again.
    """
    bounds = {"least": least, "most": most, "above": above, "below": below}
    metadata = {
        "doc": doc,
        "unit": unit,
        "choices": choices,
        "bounds": {name: bound for name, bound in bounds.items() if bound is not None},
        "affects_result": affects_result,
    }
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def sections(doc: str) -> Any:
    """Declare a list of groups of fields, empty by default."""
    return field(default_factory=list, metadata={"doc": doc, "unit": "", "choices": (), "bounds": {}})


def section(cls: type, doc: str, **defaults: Any) -> Any:
    """Declare a nested group of fields, with other defaults than the group's own where given."""
    return field(default_factory=lambda: cls(**defaults), metadata={"doc": doc})


@dataclass
class ShapesConfig:
    """The embedded images: drawn objects (structure) under textures and fine patterns (detail)."""

    images: int = option(12_000, "training images to draw", unit="images", least=1)
    val_images: int = option(2_000, "validation images to draw", unit="images", least=1)
    classes: int = option(10, "object classes, 2 to 12", least=2, most=12)
    resolution: int = option(32, "side of the drawn images", unit="pixels", least=8)
    seed: int = option(0, "seed of the drawing; image i is a pure function of (seed, split, i)", least=0)


@dataclass
class DataConfig:
    """Where images come from and how they are prepared."""

    source: str = option(
        "shapes",
        "'shapes' for the embedded images, or the path or URI of a folder: train/<class>/* with "
        "val/<class>/* (ImageNet's layout), or <class>/*",
    )
    shapes: ShapesConfig = section(ShapesConfig, "the embedded images; read only when source is 'shapes'")
    resolution: int = option(32, "side of the prepared images", unit="pixels", least=1)
    crop: str = option(
        "center",
        "'center': resize and centre-crop while preparing (box halving, then bicubic, as ADM does); "
        "'random': keep whole images, random-resized crops while training, centre crops elsewhere",
        choices=("center", "random"),
    )
    store_side: int = option(
        0, "with crop 'random': shorter side of the stored images; 0 means resolution * 9 / 8", unit="pixels", least=0
    )
    random_crop_min_area: float = option(
        0.25, "with crop 'random': smallest share of the image's area that a crop covers", above=0, most=1
    )
    encoding: str = option(
        "raw",
        "how prepared images are stored: 'raw' (uncompressed, fastest for small images) or 'png' (lossless, half the size)",
        choices=("raw", "png"),
    )
    shard_images: int = option(1_024, "images per shard, the unit of commit", unit="images", least=1)
    limit: int = option(0, "use only the first images of each split; 0 means all", unit="images", least=0)
    val_fraction: float = option(
        0.1, "share of the images held out for validation when the source has no val/ folder", above=0, below=1
    )
    max_bad_fraction: float = option(
        0.01, "fail when more than this share of the images is unreadable", least=0, most=1
    )
    min_side: int = option(8, "images with a shorter side below this are quarantined", unit="pixels", least=1)
    max_pixels: int = option(
        100_000_000, "images with more pixels than this are quarantined unread", unit="pixels", least=1
    )


@dataclass
class PrefixConfig:
    """The channel prefix: how many front channels are kept in a training step."""

    kind: str = option(
        "prefix",
        "'prefix': the first c channels (the method); 'random': c channels anywhere (the control); "
        "'none': all channels (the baseline)",
        choices=("prefix", "random", "none"),
    )
    first: int = option(4, "smallest prefix", unit="channels", least=1)
    step: int = option(
        4,
        "distance between prefixes; the choices are first, first + step, ... and always all channels",
        unit="channels",
        least=1,
    )
    choices: list[int] = option(
        [],
        "explicit list of prefixes, ascending, ending with all channels; replaces first and step",
        unit="channels",
        least=1,
    )
    per: str = option(
        "sample", "draw one prefix per 'step' (as the official code) or per 'sample'", choices=("step", "sample")
    )
    draws: int = option(1, "prefixes drawn per step: one encoding, several decodings; the losses are averaged", least=1)
    always_full: bool = option(False, "all channels are always among the draws")
    always_min_max: bool = option(False, "the smallest prefix and all channels are always among the draws")
    choice_weights: list[float] = option(
        [],
        "relative frequency of each prefix among the random draws, in the order of the choices; empty means equal",
        least=0,
    )
    draw_weights: list[float] = option(
        [], "weight of each draw's loss in the average of a step, one for each of draws; empty means equal", least=0
    )


@dataclass
class TrainingConfig:
    """One training run."""

    images: int = option(64_000, "length of training", unit="images", least=1)
    batch_size: int = option(64, "images per optimizer step, over all workers together", unit="images", least=1)
    learning_rate: float = option(1e-3, "peak learning rate of AdamW", above=0)
    beta1: float = option(0.9, "AdamW's first moment decay", least=0, below=1)
    beta2: float = option(0.999, "AdamW's second moment decay", least=0, below=1)
    weight_decay: float = option(0.0, "AdamW's weight decay; biases and normalisation weights are exempt", least=0)
    warmup_images: int = option(3_200, "linear warm-up of the learning rate", unit="images", least=0)
    schedule: str = option(
        "cosine", "after warm-up: 'constant', or 'cosine' down to zero at the end", choices=("constant", "cosine")
    )
    clip_norm: float = option(1.0, "gradients are scaled down to this norm; 0 means never", least=0)
    ema_decay: float = option(
        0.999,
        "decay of the weights' exponential moving average per optimizer step; ramps up at the start; 0 means none",
        least=0,
        below=1,
    )
    accumulation: int = option(
        1,
        "parts that a worker computes its share of a batch in, one after the other: less memory, the same step "
        "(an adaptive adversarial weight and batch statistics are of each part)",
        least=1,
        affects_result=False,
    )
    bf16: bool = option(False, "compute in bfloat16 under autocast; weights and optimizer stay float32")
    channels_last: bool = option(
        False, "memory format of convolutions; same numbers, faster on GPUs", affects_result=False
    )
    compile: bool = option(
        False, "compile the model; same numbers within tolerance, slow first step", affects_result=False
    )
    activation_checkpointing: bool = option(
        False,
        "compute activations again for the backward pass instead of keeping them: less memory, the same numbers",
        affects_result=False,
    )
    parallel: str = option(
        "ddp",
        "several workers: 'ddp' keeps the network and its optimizer whole on each, 'fsdp' shards them over all (FSDP2)",
        choices=("ddp", "fsdp"),
        affects_result=False,
    )
    log_images: int = option(
        3_200,
        "interval of progress lines and tracked metrics; also how often a worker asks whether its node is about to go",
        unit="images",
        affects_result=False,
        least=1,
    )
    checkpoint_images: int = option(16_000, "interval of checkpoints", unit="images", affects_result=False, least=1)
    keep_checkpoints: int = option(2, "checkpoints kept; older ones are deleted", affects_result=False, least=1)


@dataclass
class PerceptualConfig:
    """LPIPS over VGG-16; its weights are not ours to ship."""

    weight: float = option(0.0, "weight of LPIPS in the loss; 0 means none", least=0)
    vgg: str = option("", "path or URI of VGG-16's weights in torchvision's layout (vgg16-397923af.pth)")
    vgg_sha256: str = option(
        "", "SHA-256 of that file; given, it is checked, and the file may move without a new training"
    )
    heads: str = option("", "path or URI of LPIPS' linear heads for VGG (lpips/weights/v0.1/vgg.pth of its repository)")
    heads_sha256: str = option("", "SHA-256 of that file")


@dataclass
class AdversarialConfig:
    """A PatchGAN discriminator with hinge loss, which begins anew in every phase."""

    weight: float = option(
        0.0, "weight of the discriminator's judgement in the loss; 0 means no discriminator", least=0
    )
    adaptive: bool = option(
        True,
        "multiply the weight with the ratio of both losses' gradients at the decoder's last layer (VQGAN, arXiv 2012.09841)",
    )
    start_images: int = option(
        0,
        "the autoencoder sees the judgement after so many images of the phase; the discriminator learns from its start",
        unit="images",
        least=0,
    )
    width: int = option(64, "channels of the discriminator's first layer", unit="channels", least=1)
    layers: int = option(3, "its layers that halve the image; 3 judge patches of 70 pixels", least=1)
    norm: str = option(
        "group",
        "its normalisation: 'group' (the same for any number of workers), 'batch' (as PatchGAN, statistics per worker) or 'none'",
        choices=("group", "batch", "none"),
    )
    learning_rate: float = option(0.0, "its peak learning rate; 0 means the phase's", least=0)
    beta1: float = option(0.5, "its first moment decay", least=0, below=1)
    beta2: float = option(0.9, "its second moment decay", least=0, below=1)


@dataclass
class LossesConfig:
    """What the autoencoder minimises: a weighted sum."""

    l1: float = option(1.0, "weight of the mean absolute error of pixels in [-1, 1]", least=0)
    perceptual: PerceptualConfig = section(PerceptualConfig, "LPIPS")
    adversarial: AdversarialConfig = section(AdversarialConfig, "PatchGAN")


@dataclass
class PhaseConfig:
    """A phase of the autoencoder's training. It begins with the averaged weights of the phase before and a new optimizer."""

    name: str = option("training", "name in progress lines and reports", affects_result=False)
    resolution: int = option(0, "side of the training images; 0 means data.resolution", unit="pixels", least=0)
    parts: list[str] = option(
        ["all"],
        "what trains, the rest is frozen: all, encoder, decoder, encoder_head (its last layer), decoder_input (its first), "
        "decoder_head (its last norm and layer), decoder_last_stage, or beginnings of parameter names (decoder.up_blocks.1)",
    )
    losses: LossesConfig = section(LossesConfig, "what it minimises")
    prefix: PrefixConfig = section(PrefixConfig, "structured latent space")
    training: TrainingConfig = section(TrainingConfig, "length, optimizer, switches")


@dataclass
class AutoencoderConfig:
    """The autoencoder: graph, structured latent space, training."""

    preset: str = option(
        "custom",
        "name of a published model (dc-ae-f32c128-1.5, dc-ae-f64c128-1.5, dc-ae-f32c32-in-1.0, ...), or 'custom' for the "
        "fields below, which default to the graph of 1.5, small",
    )
    latent_channels: int = option(32, "C, channels of the latent", unit="channels", least=1)
    encoder_widths: list[int] = option(
        [16, 16, 32, 64], "channels of each encoder stage; n stages compress by 2**(n-1)", least=1
    )
    encoder_depths: list[int] = option(
        [0, 1, 1, 2],
        "blocks of each encoder stage; 0 first: the first layer halves the image (all published models but Sana's)",
        least=0,
    )
    decoder_widths: list[int] = option(
        [16, 16, 32, 64], "channels of each decoder stage, from image to latent", least=1
    )
    decoder_depths: list[int] = option([0, 1, 1, 2], "blocks of each decoder stage, from image to latent", least=0)
    encoder_blocks: list[str] = option(
        ["ResBlock"],
        "block of each encoder stage, or one for all: ResBlock (1.1, 1.5), EViTGLU (linear attention; the deep stages of 1.0), "
        "EViTS5GLU (at two scales; Sana)",
    )
    decoder_blocks: list[str] = option(["ResBlock"], "the same for the decoder, from image to latent")
    decoder_norms: list[str] = option(
        ["rms_norm"],
        "norm in the ResBlocks of each decoder stage, or one for all: rms_norm, batch_norm (1.0; statistics per worker)",
    )
    decoder_acts: list[str] = option(
        ["silu"], "activation in the ResBlocks of each decoder stage, or one for all: silu, relu (1.0)"
    )
    latent_shortcuts: bool = option(
        False, "shortcuts around the encoder's last and the decoder's first layer (1.0, Sana)"
    )
    out_act: str = option("silu", "activation before the decoder's last layer; 1.0 has relu", choices=("silu", "relu"))
    downsample: str = option(
        "pixel_unshuffle",
        "how the encoder halves: 'pixel_unshuffle', or 'conv' (strided; Sana)",
        choices=("pixel_unshuffle", "conv"),
    )
    upsample: str = option(
        "pixel_shuffle",
        "how the decoder doubles: 'pixel_shuffle', or 'interpolate' (nearest neighbours; Sana)",
        choices=("pixel_shuffle", "interpolate"),
    )
    flip: bool = option(True, "mirror half of the training images")
    initial: str = option(
        "",
        "autoencoder whose weights the training begins with: URI of an artifact of ours, of a diffusers or official folder, or of "
        "a weights file; it must have the same graph. Empty means new weights",
    )
    prefix: PrefixConfig = section(PrefixConfig, "structured latent space", always_min_max=True)
    losses: LossesConfig = section(LossesConfig, "what it minimises")
    training: TrainingConfig = section(TrainingConfig, "training of the autoencoder", learning_rate=3e-3)
    phases: list[PhaseConfig] = sections(
        "phases of the training, one after the other; each takes over losses, prefix and training from above and changes what it "
        "says (in YAML, or as autoencoder.phases[0].training.images=1000); empty means a single phase as above"
    )


@dataclass
class LatentsConfig:
    """The latent cache."""

    dtype: str = option("float16", "stored type of the latents", choices=("float16", "bfloat16", "float32"))
    mirror: bool = option(False, "also store the latent of every mirrored training image")
    batch_size: int = option(
        64, "images encoded at once; does not change the latents", unit="images", affects_result=False, least=1
    )


@dataclass
class DenoiserConfig:
    """The diffusion transformer (DiT)."""

    depth: int = option(4, "transformer blocks", least=1)
    width: int = option(128, "channels of a token", least=1)
    heads: int = option(4, "attention heads", least=1)
    patch_size: int = option(1, "side of a patch", unit="latent pixels", least=1)
    mlp_ratio: float = option(4.0, "width of the MLP over width", above=0)
    label_std: float = option(
        1.0,
        "standard deviation of new class embeddings; the DiT paper has 0.02, short runs learn classes faster with 1",
        above=0,
    )
    class_dropout: float = option(
        0.1, "share of labels replaced by the null class, for classifier-free guidance", least=0, below=1
    )


@dataclass
class DiffusionConfig:
    """The latent diffusion model: linear-path flow matching with augmented diffusion training."""

    enabled: bool = option(
        True,
        "false leaves out caching, diffusion and sampling: only autoencoders are trained and measured",
        affects_result=False,
    )
    denoiser: DenoiserConfig = section(DenoiserConfig, "the denoiser")
    prefix: PrefixConfig = section(PrefixConfig, "augmented diffusion training", always_full=True)
    scaling: str = option(
        "scalar",
        "'scalar': one scale for all channels, which keeps the order that structured latents carry as energy; "
        "'per_channel': unit variance per channel",
        choices=("scalar", "per_channel"),
    )
    shift: bool = option(True, "remove each channel's mean")
    time_distribution: str = option(
        "logit_normal", "distribution of the time t of a training sample", choices=("uniform", "logit_normal")
    )
    training: TrainingConfig = section(
        TrainingConfig,
        "training of the denoiser",
        images=128_000,
        learning_rate=1e-3,
        ema_decay=0.998,
    )


@dataclass
class SamplingConfig:
    """Generation."""

    images: int = option(1_000, "images to generate, spread evenly over the classes", unit="images", least=1)
    solver: str = option("heun", "ODE solver", choices=("euler", "heun"))
    steps: int = option(12, "steps of the solver", least=1)
    guidance: float = option(3.0, "classifier-free guidance scale; 1 means none", least=0)
    guidance_start: float = option(0.0, "guidance acts from this time on (0 is noise, 1 is data)", least=0, most=1)
    guidance_end: float = option(1.0, "guidance acts until this time", least=0, most=1)
    prefix: int = option(0, "generate only the first channels; 0 means all", unit="channels", least=0)
    seed: int = option(0, "image i is a pure function of (seed, i) and the weights", least=0)
    shard_images: int = option(
        500, "generated images per shard, the unit of commit", unit="images", affects_result=False, least=1
    )
    batch_size: int = option(250, "images generated at once", unit="images", affects_result=False, least=1)


@dataclass
class EvaluationConfig:
    """What is measured."""

    reconstruction_images: int = option(
        1_000, "validation images for the reconstruction curves", unit="images", least=1
    )
    features: str = option(
        "train",
        "'train': train the feature network on the run's own image set (its distance is never called FID)",
        choices=("train",),
    )
    feature_images: int = option(36_000, "length of the feature network's training", unit="images", least=1)
    probe_images: int = option(
        2_000,
        "training images of the linear probe, which tells how much of the class the first channels give away; 0 leaves it out",
        unit="images",
        least=0,
    )
    channel_images: int = option(
        64,
        "validation images on which each latent channel is left out in turn, to see what it does",
        unit="images",
        least=1,
    )
    full_channel_gap_db: float = option(
        1.5,
        "warn that structure costs too much when the structured autoencoder, with all channels, is further behind the baseline "
        "than this in PSNR",
        unit="dB",
        least=0,
    )
    neighbours: int = option(3, "k of the precision and recall manifolds", least=1)
    grid_images: int = option(8, "rows of the partial-channel grid", unit="images", affects_result=False, least=1)


@dataclass
class ScalingConfig:
    """Workers and resources. Nothing here changes a result beyond float tolerance."""

    num_workers: int = option(
        0, "training workers; 0 means one per GPU of the cluster, or one without GPUs", affects_result=False, least=0
    )
    use_gpu: str = option(
        "auto", "'auto' uses GPUs when the cluster has any", choices=("auto", "yes", "no"), affects_result=False
    )
    cpus_per_worker: int = option(
        0,
        "CPUs of a training worker; 0 means an even share of the cluster's",
        unit="CPUs",
        affects_result=False,
        least=0,
    )
    encoders: list[int] = option(
        [1, 0],
        "least and most encoder or sampler actors; 0 as the most means as many as the cluster holds",
        affects_result=False,
        least=0,
    )
    max_failures: int = option(
        3, "restarts of a training stage after lost workers before the stage fails", affects_result=False, least=0
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
        "${oc.env:DCAE15_STORAGE,'~/dcae15'}", "path or URI under which all artifacts live", affects_result=False
    )
    name: str = option("shapes", "name of the run in reports and MLflow", affects_result=False)
    seed: int = option(0, "seed of weights, order, draws and noise", least=0)
    baseline: bool = option(True, "also train the same autoencoder without masks, to compare with")
    random_control: bool = option(
        False, "also train the same autoencoder with random instead of prefix masks, as a control"
    )
    data: DataConfig = section(DataConfig, "images")
    autoencoder: AutoencoderConfig = section(AutoencoderConfig, "the autoencoder")
    latents: LatentsConfig = section(LatentsConfig, "the latent cache")
    diffusion: DiffusionConfig = section(DiffusionConfig, "the latent diffusion model")
    sampling: SamplingConfig = section(SamplingConfig, "generation")
    evaluation: EvaluationConfig = section(EvaluationConfig, "measurements")
    scaling: ScalingConfig = section(ScalingConfig, "workers and resources")
    tracking: TrackingConfig = section(TrackingConfig, "experiment tracking")
