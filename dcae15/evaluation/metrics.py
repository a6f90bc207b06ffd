"""The metrics by which trials of a sweep are compared: headline numbers under names that are the same for any channels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from dcae15 import artifacts
from dcae15.channels import LANDMARKS, nearest_prefix
from dcae15.config import Config, Figure, Sweep, mask_kind
from dcae15.errors import ConfigError, nearest
from dcae15.evaluation import milestones
from dcae15.evaluation.verdict import plain

RECONSTRUCTION = ("psnr", "ssim", "frechet_distance", "class_accuracy", "lpips")
STRUCTURE = ("explained_share", "low_frequency_share", "high_frequency_share", "effective_rank", "probe_accuracy")
SUMMARY = (
    "channels",
    "effective_rank",
    "object_sparsity",
    "object_front_share",
    "detail_sparsity",
    "detail_front_share",
    "object_share",
)
GENERATION = (*milestones.METRICS, "frechet_distance_of_training_images", "images")
AT_MILESTONES = tuple(f"{name}.generated" for name in milestones.METRICS)
"""What schedulers and curves over the images seen can use."""


def trial_metrics(evaluation: artifacts.Evaluation) -> dict[str, float]:
    """Return the headline numbers of an evaluation, named so that they compare between trials.

    Curves are read at an ``eighth``, a ``quarter`` and ``all`` of the channels, or the measured prefix next to it:
    ``psnr.structured.quarter``. The rest is as in `dcae15.evaluation.verdict.headline_scalars`, without ``evaluation/``:
    ``object_sparsity.structured``, ``frechet_distance.generated``.
    """
    metrics: dict[str, float] = {}
    for arms in (evaluation.reconstruction, evaluation.structure):
        for arm, rows in ((arm, rows) for arm, rows in arms.items() if rows):
            by_prefix = {int(row["prefix"]): row for row in rows}
            for word, share in LANDMARKS.items():
                row = by_prefix[nearest_prefix(list(by_prefix), share)]
                metrics |= {f"{name}.{plain(arm)}.{word}": value for name, value in row.items() if name != "prefix"}
    for arm, values in evaluation.summary.items():
        metrics |= {f"{name}.{plain(arm)}": value for name, value in values.items()}
    return metrics | {f"{name}.generated": value for name, value in evaluation.generation.items()}


def metric_names(config: Config) -> set[str]:
    """Return the names that `trial_metrics` can give for a configuration; those of classes only where images have classes."""
    names = {f"{name}.{arm}.{word}" for arm in _arms(config) for name in curve_names(config) for word in LANDMARKS}
    names |= {f"{name}.{arm}" for arm in _arms(config) for name in SUMMARY}
    return names | ({f"{name}.generated" for name in GENERATION} if config.diffusion.enabled else set())


def curve_names(config: Config) -> set[str]:
    """Return the names of what is measured of each autoencoder over the channels kept."""
    perceptual = config.autoencoder.losses.perceptual
    left_out = set() if perceptual.vgg and perceptual.heads else {"lpips"}
    return {*RECONSTRUCTION, *STRUCTURE} - left_out - (set() if config.evaluation.probe_images else {"probe_accuracy"})


def _arms(config: Config) -> Iterator[str]:
    yield "structured"
    if config.baseline and mask_kind(config.autoencoder) != "none":
        yield "baseline"
    if config.random_control and mask_kind(config.autoencoder) == "prefix":
        yield "random"


def check_metrics(sweep: Sweep, configs: Iterable[Config]) -> None:
    """Refuse a sweep that asks for a metric that no stage reports.

    Args:
        sweep: the sweep.
        configs: of its trials, and of those that it includes; or some that stand for them.

    Raises:
        ConfigError: names the file, the metric and the nearest ones. What trials are compared by must be reported by all of them,
            what a figure shows by one.
    """
    configs = list(configs)
    problems: list[str] = []
    if configs:
        problems += _unknown("metric", [sweep.metric], set.intersection(*map(metric_names, configs)))
        if sweep.scheduler != "none" and not problems:
            problems += _unknown(f"scheduler is '{sweep.scheduler}'; metric", [sweep.metric], AT_MILESTONES)
        for i, figure in enumerate(sweep.figures):
            problems += _unknown(f"figures[{i}].measures", figure.measures, _shown(figure, configs))
    if problems:
        raise ConfigError("\n".join(f"{sweep.origin or sweep.name}: {problem}" for problem in problems))


def _shown(figure: Figure, configs: list[Config]) -> Collection[str]:
    if figure.kind == "over_images":
        return AT_MILESTONES if any(c.diffusion.enabled and c.diffusion.milestones for c in configs) else ()
    return set.union(*map(curve_names if figure.kind == "over_channels" else metric_names, configs))


def _unknown(key: str, asked: Iterable[str], known: Collection[str]) -> Iterator[str]:
    for name in (name for name in asked if name not in known):
        if not known:
            yield f"{key} '{name}' is measured at milestones, of which there are none; give diffusion.milestones"
        else:
            yield f"{key} '{name}' is reported by no stage{nearest(name, known) or _like(known)}"


def _like(known: Collection[str]) -> str:
    by_kind = sorted(known)
    return f"; there are {', '.join(by_kind[:: max(1, len(by_kind) // 8)])}, ..."
