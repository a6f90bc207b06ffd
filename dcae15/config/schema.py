"""The schema: every configuration field with its default, unit, range, meaning, and when it is active; training lies beside."""

from __future__ import annotations

import math
from typing import Literal

from dcae15.channels import Prefix
from dcae15.config.arms import CONTROLS, arms_of
from dcae15.config.training import AutoencoderConfig, TrainingConfig
from dcae15.fields import Count, Index, Section, neutral, option, section, when


class ShapesConfig(Section):
    """The embedded images: drawn objects (structure) under textures and fine patterns (detail)."""

    images: int = option(12_000, "training images to draw", unit="images", ge=1)
    val_images: int = option(2_000, "validation images to draw", unit="images", ge=1)
    classes: int = option(10, "object classes, 2 to 12", ge=2, le=12)
    resolution: int = option(32, "side of the drawn images", unit="pixels", ge=8)
    seed: int = option(0, "seed of the drawing; image i is a pure function of (seed, split, i)", ge=0)


_OWN = when("source", is_not="shapes")
_WHOLE = when("crop", "random")


class DataConfig(Section):
    """Where images come from and how they are prepared."""

    source: str = option(
        "shapes",
        "'shapes' for the embedded images, or the path or URI of a folder of images, of ILSVRC 2012's tars, of Hugging Face's "
        "Parquet files or of WebDataset tars, or of a CSV or Parquet list; docs/data.md describes each",
    )
    kind: Literal["auto", "folder", "imagenet_tars", "parquet", "webdataset", "list"] = option(
        "auto", "what source is; 'auto' decides by the names of the files and says what it took", active_if=_OWN
    )
    labels: Literal["auto", "top", "leaf", "none"] = option(
        "auto",
        "what says the class of an image: 'auto' its label, else the layout of the folders; 'top' the first folder below the "
        "split, 'leaf' all folders down to the image, 'none' nothing: all images are one class",
        active_if=_OWN,
    )
    join: bool = option(
        False, "take several sets side by side in source as one, instead of asking which", active_if=_OWN
    )
    classes: list[str] = option([], "take only the classes of these names, and number them anew; [] takes all")
    shapes: ShapesConfig = section(
        ShapesConfig, "the embedded images; read only when source is 'shapes'", active_if=when("source", "shapes")
    )
    resolution: int = option(32, "side of the prepared images", unit="pixels", ge=1)
    crop: Literal["center", "random"] = option(
        "center",
        "'center': resize and centre-crop while preparing (box halving, then bicubic, as ADM does); "
        "'random': keep whole images, random-resized crops while training, centre crops elsewhere",
    )
    store_side: int = option(
        0,
        "with crop 'random': shorter side of the stored images; 0 means resolution * 9 / 8",
        active_if=_WHOLE,
        unit="pixels",
        ge=0,
    )
    random_crop_min_area: float = option(
        0.25, "with crop 'random': smallest share of the image's area that a crop covers", active_if=_WHOLE, gt=0, le=1
    )
    encoding: Literal["raw", "png"] = option(
        "raw",
        "how prepared images are stored: 'raw' (uncompressed, fastest for small images) or 'png' (lossless, half the size); images "
        "that are kept whole are always png",
        active_if=when("crop", "center"),
    )
    shard_images: int = option(1_024, "images per shard, the unit of commit", unit="images", ge=1)
    limit: int = option(0, "use only the first images of each split; 0 means all", unit="images", ge=0)
    seed: int = option(
        0,
        "seed of the order in which images are stored, of the validation images that are held out, and of the feature network that "
        "judges all runs on these images; it is not the pipeline's own, so that distances compare between seeds",
        ge=0,
    )
    val_fraction: float = option(
        0.1,
        "share of each class held out for validation when the source has no validation images",
        active_if=_OWN,
        gt=0,
        lt=1,
    )
    upscale: bool = option(
        True,
        "false leaves out images whose shorter side is below resolution (with crop 'random': below that of the stored images), "
        "instead of enlarging them",
    )
    max_bad_fraction: float = option(0.01, "fail when more than this share of the images is unreadable", ge=0, le=1)
    min_side: int = option(8, "images with a shorter side below this are quarantined", unit="pixels", ge=1)
    max_pixels: int = option(
        100_000_000, "images with more pixels than this are quarantined unread", unit="pixels", ge=1
    )


