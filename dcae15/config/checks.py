"""The checks of a config: each field's range, then what fields say about each other."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Iterator

from dcae15.config.autoencoder import AutoencoderConfig, LossesConfig, PrefixConfig, TrainingConfig
from dcae15.config.fields import leaves
from dcae15.config.phases import PARTS, mask_kind, phases_of, prefix_choices, trained_prefixes, whole_batches
from dcae15.config.schema import Config
from dcae15.config.sizes import latent_channels, spatial_compression
from dcae15.errors import ConfigError

_BOUNDS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "least": ("at least", lambda value, bound: value >= bound),
    "most": ("at most", lambda value, bound: value <= bound),
    "above": ("above", lambda value, bound: value > bound),
    "below": ("below", lambda value, bound: value < bound),
}


def nearest(word: str, words: Collection[str]) -> str:
    """Return a hint such as ``; did you mean 'cosine'?``, or nothing when no word comes near."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def check(config: Config, sections: Collection[str] | None = None, given: Collection[str] = ()) -> None:
    """Refuse a config that cannot work.

    Args:
        config: all values, interpolations resolved.
        sections: only these top-level sections matter to the caller; None means all. A rule between sections counts
            only where all of them matter.
        given: artifacts that are given instead of made: in the configuration, sizes and channels need not fit each other where
            one of them is not from there; the stage checks those that it opens.

    Raises:
        ConfigError: names every field that is out of range or contradicts another, its value, and what to do.
    """
    problems = list(_range_problems(config, sections))
    if not problems:  # the rules below divide by what was checked above
        elsewhere = not {"images", "autoencoder", "latents"}.isdisjoint(given)
        for needs, rule in _RULES:
            if (elsewhere and needs > {"data"}) or ("latents" in given and needs == {"autoencoder", "diffusion"}):
                continue
            if sections is None or needs <= set(sections):
                problems += rule(config)
    if problems:
        raise ConfigError("\n".join(problems))


def _range_problems(config: Config, sections: Collection[str] | None) -> Iterator[str]:
    for path, f, value in leaves(config):
        if sections is not None and "." in path and path.split(".")[0] not in sections:
            continue
        choices = f.metadata["choices"]
        if choices and value not in choices:
            yield f"{path} is '{value}'; it must be {_one_of(choices)}{nearest(value, choices)}"
        numbers = [n for n in (value if isinstance(value, list) else [value]) if isinstance(n, int | float)]
        for number in numbers:
            broken = [
                f"{words} {bound}"
                for words, holds, bound in ((*_BOUNDS[name], b) for name, b in f.metadata["bounds"].items())
                if not holds(number, bound)
            ]
            if not math.isfinite(number):
                yield f"{path} is {value}; it must be a finite number"
            elif broken:
                yield f"{path} is {value}; it must be {' and '.join(broken)}"


def _one_of(words: Collection[str]) -> str:
    return " or ".join(f"'{word}'" for word in words)


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


def _autoencoder(config: Config) -> Iterator[str]:
    autoencoder = config.autoencoder
    if autoencoder.preset == "custom":
        names = ("encoder_widths", "encoder_depths", "decoder_widths", "decoder_depths")
        lengths = {name: len(getattr(autoencoder, name)) for name in names}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"autoencoder.{name} has {n}" for name, n in lengths.items())
            yield f"{found}; all four lists need one number for each stage"
        elif lengths["encoder_widths"] < 2:
            yield "autoencoder.encoder_widths has fewer than 2 stages; an autoencoder compresses by 2**(stages - 1)"
        else:
            stages = lengths["encoder_widths"]
            for name, words in _GRAPH_WORDS.items():
                found = getattr(autoencoder, name)
                if len(found) not in (1, stages):
                    yield f"autoencoder.{name} has {len(found)} entries; give one for each of the {stages} stages, or one for all"
                for word in found:
                    if word not in words:
                        yield f"autoencoder.{name} has '{word}'; it must be {_one_of(words)}{nearest(word, words)}"
            for side in ("encoder", "decoder") if autoencoder.latent_shortcuts else ():
                if (width := getattr(autoencoder, f"{side}_widths")[-1]) % autoencoder.latent_channels:
                    yield (
                        f"autoencoder.{side}_widths ends with {width}, not a multiple of autoencoder.latent_channels "
                        f"{autoencoder.latent_channels}, which autoencoder.latent_shortcuts need; change one of them or use "
                        "latent_shortcuts=false"
                    )
    yield from _phases(autoencoder)


_GRAPH_WORDS = {
    "encoder_blocks": ("ResBlock", "EViTGLU", "EViTS5GLU"),
    "decoder_blocks": ("ResBlock", "EViTGLU", "EViTS5GLU"),
    "decoder_norms": ("rms_norm", "batch_norm"),
    "decoder_acts": ("silu", "relu"),
}


