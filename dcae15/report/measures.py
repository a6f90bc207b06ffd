"""The measures a report knows: name, unit, direction, definition and source; and how a number is written."""

from __future__ import annotations

import math
from dataclasses import dataclass

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Measure:
    """How one measure is named, written and read."""

    label: str
    definition: str
    unit: str = ""
    digits: int = 2
    higher_is_better: bool | None = True  # None: neither is better by itself
    noise: float = 0.0  # differences below this are called equal
    source: str = ""

    @property
    def direction(self) -> str:
        """Which way is good, in words; empty where neither is."""
        return {True: "higher is better", False: "lower is better", None: ""}[self.higher_is_better]

    @property
    def title(self) -> str:
        """Label, unit and direction, for the head of a panel or a row."""
        notes = ", ".join(note for note in (self.unit, self.direction) if note)
        return self.label + (f" ({notes})" if notes else "")


OURS = "Definition of this project"

MEASURES: dict[str, Measure] = {
    "psnr": Measure(
        "PSNR",
        "Peak signal-to-noise ratio between reconstruction and input.",
        unit="dB",
        noise=0.05,
        source="Mean over images, 8-bit levels",
    ),
    "ssim": Measure(
        "SSIM",
        "Structural similarity between reconstruction and input; 1 means equal.",
        digits=3,
        noise=0.005,
        source="Wang et al. 2004",
    ),
    "lpips": Measure(
        "LPIPS",
        "Distance between the activations of VGG-16 for reconstruction and input; 0 means equal.",
        digits=3,
        higher_is_better=False,
        noise=0.002,
        source="Zhang et al. 2018",
    ),
    "frechet_distance": Measure(
        "Fréchet distance",
        "Distance between the feature distributions of the images and of real images, over features of a network "
        "trained on this image set. It is not FID, which is defined over Inception features: compare it only within "
        "this protocol.",
        higher_is_better=False,
        noise=0.05,
        source="Heusel et al. 2017 for the distance; the features are this run's own",
    ),
    "precision": Measure(
        "Precision",
        "Share of the generated images that lie on the manifold of the real ones (nearest neighbours in feature "
        "space): how plausible the images are.",
        digits=3,
        source="Kynkäänniemi et al. 2019",
    ),
    "recall": Measure(
        "Recall",
        "Share of the real images that lie on the manifold of the generated ones: how much of the variety is covered.",
        digits=3,
        source="Kynkäänniemi et al. 2019",
    ),
    "class_accuracy": Measure(
        "Class accuracy",
        "Share of the images that a classifier trained on this image set puts into the class they should show.",
        digits=3,
        noise=0.01,
        source=OURS,
    ),
    "low_frequency_share": Measure(
        "Low frequencies restored",
        "Share of the images' energy below 1/8 cycle per pixel, where objects and layout are, that the first c channels "
        "restore; 0 is no better than the mean image.",
        digits=3,
        noise=0.005,
        source=OURS,
    ),
    "high_frequency_share": Measure(
        "High frequencies restored",
        "The same of the rest of the spectrum: edges, texture, detail.",
        digits=3,
        noise=0.005,
        source=OURS,
    ),
    "explained_share": Measure(
        "All energy restored",
        "The same of the whole spectrum: the explained variance of the pixels.",
        digits=3,
        noise=0.005,
        source=OURS,
    ),
    "probe_accuracy": Measure(
        "Linear probe",
        "Share of validation images whose class a ridge regression reads from the first c latent channels (at most "
        "4 × 4 cells of each), trained on training images. Guessing gives one over the number of classes; a class that "
        "only shows in products of channels, as a shape of any colour on any ground, stays there.",
        digits=3,
        noise=0.01,
        source="Alain & Bengio 2016; ridge by cross-validation, Golub et al. 1979",
    ),
    "effective_rank": Measure(
        "Effective rank",
        "How many directions of the first c raw channels carry the variance: the exponential of the entropy of the "
        "covariance's spectrum. Energy gathered in few channels lowers it.",
        digits=1,
        higher_is_better=None,
        source="Roy & Vetterli 2007",
    ),
    "object_sparsity": Measure(
        "Object sparsity",
        "How unevenly object structure is spread over the channels: 0 is all alike, 1 is in one channel. Of the "
        "low-frequency change of the image that each channel makes.",
        digits=3,
        higher_is_better=None,
        source="Hoyer 2004, of a quantity defined by this project",
    ),
    "object_front_share": Measure(
        "Objects in the front",
        "Part of the low-frequency change that the first quarter of the channels makes; evenly spread would be 0.25.",
        digits=3,
        noise=0.02,
        source=OURS,
    ),
    "detail_sparsity": Measure(
        "Detail sparsity",
        "As object sparsity, of the high frequencies.",
        digits=3,
        higher_is_better=None,
        source="Hoyer 2004, of a quantity defined by this project",
    ),
    "detail_front_share": Measure(
        "Detail in the front",
        "Part of the high-frequency change that the first quarter of the channels makes: a front that holds objects "
        "but not all detail is a structured one.",
        digits=3,
        higher_is_better=None,
        source=OURS,
    ),
    "object_share": Measure(
        "Object share of a channel",
        "Low-frequency part of the change that a channel makes, averaged over the channels: where it is small, most "
        "channels carry detail, which is the sparsity of object information that the paper describes.",
        digits=3,
        higher_is_better=None,
        source=OURS,
    ),
}

RECONSTRUCTION = ("psnr", "ssim", "lpips", "frechet_distance", "class_accuracy")
"""Measures of what the first channels decode to, in reading order."""

STRUCTURE = ("low_frequency_share", "high_frequency_share", "explained_share", "probe_accuracy", "effective_rank")
"""Measures of what the first channels hold, in reading order."""

SUMMARY = ("object_sparsity", "object_front_share", "detail_sparsity", "detail_front_share", "object_share")
"""Measures of a whole latent, in reading order."""


def measure_of(key: str) -> Measure:
    """Return a measure, also of a name that no report knows."""
    return MEASURES.get(key) or Measure(key.replace("_", " ").capitalize(), "", digits=3)


def measured(value: float | None) -> bool:
    """Whether the value is a finite number."""
    return value is not None and math.isfinite(value)


def number(value: float | None, digits: int = 2, unit: str = "") -> str:
    """Write a number with its unit, or 'not measured' where it is missing, NaN or infinite."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    return f"{value:.{digits}f}" + (f"\N{NO-BREAK SPACE}{unit}" if unit else "")


def duration(seconds: float) -> str:
    """Write seconds as '0.4 s', '42 s', '3 min 05 s' or '2 h 07 min'."""
    if not math.isfinite(seconds):
        return NOT_MEASURED
    if seconds < 9.95:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes:02d} min".replace(" ", "\N{NO-BREAK SPACE}")
    if minutes:
        return f"{minutes} min {whole % 60:02d} s".replace(" ", "\N{NO-BREAK SPACE}")
    return f"{whole}\N{NO-BREAK SPACE}s"
