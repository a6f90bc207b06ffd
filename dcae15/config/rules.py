"""The rules of a config: what fields say about each other. Ranges and words stand with the fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator

from dcae15.config.activity import active_fields
from dcae15.config.graph import autoencoder_spec
from dcae15.config.schema import Config
from dcae15.config.training import PARTS, AutoencoderConfig, LossesConfig, TrainingConfig
from dcae15.errors import ConfigError, InvalidConfigError, nearest
from dcae15.models.spec import DiTSpec


def check(config: Config, sections: Collection[str] | None = None, given: Collection[str] = ()) -> None:
    """Refuse a config whose fields contradict each other; sections that are not active count for nothing.

    Args:
        config: all values, interpolations resolved.
        sections: only these top-level sections matter to the caller; None means all. A rule between sections counts
            only where all of them matter.
        given: artifacts that are given instead of made: in the configuration, sizes and channels need not fit each other where
            one of them is not from there; the stage checks those that it opens.

    Raises:
        InvalidConfigError: names every field that contradicts another, its value, and what to do.
    """
    active = active_fields(config, config).keys()
    counts = active if sections is None else active & set(sections)
    elsewhere = not {"images", "autoencoder", "latents"}.isdisjoint(given)
    problems: list[str] = []
    for needs, rule in _RULES:
        if (elsewhere and needs > {"data"}) or ("latents" in given and needs == {"autoencoder", "diffusion"}):
            continue
        if needs <= counts:
            found = list(rule(config))
            problems += found
            if rule is _graph and found:
                counts -= {"autoencoder"}  # the rules below ask the graph
    if problems:
        raise InvalidConfigError("\n".join(problems))


def _general(config: Config) -> Iterator[str]:
    if len(set(config.arms)) < len(config.arms):
        yield f"arms is [{', '.join(config.arms)}]; name each control once"
    if not config.storage:
        yield "storage is empty; give a path or URI under which all artifacts live"
    if not re.fullmatch(r"[\w.-]+", config.name):
        yield f"name is '{config.name}'; use letters, digits, '.', '_' and '-' only"


def _data(config: Config) -> Iterator[str]:
    data = config.data
    if not data.source:
        yield "data.source is empty; give 'shapes' or the path or URI of a folder of images"
    if data.crop == "random" and 0 < data.store_side < data.resolution:
        yield (
            f"data.store_side is {data.store_side}, smaller than data.resolution {data.resolution}; "
            "crops would be enlarged: raise it, or use 0 for resolution * 9 / 8"
        )
    if data.source == "shapes" and data.shapes.resolution < data.min_side:
        yield (
            f"data.shapes.resolution is {data.shapes.resolution}, below data.min_side {data.min_side}: "
            "every drawn image would be quarantined; lower data.min_side"
        )


def _graph(config: Config) -> Iterator[str]:
    try:
        autoencoder_spec(config.autoencoder)
    except ConfigError as error:
        yield str(error)


def _phases(config: Config) -> Iterator[str]:
    autoencoder, channels = config.autoencoder, autoencoder_spec(config.autoencoder).latent_channels
    for i, phase in enumerate(autoencoder.all_phases):
        path = autoencoder.phase_path(i)
        yield from phase.prefix.problems(channels, f"{path}.prefix")
        if phase.prefix.kind == "weighted":
            yield (
                f"{path}.prefix.kind is 'weighted', which weights the loss of latent channels; an autoencoder's loss is of pixels: "
                "use it for diffusion.prefix.kind only"
            )
        yield from _training(f"{path}.training", phase.training)
        yield from _losses(f"{path}.losses", phase.losses, phase.training.images)
        if not phase.parts:
            yield f"{path}.parts is empty: everything would be frozen; name what trains, such as [all] or [decoder_head]"
        words = " or ".join(f"'{part}'" for part in PARTS)
        for part in phase.parts:
            if part not in PARTS and not part.startswith(("encoder.", "decoder.")):
                yield (
                    f"{path}.parts has '{part}'; it must be {words}, or the beginning of parameter names such as "
                    f"decoder.up_blocks.1{nearest(part, PARTS)}"
                )


def _losses(path: str, losses: LossesConfig, images: int) -> Iterator[str]:
    perceptual, adversarial = losses.perceptual, losses.adversarial
    if not losses.l1 and not perceptual.weight:
        yield f"{path}.l1 and {path}.perceptual.weight are 0: nothing asks for the image; give one of them a weight"
    for name, source in (("vgg", perceptual.vgg), ("heads", perceptual.heads)):
        if perceptual.weight and not source:
            from dcae15.losses.perceptual import (
                PERCEPTUAL_SOURCES,
            )  # torch is needed only where such a loss is asked for

            yield (
                f"{path}.perceptual.weight is {perceptual.weight:g}, but {path}.perceptual.{name} is empty: "
                f"{PERCEPTUAL_SOURCES[name]}; or set the weight to 0"
            )
    if adversarial.weight and adversarial.start_images >= images:
        yield (
            f"{path}.adversarial.start_images is {adversarial.start_images}, but the phase ends after {images} images: "
            "the discriminator would never be heard; start it earlier or set its weight to 0"
        )


def _diffusion(config: Config) -> Iterator[str]:
    training, milestones = config.diffusion.training, config.diffusion.milestones
    if sorted(set(milestones)) != milestones:
        yield f"diffusion.milestones {milestones} must be ascending, without repeats"
    elif milestones and milestones[-1] > training.whole_batches:
        yield (
            f"diffusion.milestones ends with {milestones[-1]:,} images, beyond the training's diffusion.training.images "
            f"{training.images:,}; leave it out or train longer"
        )
    yield from _training("diffusion.training", training)


def _denoiser(config: Config) -> Iterator[str]:
    ours = config.diffusion.denoiser
    sizes = {"depth": ours.depth, "width": ours.width, "heads": ours.heads, "mlp_ratio": ours.mlp_ratio}
    try:
        DiTSpec(latent_channels=1, latent_size=ours.patch_size, num_classes=1, patch_size=ours.patch_size, **sizes)
    except ConfigError as error:
        yield f"diffusion.denoiser.{error}"


def _training(path: str, training: TrainingConfig) -> Iterator[str]:
    if training.images < training.batch_size:
        yield (
            f"{path}.images is {training.images}, less than one batch ({path}.batch_size {training.batch_size}); "
            "train longer or with smaller batches"
        )
    if training.batch_size % training.accumulation:
        yield (
            f"{path}.batch_size {training.batch_size} is not a multiple of {path}.accumulation {training.accumulation}; "
            "a batch is computed in that many equal parts"
        )
    if training.warmup_images > training.images:
        yield (
            f"{path}.warmup_images is {training.warmup_images}, longer than the training itself "
            f"({path}.images {training.images}); shorten the warm-up"
        )


def _resolution(config: Config) -> Iterator[str]:
    f, resolution = autoencoder_spec(config.autoencoder).spatial_compression, config.data.resolution
    if resolution % f:
        below = resolution // f * f
        valid = f"{below} or {below + f}" if below else f"{f}"
        yield (
            f"data.resolution is {resolution}, not a multiple of the autoencoder's spatial compression {f}; "
            f"use {valid}, or another autoencoder"
        )
    yield from phase_size_problems(config.autoencoder, resolution)


def phase_size_problems(autoencoder: AutoencoderConfig, resolution: int) -> Iterator[str]:
    """Yield what is wrong with the sizes of the phases' images, given prepared images of ``resolution`` pixels."""
    f = autoencoder_spec(autoencoder).spatial_compression
    for i, phase in enumerate(autoencoder.all_phases):
        path = autoencoder.phase_path(i)
        if phase.resolution % f:
            yield f"{path}.resolution is {phase.resolution}, not a multiple of the autoencoder's spatial compression {f}"
        if phase.resolution > resolution:
            yield (
                f"{path}.resolution is {phase.resolution}, larger than the prepared images of {resolution} pixels; "
                "raise data.resolution"
            )
        yield from _least_sides(f"{path}.losses", phase.losses, phase.resolution or resolution)