def _phases(autoencoder: AutoencoderConfig) -> Iterator[str]:
    for i, phase in enumerate(phases_of(autoencoder)):
        path = f"autoencoder.phases[{i}]" if autoencoder.phases else "autoencoder"
        yield from _prefix(f"{path}.prefix", phase.prefix, latent_channels(autoencoder))
        if phase.prefix.kind == "weighted":
            yield (
                f"{path}.prefix.kind is 'weighted', which weights the loss of latent channels; an autoencoder's loss is of pixels: "
                "use it for diffusion.prefix.kind only"
            )
        yield from _training(f"{path}.training", phase.training)
        yield from _losses(f"{path}.losses", phase.losses, phase.training.images)
        if not phase.parts:
            yield f"{path}.parts is empty: everything would be frozen; name what trains, such as [all] or [decoder_head]"
        for part in phase.parts:
            if part not in PARTS and not part.startswith(("encoder.", "decoder.")):
                yield (
                    f"{path}.parts has '{part}'; it must be {_one_of(PARTS)}, or the beginning of parameter names such as "
                    f"decoder.up_blocks.1{nearest(part, PARTS)}"
                )


def _losses(path: str, losses: LossesConfig, images: int) -> Iterator[str]:
    perceptual, adversarial = losses.perceptual, losses.adversarial
    if not losses.l1 and not perceptual.weight:
        yield f"{path}.l1 and {path}.perceptual.weight are 0: nothing asks for the image; give one of them a weight"
    for name, source in (("vgg", perceptual.vgg), ("heads", perceptual.heads)):
        if perceptual.weight and not source:
            yield (
                f"{path}.perceptual.weight is {perceptual.weight:g}, but {path}.perceptual.{name} is empty: "
                f"{PERCEPTUAL_SOURCES[name]}; or set the weight to 0"
            )
    if adversarial.weight and adversarial.start_images >= images:
        yield (
            f"{path}.adversarial.start_images is {adversarial.start_images}, but the phase ends after {images} images: "
            "the discriminator would never be heard; start it earlier or set its weight to 0"
        )


LPIPS_LEAST_SIDE = 16
"""VGG-16 halves an image four times before its last features."""

PERCEPTUAL_SOURCES = {
    "vgg": "LPIPS needs VGG-16's weights; download vgg16-397923af.pth from download.pytorch.org/models and give its path or URI",
    "heads": "LPIPS needs its linear heads; download lpips/weights/v0.1/vgg.pth from the repository "
    "richzhang/PerceptualSimilarity and give its path or URI",
}
"""Where the weights of LPIPS come from, by field."""


def _diffusion(config: Config) -> Iterator[str]:
    denoiser = config.diffusion.denoiser
    if denoiser.width % denoiser.heads:
        yield (
            f"diffusion.denoiser.width {denoiser.width} is not a multiple of diffusion.denoiser.heads "
            f"{denoiser.heads}; each head needs the same share of the channels"
        )
    training, milestones = config.diffusion.training, config.diffusion.milestones
    if sorted(set(milestones)) != milestones:
        yield f"diffusion.milestones {milestones} must be ascending, without repeats"
    elif milestones and milestones[-1] > whole_batches(training):
        yield (
            f"diffusion.milestones ends with {milestones[-1]:,} images, beyond the training's diffusion.training.images "
            f"{training.images:,}; leave it out or train longer"
        )
    yield from _training("diffusion.training", training)


def _prefix(path: str, prefix: PrefixConfig, channels: int) -> Iterator[str]:
    if prefix.kind == "none":
        return
    if not prefix.choices and prefix.first > channels:
        yield f"{path}.first is {prefix.first}, more than the latent's {channels} channels; lower it"
    if prefix.choices:
        if sorted(set(prefix.choices)) != prefix.choices:
            yield f"{path}.choices {prefix.choices} must be ascending, without repeats"
        elif prefix.choices[-1] != channels:
            yield f"{path}.choices {prefix.choices} must end with all {channels} channels of the latent"
    count = len(prefix_choices(prefix, channels))
    if any(weight == 0 for weight in prefix.choice_weights[:-1]):
        yield f"{path}.choice_weights {prefix.choice_weights} never draw a prefix; leave it out of the choices instead"
    for name, expected, of in (("choice_weights", count, "choices"), ("draw_weights", prefix.draws, "draws")):
        weights = getattr(prefix, name)
        if weights and (len(weights) != expected or not sum(weights)):
            yield f"{path}.{name} is {weights}; give one number for each of the {expected} {of}, not all 0"


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
    f, resolution = spatial_compression(config.autoencoder), config.data.resolution
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
    f = spatial_compression(autoencoder)
    for i, phase in enumerate(phases_of(autoencoder)):
        path = f"autoencoder.phases[{i}]" if autoencoder.phases else "autoencoder"
        if phase.resolution % f:
            yield f"{path}.resolution is {phase.resolution}, not a multiple of the autoencoder's spatial compression {f}"
        if phase.resolution > resolution:
            yield (
                f"{path}.resolution is {phase.resolution}, larger than the prepared images of {resolution} pixels; "
                "raise data.resolution"
            )
        side, adversarial = phase.resolution or resolution, phase.losses.adversarial
        if phase.losses.perceptual.weight and side < LPIPS_LEAST_SIDE:
            yield (
                f"{path}.losses.perceptual.weight is {phase.losses.perceptual.weight:g}, but LPIPS needs images of "
                f"{LPIPS_LEAST_SIDE} pixels or more, and these have {side}; set it to 0"
            )
        least = 3 * 2**adversarial.layers
        if adversarial.weight and side < least:
            yield (
                f"{path}.losses.adversarial.layers is {adversarial.layers}, which needs images of {least} pixels or more, and "
                f"these have {side}; lower it"
            )


