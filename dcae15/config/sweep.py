"""A sweep: many pipelines that differ in some fields, as a YAML file says; a study is a sweep with a question and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dcae15.config.layers import Layer

Value = bool | int | float | str | list[Any]
"""A value of a configuration field, as YAML gives it."""

SEARCHES = ("grid", "random", "tpe")
SCHEDULERS = ("none", "asha")
FIGURES = ("over_images", "over_channels", "over_field", "per_arm", "against")


@dataclass(frozen=True)
class Range:
    """Numbers to draw from, for the searches ``random`` and ``tpe``.

    Attributes:
        low: least value.
        high: greatest value.
        log: draw the logarithm evenly.
        step: distance between values; 0 means any number (any whole number for a field of whole numbers).
    """

    low: float
    high: float
    log: bool = False
    step: float = 0.0


@dataclass(frozen=True)
class Figure:
    """A figure of a study.

    Attributes:
        kind: ``over_images`` (a measure at milestones over images seen, one line per arm), ``over_channels`` (measures of
            reconstructions over the channels kept, one line per autoencoder and arm), ``over_field`` (measures over a numeric
            field, one line per arm), ``per_arm`` (measures by arm, a dot per seed), ``against`` (one measure against another, a dot
            per trial, with the rank correlation).
        measures: names of metrics such as ``frechet_distance.generated``; for ``over_channels`` of measures such as ``psnr``; for
            ``against`` the two axes, x first, or several x and at last y.
        field: dotted path, for ``over_field``.
        reference: for ``over_images``, the arm whose last value the others are to reach.
        title: heading.
    """

    kind: str
    measures: tuple[str, ...]
    field: str = ""
    reference: str = ""
    title: str = ""


@dataclass(frozen=True)
class Trial:
    """One pipeline of a sweep.

    Attributes:
        id: 10 hex digits, named by arm, seed and values: the same in every run of the sweep.
        arm: name of the arm; empty in a sweep without arms.
        seed: of the pipeline.
        values: what the search chose, by dotted path; without the arm's own values.
    """

    id: str
    arm: str
    seed: int
    values: Mapping[str, Value]


@dataclass(frozen=True)
class Sweep:
    """What a sweep's file says, with one scale chosen.

    Attributes:
        name: of the sweep.
        question: what it is to answer; empty for a plain search.
        scale: name of the scale, such as ``laptop``; empty when the file has none.
        config: paths or URIs of configuration files below everything else; in the file relative to its own folder.
        set: fields of all trials, by dotted path.
        arms: fields by arm and dotted path; empty means a single arm without a name.
        seeds: each arm and point of the space runs with each of these.
        space: the values, or the range of values, of each searched field.
        search: ``grid`` (every combination), ``random`` or ``tpe`` (Optuna's tree-structured Parzen estimator).
        trials: how many to draw, for ``random`` and ``tpe``.
        skip_invalid: leave out combinations of a grid whose fields contradict each other, instead of refusing the sweep.
        scheduler: ``none``, or ``asha``, which stops the worse part of the trials at milestones.
        metric: what trials are compared by, such as ``frechet_distance.generated``.
        mode: ``min`` or ``max``.
        reduction: ASHA keeps one of so many trials at each milestone.
        include: names or files of other sweeps whose trials are shown together with this one's, which then may have none.
        figures: see `Figure`.
        concurrent: trials at once; 0 means as many as the cluster holds.
        cpus_per_trial: CPUs of a trial where no GPUs are used.
        gpus_per_trial: GPUs of a trial where GPUs are used.
        origin: the file that says all this; named in errors.
        layers: what the files of ``config`` say, so that trials run where these files are not.
    """

    name: str
    question: str = ""
    scale: str = ""
    config: tuple[str, ...] = ()
    set: Mapping[str, Value] = field(default_factory=dict)
    arms: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    space: Mapping[str, tuple[Value, ...] | Range] = field(default_factory=dict)
    search: str = "grid"
    trials: int = 0
    skip_invalid: bool = False
    scheduler: str = "none"
    metric: str = "frechet_distance.generated"
    mode: str = "min"
    reduction: int = 3
    include: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    concurrent: int = 0
    cpus_per_trial: int = 1
    gpus_per_trial: int = 1
    origin: str = ""
    layers: tuple[Layer, ...] = ()
