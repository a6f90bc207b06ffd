"""What each measure needs of the images. The plan, prepare_images and evaluate ask here, and nobody else says it.

A measure that has too few images is left out with a sentence. No training fails at its end because of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dcae15 import artifacts
from dcae15.config import Config, EvaluationConfig

LEAST_RESOLUTION = 16
"""Side of the smallest image, in pixels, that the feature network can look at."""
FRECHET = 2
"""Least images of a set whose features have a covariance, and which can differ from their mean."""


def manifold(neighbours: int) -> int:
    """Return the least images of a set whose precision and recall can be told: each needs so many others."""
    return neighbours + 1


HELD_OUT = manifold(EvaluationConfig().neighbours)
"""Images that a source without validation images holds out at least: what all measures need as they are by default. It is the same
whatever is configured, so that the settings of measures make no other image set."""


@dataclass(frozen=True)
class Counts:
    """How many images there are to measure on."""

    train: int
    val: int


def counts_of(config: Config, images: str) -> Counts | None:
    """Return how many images an image set holds, or will hold if it is of the embedded ones; None where only the source knows."""
    if artifacts.finished(images):
        splits = artifacts.ImageSet.open(images).splits
        return Counts(splits["train"].count, splits["val"].count)
    data = config.data
    if data.source != "shapes" or data.classes:
        return None
    return Counts(*(min(count, data.limit or count) for count in (data.shapes.images, data.shapes.val_images)))


def left_out(config: Config, counts: Counts, generated: int | None = None) -> Iterator[str]:
    """Yield a sentence for each measure that evaluate leaves out for want of images; nothing where all can be measured.

    ``generated`` is the number of generated images: those of ``sampling.images``, or none without diffusion, where it is None.
    """
    settings, sampling = config.evaluation, config.sampling
    generated = (sampling.images if config.diffusion.enabled else 0) if generated is None else generated
    if not counts.val:
        yield (
            "every measure is left out: it needs validation images, and there are none; "
            f"{_more_images('validation')}, or train without measuring"
        )
        return
    shown = min(counts.val, settings.reconstruction_images)
    if shown < FRECHET:
        limit = "" if counts.val < FRECHET else ": raise evaluation.reconstruction_images, and only evaluate runs again"
        yield (
            f"the Fréchet distance of reconstructions and the shares of frequencies are left out: they need {FRECHET} validation "
            f"images, and there is {shown}"
            f"{limit or '; ' + _more_images('validation')}"
        )
    if generated:
        yield from generation_left_out(config, counts, generated)


def generation_left_out(
    config: Config, counts: Counts, generated: int, wanted: str = "sampling.images"
) -> Iterator[str]:
    """Yield a sentence for each measure of generated images that is left out; ``wanted`` is the field that says their number."""
    compared, k = min(counts.val, generated), config.evaluation.neighbours
    there = f"{counts.val} validation and {generated} generated images"
    generate = f"raise {wanted}, and only what is generated is made again"
    more = _more_images("validation") if compared == counts.val else generate
    if compared < FRECHET:
        yield f"the Fréchet distance of generated images is left out: it needs {FRECHET} of each, and there are {there}; {more}"
    if compared < manifold(k):
        lower = (
            f"lower evaluation.neighbours below {compared}, and only the measuring runs again; or "
            if compared > 1
            else ""
        )
        yield (
            f"precision and recall of generated images are left out: evaluation.neighbours {k} needs {manifold(k)} images of each, "
            f"and there are {there}; {lower}{more}"
        )
    if min(compared, counts.train) < FRECHET <= compared:
        yield (
            f"the Fréchet distance of training images is left out: it needs {FRECHET} of them, and there is {counts.train}"
        )


def _more_images(split: str) -> str:
    return (
        f"add {split} images to the source, or raise data.val_fraction where it has none of its own, and everything is made anew "
        "from the images on"
    )
