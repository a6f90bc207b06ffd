"""The measures a report knows: name, unit, direction and definition; and how a number is written."""

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
    higher_is_better: bool = True
    noise: float = 0.0  # differences below this are called equal

    @property
    def direction(self) -> str:
        """Which way is good, in words."""
        return "higher is better" if self.higher_is_better else "lower is better"


MEASURES: dict[str, Measure] = {
    "psnr": Measure(
        "PSNR",
        "Peak signal-to-noise ratio between reconstruction and input.",
        unit="dB",
        noise=0.05,
    ),
    "ssim": Measure(
        "SSIM",
        "Structural similarity between reconstruction and input; 1 means equal.",
        digits=3,
        noise=0.005,
    ),
    "frechet_distance": Measure(
        "Fréchet distance",
        "Distance between the feature distributions of the images and of real images, over features of a network "
        "trained on this image set. It is not FID, which is defined over Inception features: compare it only within "
        "this protocol.",
        higher_is_better=False,
        noise=0.05,
    ),
    "precision": Measure(
        "Precision",
        "Share of the generated images that lie on the manifold of the real ones (nearest neighbours in feature "
        "space): how plausible the images are.",
        digits=3,
    ),
    "recall": Measure(
        "Recall",
        "Share of the real images that lie on the manifold of the generated ones: how much of the variety is covered.",
        digits=3,
    ),
    "class_accuracy": Measure(
        "Class accuracy",
        "Share of the images that a classifier trained on this image set puts into the class they should show.",
        digits=3,
        noise=0.01,
    ),
}


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
