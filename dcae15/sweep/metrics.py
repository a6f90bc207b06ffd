"""The metrics by which trials are compared: headline numbers under names that are the same for any number of channels.

A name is ``<measure>.<autoencoder>[.<landmark>]`` or ``<measure>.generated``: ``psnr.structured.quarter`` is from a quarter of the
channels, ``object_sparsity.structured`` of a whole latent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from dcae15 import artifacts
from dcae15.channels import LANDMARKS, landmarks
from dcae15.config import Config
from dcae15.errors import ConfigError, nearest
from dcae15.evaluation import milestones
from dcae15.evaluation.verdict import plain
from dcae15.report.measures import MEASURES, RECONSTRUCTION, STRUCTURE, SUMMARY, Measure, measure_of
from dcae15.sweep.file import Figure, Sweep

WHOLE_LATENT = ("channels", "effective_rank", *SUMMARY)
GENERATION = (*milestones.METRICS, "frechet_distance_of_training_images", "images")
AT_MILESTONES = tuple(f"{name}.generated" for name in milestones.METRICS)
"""What schedulers and curves over the images seen can use."""
PARTS = {"eighth": "⅛", "quarter": "¼", "half": "½", "all": "all"}
"""How the landmarks are written."""


def trial_metrics(evaluation: artifacts.Evaluation) -> dict[str, float]:
    """Return the headline numbers of an evaluation, named so that they compare between trials.

    Curves are read at each of `dcae15.channels.LANDMARKS`, or at the measured prefix next to it. The rest is as in
    `dcae15.evaluation.verdict.headline_scalars`, without ``evaluation/``.
    """
    metrics: dict[str, float] = {}
    for arms in (evaluation.reconstruction, evaluation.structure):
        for arm, rows in ((arm, rows) for arm, rows in arms.items() if rows):
            by_prefix = {int(row["prefix"]): row for row in rows}
            for word, prefix in landmarks(by_prefix).items():
                row = by_prefix[prefix]
                metrics |= {f"{name}.{plain(arm)}.{word}": value for name, value in row.items() if name != "prefix"}
    for arm, values in evaluation.summary.items():
        metrics |= {f"{name}.{plain(arm)}": value for name, value in values.items()}
    return metrics | {f"{name}.generated": value for name, value in evaluation.generation.items()}


def metric_names(config: Config) -> set[str]:
    """Return the names that `trial_metrics` can give for a configuration; those of classes only where images have classes."""
    names = {
        f"{name}.{arm}.{word}" for arm in config.trained_arms for name in curve_names(config) for word in LANDMARKS
    }
    names |= {f"{name}.{arm}" for arm in config.trained_arms for name in WHOLE_LATENT}
    return names | ({f"{name}.generated" for name in GENERATION} if config.diffusion.enabled else set())


def curve_names(config: Config) -> set[str]:
    """Return the names of what is measured of each autoencoder over the channels kept."""
    perceptual = config.autoencoder.losses.perceptual
    left_out = set() if perceptual.vgg and perceptual.heads else {"lpips"}
    return {*RECONSTRUCTION, *STRUCTURE} - left_out - (set() if config.evaluation.probe_images else {"probe_accuracy"})


def check_metrics(sweep: Sweep, configs: Sequence[Config]) -> None:
    """Refuse a sweep that asks for a metric that no stage reports.

    ``configs`` are those of its trials and of those that it includes, or some that stand for them.

    Raises:
        ConfigError: names the file, the metric and the nearest ones. What trials are compared by must be reported by all of them,
            what a figure shows by one.
    """
    if not configs:
        return
    problems = list(_unknown("metric", [sweep.metric], set.intersection(*map(metric_names, configs))))
    if sweep.scheduler != "none" and not problems:
        problems += _unknown(f"scheduler is '{sweep.scheduler}'; metric", [sweep.metric], AT_MILESTONES)
    for i, figure in enumerate(sweep.figures):
        problems += _unknown(f"figures[{i}].measures", figure.measures, _shown(figure, configs))
    if problems:
        raise ConfigError("\n".join(f"{sweep.where}: {problem}" for problem in problems))


def _shown(figure: Figure, configs: Sequence[Config]) -> Collection[str]:
    if figure.kind == "over_images":
        return AT_MILESTONES if any(c.diffusion.enabled and c.diffusion.milestones for c in configs) else ()
    if figure.kind in ("over_channels", "autoencoders"):
        return set.union(set(SUMMARY if figure.kind == "autoencoders" else ()), *map(curve_names, configs))
    return set.union(*map(metric_names, configs))


def _unknown(key: str, asked: Iterable[str], known: Collection[str]) -> Iterator[str]:
    for name in (name for name in asked if name not in known):
        if not known:
            yield f"{key} '{name}' is measured at milestones, of which there are none; give diffusion.milestones"
        else:
            some = ", ".join(sorted(known)[:: max(1, len(known) // 8)])
            yield f"{key} '{name}' is reported by no stage" + (nearest(name, known) or f"; there are {some}, ...")


# --- what a name says


def split_metric(name: str) -> tuple[str, str, str]:
    """Split ``<measure>.<autoencoder>[.<landmark>]``; what is missing is empty."""
    measure, _, rest = name.partition(".")
    arm, _, landmark = rest.rpartition(".")
    return (measure, arm, landmark) if landmark in LANDMARKS and arm else (measure, rest, "")


def metric_measure(name: str) -> Measure:
    """Return how the measure of a metric is named, written and read."""
    return measure_of(split_metric(name)[0])


def metric_label(name: str) -> str:
    """Return a metric's name for people, without its direction: 'Fréchet distance, generated images'."""
    measure, arm, landmark = split_metric(name)
    where = {"generated": "generated images", "structured": ""}.get(arm, arm)
    part = "" if not landmark else "all channels" if landmark == "all" else f"{PARTS[landmark]} of the channels"
    return ", ".join(filter(None, (measure_of(measure).label, where, part)))


def metric_notes(name: str) -> str:
    """Return the unit and the direction of a metric, as far as the report knows them."""
    measure = metric_measure(name)
    return ", ".join(filter(None, (measure.unit, measure.direction if split_metric(name)[0] in MEASURES else "")))


def higher_is_better(sweep: Sweep, name: str) -> bool:
    """Whether higher values of a metric are better: as the sweep says of its own, as the report knows of others."""
    if name == sweep.metric:
        return sweep.mode == "max"
    return split_metric(name)[0] in MEASURES and metric_measure(name).higher_is_better is True