class LatentsConfig(Section):
    """The latent cache."""

    dtype: Literal["float16", "bfloat16", "float32"] = option("float16", "stored type of the latents")
    mirror: bool = option(False, "also store the latent of every mirrored training image")
    resolution: int = option(
        0,
        "side that images are reduced to before they are encoded; 0 means the image set's. One image set thus gives latent sets "
        "of several resolutions",
        unit="pixels",
        ge=0,
    )
    batch_size: int = neutral(64, "images encoded at once; does not change the latents", unit="images", ge=1)


class DenoiserConfig(Section):
    """The diffusion transformer (DiT)."""

    depth: int = option(4, "transformer blocks", ge=1)
    width: int = option(128, "channels of a token", ge=1)
    heads: int = option(4, "attention heads", ge=1)
    patch_size: int = option(1, "side of a patch", unit="latent pixels", ge=1)
    mlp_ratio: float = option(4.0, "width of the MLP over width", gt=0)
    label_std: float = option(
        1.0,
        "standard deviation of new class embeddings; the DiT paper has 0.02, short runs learn classes faster with 1",
        gt=0,
    )
    class_dropout: float = option(
        0.1, "share of labels replaced by the null class, for classifier-free guidance", ge=0, lt=1
    )


class DiffusionConfig(Section):
    """The latent diffusion model: linear-path flow matching with augmented diffusion training."""

    enabled: bool = neutral(
        True, "false leaves out caching, diffusion and sampling: only autoencoders are trained and measured"
    )
    denoiser: DenoiserConfig = section(DenoiserConfig, "the denoiser")
    prefix: Prefix = section(Prefix, "augmented diffusion training", always_full=True)
    scaling: Literal["scalar", "per_channel"] = option(
        "scalar",
        "'scalar': one scale for all channels, which keeps the order that structured latents carry as energy; "
        "'per_channel': unit variance per channel",
    )
    shift: bool = option(True, "remove each channel's mean")
    time_distribution: Literal["uniform", "logit_normal"] = option(
        "logit_normal", "distribution of the time t of a training sample"
    )
    milestones: list[Count] = option(
        [],
        "images seen by the denoiser at which its averaged weights are kept and measured, so that quality can be followed over the "
        "training; [] measures only the end",
        unit="images",
    )
    training: TrainingConfig = section(
        TrainingConfig, "training of the denoiser", images=128_000, learning_rate=1e-3, ema_decay=0.998
    )

    @property
    def whole_milestones(self) -> list[int]:
        """The images seen at which milestones really are: whole batches."""
        batch = self.training.batch_size
        return sorted({math.ceil(images / batch) * batch for images in self.milestones})


_GUIDED = when("guidance", is_not=1)


class SamplingConfig(Section):
    """Generation."""

    images: int = option(1_000, "images to generate, spread evenly over the classes", unit="images", ge=1)
    solver: Literal["euler", "heun"] = option("heun", "ODE solver")
    steps: int = option(12, "steps of the solver", ge=1)
    guidance: float = option(3.0, "classifier-free guidance scale; 1 means none", ge=0)
    guidance_start: float = option(
        0.0, "guidance acts from this time on (0 is noise, 1 is data)", active_if=_GUIDED, ge=0, le=1
    )
    guidance_end: float = option(1.0, "guidance acts until this time", active_if=_GUIDED, ge=0, le=1)
    prefix: int = option(0, "generate only the first channels; 0 means all", unit="channels", ge=0)
    seed: int = option(0, "image i is a pure function of (seed, i) and the weights", ge=0)
    shard_images: int = neutral(500, "generated images per shard, the unit of commit", unit="images", ge=1)
    batch_size: int = neutral(250, "images generated at once", unit="images", ge=1)


