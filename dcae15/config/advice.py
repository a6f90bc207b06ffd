"""Warnings about a valid config: values that have no effect, and combinations that rarely make sense."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dcae15.config.fields import leaves
from dcae15.config.phases import mask_kind, prefix_choices
from dcae15.config.schema import Config
from dcae15.config.sizes import latent_channels


def warnings_for(config: Config) -> list[str]:
    """Return one sentence for each value that has no effect, and each unusual combination; none for the defaults."""
    return [*_without_effect(config), *_unusual(config)]


def _without_effect(config: Config) -> Iterator[str]:
    defaults = {path: value for path, _, value in leaves(Config())}
    values = {path: value for path, _, value in leaves(config)}
    changed = [path for path, value in values.items() if path in defaults and value != defaults[path]]

    def ignored(reason: str, *paths: str) -> Iterator[str]:
        found = [path for path in changed if path.startswith(paths)]
        if found:
            yield f"{', '.join(found)}: no effect, because {reason}"

    if config.data.source != "shapes":
        yield from ignored("data.source is not 'shapes'", "data.shapes.")
    else:
        yield from ignored("data.source is 'shapes'", "data.kind")
    if config.data.crop == "center":
        yield from ignored("data.crop is 'center'", "data.store_side", "data.random_crop_min_area")
    if config.autoencoder.preset != "custom":
        graph = ("latent_", "encoder_", "decoder_", "out_act", "downsample", "upsample")
        yield from ignored("autoencoder.preset names the graph", *(f"autoencoder.{name}" for name in graph))
    sections: tuple[tuple[str, Any], ...] = (("autoencoder", config.autoencoder), ("diffusion", config.diffusion))
    for name, owner in sections:
        path = f"{name}.prefix"
        if owner.prefix.kind == "none":
            details = ("first", "step", "choices", "per", "draws", "always_")
            yield from ignored(f"{path}.kind is 'none'", *(f"{path}.{detail}" for detail in details))
        elif owner.prefix.choices:
            yield from ignored(f"{path}.choices is given", f"{path}.first", f"{path}.step")
    if not (config.diffusion.milestones and config.diffusion.enabled):
        yield from ignored("there are no diffusion.milestones", "evaluation.milestone_images")
    if config.sampling.guidance == 1:
        yield from ignored("sampling.guidance is 1", "sampling.guidance_")
    if not config.tracking.enabled:
        yield from ignored("tracking.enabled is false", "tracking.uri", "tracking.experiment")


def _unusual(config: Config) -> Iterator[str]:
    seen, ours = mask_kind(config.autoencoder), config.diffusion.prefix
    if ours.kind not in ("none", "weighted", seen):
        yield (
            f"diffusion.prefix.kind is '{ours.kind}' but autoencoder.prefix.kind is '{seen}': the denoiser trains "
            "on channel subsets that the autoencoder was never asked to decode; right for a control, wrong otherwise"
        )
    channels = latent_channels(config.autoencoder)
    trained = [channels] if ours.kind == "weighted" else prefix_choices(ours, channels)
    if config.sampling.prefix and config.sampling.prefix not in trained:
        yield (
            f"sampling.prefix {config.sampling.prefix} is not among the prefixes that diffusion.prefix trains "
            f"{trained}: expect poor images"
        )
    data = config.data
    if data.source == "shapes" and data.shapes.resolution != data.resolution:
        yield (
            f"data.shapes.resolution {data.shapes.resolution} is not data.resolution {data.resolution}: "
            "the drawn images are resized and lose their fine patterns"
        )
    held_out = min(data.shapes.val_images, data.limit or data.shapes.val_images)
    if data.source == "shapes" and config.evaluation.reconstruction_images > held_out:
        yield (
            f"evaluation.reconstruction_images {config.evaluation.reconstruction_images} is more than the "
            f"{held_out} validation images"
        )
    if config.sampling.images < 500:
        yield (
            f"sampling.images is {config.sampling.images}: Fréchet distances over so few images are strongly biased; "
            "compare them only at the same count"
        )