def _least_sides(path: str, losses: LossesConfig, side: int) -> Iterator[str]:
    """Ask the networks behind the losses how small an image they can look at."""
    perceptual, adversarial = losses.perceptual, losses.adversarial
    if perceptual.weight:
        from dcae15.losses.perceptual import LEAST_IMAGE_SIDE

        if side < LEAST_IMAGE_SIDE:
            yield (
                f"{path}.perceptual.weight is {perceptual.weight:g}, but LPIPS needs images of {LEAST_IMAGE_SIDE} pixels or "
                f"more, and these have {side}; set it to 0"
            )
    if adversarial.weight:
        from dcae15.models.discriminator import least_image_side

        if side < (least := least_image_side(adversarial.layers)):
            yield (
                f"{path}.adversarial.layers is {adversarial.layers}, which needs images of {least} pixels or more, and "
                f"these have {side}; lower it"
            )


def _latents(config: Config) -> Iterator[str]:
    f, resolution = autoencoder_spec(config.autoencoder).spatial_compression, config.latents.resolution
    if resolution > config.data.resolution:
        yield (
            f"latents.resolution is {resolution}, larger than the prepared images of {config.data.resolution} pixels; "
            "raise data.resolution, or use 0 for the images' own"
        )
    if resolution % f:
        yield f"latents.resolution is {resolution}, not a multiple of the autoencoder's spatial compression {f}"