class EvaluationConfig(Section):
    """What is measured."""

    reconstruction_images: int = option(1_000, "validation images for the reconstruction curves", unit="images", ge=1)
    feature_images: int = option(36_000, "length of the feature network's training", unit="images", ge=1)
    probe_images: int = option(
        2_000,
        "training images of the linear probe, which tells how much of the class the first channels give away; 0 leaves it out",
        unit="images",
        ge=0,
    )
    channel_images: int = option(
        64,
        "validation images on which each latent channel is left out in turn, to see what it does",
        unit="images",
        ge=1,
    )
    full_channel_gap_db: float = option(
        1.5,
        "warn that structure costs too much when the structured autoencoder, with all channels, is further behind the baseline "
        "than this in PSNR",
        active_if=lambda own, root, path: "" if "baseline" in root.trained_arms else "no baseline is trained",
        unit="dB",
        ge=0,
    )
    milestone_images: int = option(
        0,
        "images to generate at each of diffusion.milestones; 0 means as many as sampling.images. Distances compare only between "
        "equal numbers",
        active_if=(when("diffusion.enabled"), when("diffusion.milestones")),
        unit="images",
        ge=0,
    )
    neighbours: int = option(3, "k of the precision and recall manifolds", active_if=when("diffusion.enabled"), ge=1)
    grid_images: int = option(8, "rows of the partial-channel grid", unit="images", ge=1)
    batch_size: int = neutral(64, "images encoded, decoded and compared at once", unit="images", ge=1)


class ScalingConfig(Section):
    """Workers and resources. Nothing here changes a result beyond float tolerance."""

    num_workers: int = neutral(0, "training workers; 0 means one per GPU of the cluster, or one without GPUs", ge=0)
    use_gpu: Literal["auto", "yes", "no"] = neutral("auto", "'auto' uses GPUs when the cluster has any")
    cpus_per_worker: int = neutral(
        0, "CPUs of a training worker; 0 means an even share of the cluster's", unit="CPUs", ge=0
    )
    encoders: list[Index] = neutral(
        [1, 0],
        "least and most encoder or sampler actors; 0 as the most means as many as the cluster holds. [1, 0] on one machine without "
        "GPUs is the command's own process",
    )
    cache_folder: str = neutral(
        "",
        "folder on a local disk of each node for copies of remote shards; empty means one below the system's temporary folder",
        active_if=when("cache_gib"),
    )
    cache_gib: float = neutral(
        64.0, "most that a node keeps of remote shards on its disk; 0 keeps none", unit="GiB", ge=0
    )
    max_failures: int = neutral(3, "restarts of a training stage after lost workers before the stage fails", ge=0)


class TrackingConfig(Section):
    """MLflow."""

    enabled: bool = neutral(True, "track with MLflow")
    uri: str = neutral(
        "",
        "tracking server or database; empty means MLFLOW_TRACKING_URI, or an SQLite file beside the artifacts",
        active_if=when("enabled"),
    )
    experiment: str = neutral("dcae15", "name of the MLflow experiment", active_if=when("enabled"))


class Config(Section):
    """Everything that a pipeline needs."""

    storage: str = neutral("${oc.env:DCAE15_STORAGE,'~/dcae15'}", "path or URI under which all artifacts live")
    name: str = neutral("shapes", "name of the run in reports and MLflow")
    seed: int = option(0, "seed of weights, order, draws and noise; the images have data.seed", ge=0)
    arms: list[Literal[CONTROLS]] = option(  # pyright: ignore[reportInvalidTypeForm]
        ["baseline"],
        "controls to train beside the structured autoencoder and to compare it with: 'baseline' has no masks, 'random' has masks "
        "of as many channels, anywhere; [] trains none",
    )
    data: DataConfig = section(DataConfig, "images")
    autoencoder: AutoencoderConfig = section(AutoencoderConfig, "the autoencoder")
    latents: LatentsConfig = section(LatentsConfig, "the latent cache", active_if=when("diffusion.enabled"))
    diffusion: DiffusionConfig = section(
        DiffusionConfig, "the latent diffusion model", active_if=when("diffusion.enabled")
    )
    sampling: SamplingConfig = section(SamplingConfig, "generation", active_if=when("diffusion.enabled"))
    evaluation: EvaluationConfig = section(EvaluationConfig, "measurements")
    scaling: ScalingConfig = section(ScalingConfig, "workers and resources")
    tracking: TrackingConfig = section(TrackingConfig, "experiment tracking")

    @property
    def trained_arms(self) -> list[str]:
        """The arms that are trained, in reading order; see `dcae15.config.arms.arms_of`."""
        return arms_of(self.autoencoder, self.arms)