def _latents(config: Config) -> Iterator[str]:
    f, resolution = spatial_compression(config.autoencoder), config.latents.resolution
    if resolution > config.data.resolution:
        yield (
            f"latents.resolution is {resolution}, larger than the prepared images of {config.data.resolution} pixels; "
            "raise data.resolution, or use 0 for the images' own"
        )
    if resolution % f:
        yield f"latents.resolution is {resolution}, not a multiple of the autoencoder's spatial compression {f}"


def _patches(config: Config) -> Iterator[str]:
    f, resolution = spatial_compression(config.autoencoder), config.data.resolution
    name = "latents" if config.latents.resolution else "data"
    resolution = config.latents.resolution or resolution
    side, patch = resolution // f, config.diffusion.denoiser.patch_size
    if resolution % f == 0 and side % patch:
        yield (
            f"diffusion.denoiser.patch_size {patch} does not divide the latent's side {side} "
            f"({name}.resolution {resolution} / {f}); patch 1 always fits"
        )


def _same_prefixes(config: Config) -> Iterator[str]:
    channels = latent_channels(config.autoencoder)
    ours, seen = config.diffusion.prefix, trained_prefixes(config.autoencoder, channels)
    yield from _prefix("diffusion.prefix", ours, channels)
    if ours.kind == mask_kind(config.autoencoder) == "prefix":
        unseen = sorted(set(prefix_choices(ours, channels)) - set(seen))
        if unseen:
            yield (
                f"diffusion.prefix draws {unseen} channels, which autoencoder.prefix never trains "
                f"({seen}); give both the same first, step and choices"
            )


def _sampling(config: Config) -> Iterator[str]:
    sampling = config.sampling
    if sampling.guidance_start >= sampling.guidance_end:
        yield (
            f"sampling.guidance_start {sampling.guidance_start} must be below sampling.guidance_end "
            f"{sampling.guidance_end}; for no guidance use sampling.guidance=1"
        )


def _sampled_channels(config: Config) -> Iterator[str]:
    channels = latent_channels(config.autoencoder)
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
    workers = config.scaling.num_workers
    many = bool(config.autoencoder.phases)
    phases = enumerate(phases_of(config.autoencoder))
    for path, training in (
        *((f"autoencoder.phases[{i}].training" if many else "autoencoder.training", p.training) for i, p in phases),
        ("diffusion.training", config.diffusion.training),
    ):
        if training.batch_size < workers:
            yield (
                f"{path}.batch_size is {training.batch_size}, less than one image for each of scaling.num_workers "
                f"{workers}; use fewer workers or larger batches"
            )


def _general(config: Config) -> Iterator[str]:
    if not config.storage:
        yield "storage is empty; give a path or URI under which all artifacts live"
    if not re.fullmatch(r"[\w.-]+", config.name):
        yield f"name is '{config.name}'; use letters, digits, '.', '_' and '-' only"


_RULES: list[tuple[set[str], Callable[[Config], Iterator[str]]]] = [
    (set(), _general),
    ({"data"}, _data),
    ({"autoencoder"}, _autoencoder),
    ({"diffusion"}, _diffusion),
    ({"sampling"}, _sampling),
    ({"scaling"}, _scaling),
    ({"data", "autoencoder"}, _resolution),
    ({"data", "autoencoder", "latents"}, _latents),
    ({"data", "autoencoder", "diffusion"}, _patches),
    ({"autoencoder", "diffusion"}, _same_prefixes),
    ({"autoencoder", "sampling"}, _sampled_channels),
    ({"diffusion", "sampling"}, _guidance),
    ({"sampling", "evaluation"}, _evaluation),
    ({"autoencoder", "diffusion", "scaling"}, _shares),
]