def _patches(config: Config) -> Iterator[str]:
    f, resolution = autoencoder_spec(config.autoencoder).spatial_compression, config.data.resolution
    name = "latents" if config.latents.resolution else "data"
    resolution = config.latents.resolution or resolution
    side, patch = resolution // f, config.diffusion.denoiser.patch_size
    if resolution % f == 0 and side % patch:
        yield (
            f"diffusion.denoiser.patch_size {patch} does not divide the latent's side {side} "
            f"({name}.resolution {resolution} / {f}); patch 1 always fits"
        )


def _same_prefixes(config: Config) -> Iterator[str]:
    channels = autoencoder_spec(config.autoencoder).latent_channels
    ours, seen = config.diffusion.prefix, config.autoencoder.trained_prefixes(channels)
    yield from ours.problems(channels, "diffusion.prefix")
    if ours.kind == config.autoencoder.mask_kind == "prefix":
        unseen = sorted(set(ours.prefixes(channels)) - set(seen))
        if unseen:
            yield (
                f"diffusion.prefix draws {unseen} channels, which autoencoder.prefix never trains "
                f"({seen}); give both the same first, step and choices"
            )


def _sampling(config: Config) -> Iterator[str]:
    sampling = config.sampling
    if sampling.guidance != 1 and sampling.guidance_start >= sampling.guidance_end:
        yield (
            f"sampling.guidance_start {sampling.guidance_start} must be below sampling.guidance_end "
            f"{sampling.guidance_end}; for no guidance use sampling.guidance=1"
        )


def _sampled_channels(config: Config) -> Iterator[str]:
    channels = autoencoder_spec(config.autoencoder).latent_channels
    if config.sampling.prefix > channels:
        yield f"sampling.prefix is {config.sampling.prefix}, more than the latent's {channels} channels; 0 means all"


def _guidance(config: Config) -> Iterator[str]:
    if config.sampling.guidance != 1 and config.diffusion.denoiser.class_dropout == 0:
        yield (
            f"sampling.guidance is {config.sampling.guidance}, but diffusion.denoiser.class_dropout 0 never trains "
            "the null class that guidance needs; use class_dropout=0.1 or guidance=1"
        )


def _evaluation(config: Config) -> Iterator[str]:
    k = config.evaluation.neighbours
    if config.sampling.images <= k:
        yield (
            f"sampling.images is {config.sampling.images}: too few for evaluation.neighbours {k}; "
            "Fréchet distances want at least some hundreds"
        )
    if 0 < config.evaluation.milestone_images <= k:
        yield (
            f"evaluation.milestone_images is {config.evaluation.milestone_images}: too few for evaluation.neighbours {k}; "
            "use more, or 0 for as many as sampling.images"
        )


def _scaling(config: Config) -> Iterator[str]:
    encoders = config.scaling.encoders
    if len(encoders) != 2 or encoders[0] < 1 or 0 < encoders[1] < encoders[0]:
        yield f"scaling.encoders is {encoders}; give [least, most] with 1 <= least <= most, or most 0 for no limit"


def _shares(config: Config) -> Iterator[str]:
    for i, phase in enumerate(config.autoencoder.all_phases):
        yield from _share(f"{config.autoencoder.phase_path(i)}.training", phase.training, config.scaling.num_workers)


def _denoiser_shares(config: Config) -> Iterator[str]:
    yield from _share("diffusion.training", config.diffusion.training, config.scaling.num_workers)


def _share(path: str, training: TrainingConfig, workers: int) -> Iterator[str]:
    if training.batch_size < workers:
        yield (
            f"{path}.batch_size is {training.batch_size}, less than one image for each of scaling.num_workers "
            f"{workers}; use fewer workers or larger batches"
        )


_RULES: list[tuple[set[str], Callable[[Config], Iterator[str]]]] = [
    (set(), _general),
    ({"data"}, _data),
    ({"autoencoder"}, _graph),
    ({"autoencoder"}, _phases),
    ({"diffusion"}, _diffusion),
    ({"diffusion"}, _denoiser),
    ({"sampling"}, _sampling),
    ({"scaling"}, _scaling),
    ({"data", "autoencoder"}, _resolution),
    ({"data", "autoencoder", "latents"}, _latents),
    ({"data", "autoencoder", "diffusion"}, _patches),
    ({"autoencoder", "diffusion"}, _same_prefixes),
    ({"autoencoder", "sampling"}, _sampled_channels),
    ({"diffusion", "sampling"}, _guidance),
    ({"sampling", "evaluation"}, _evaluation),
    ({"autoencoder", "scaling"}, _shares),
    ({"diffusion", "scaling"}, _denoiser_shares),
]
