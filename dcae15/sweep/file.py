"""What a sweep's file may say. A study is a sweep with a question and figures."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Strict, StringConstraints, Tag
from pydantic.dataclasses import dataclass

from dcae15.config import Layer, field_type

Value = bool | int | float | str | list[Any]
"""A value of a configuration field, as YAML gives it."""
FigureKind = Literal["over_images", "over_channels", "over_field", "per_arm", "against", "autoencoders"]
Whole = Annotated[
    int, Strict(), BeforeValidator(lambda v: int(v) if isinstance(v, float) and v.is_integer() else v)
]  # 1e6 is whole, true is not
Number = Annotated[float, Strict()]
Texts = Annotated[tuple[str, ...], BeforeValidator(lambda v: v if isinstance(v, list | tuple) else [v])]
FORM = ConfigDict(extra="forbid", coerce_numbers_to_str=True)


@dataclass(frozen=True, config=FORM)
class Range:
    """Numbers to draw from, for the searches ``random`` and ``tpe``.

    Attributes:
        low: least value.
        high: greatest value.
        log: draw the logarithm evenly.
        step: distance between values; 0 means any number (any whole number for a field of whole numbers).
    """

    low: Number
    high: Number
    log: Annotated[bool, Strict()] = False
    step: Number = 0.0


@dataclass(frozen=True, config=FORM)
class Figure:
    """A figure of a study.

    Attributes:
        kind: ``over_images`` (a measure at milestones over images seen, one line per arm), ``over_channels`` (measures of
            reconstructions over the channels kept, one line per autoencoder and arm), ``over_field`` (measures over a numeric
            field, one line per arm), ``per_arm`` (measures by arm, a dot per seed), ``against`` (one measure against another, a dot
            per trial, with the rank correlation), ``autoencoders`` (a table of those that each trial measured side by side).
        measures: names of metrics such as ``frechet_distance.generated``; for ``over_channels`` and ``autoencoders`` of measures
            such as ``psnr``; for ``against`` the two axes, x first, or several x and at last y.
        field: dotted path, for ``over_field``.
        reference: for ``over_images``, the arm whose last value the others are to reach; for ``autoencoders``, the one that the
            others are subtracted from, within each trial.
        title: heading.
    """

    kind: FigureKind
    measures: Texts
    field: str = ""
    reference: str = ""
    title: str = ""


Values = Annotated[
    Annotated[tuple[Any, ...], Tag("values")] | Annotated[Range, Tag("range")],
    Discriminator(lambda found: "values" if isinstance(found, list | tuple) else "range"),
]


@dataclass(frozen=True, config=FORM)
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

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$")]
    question: str = ""
    scale: str = ""
    config: Texts = ()
    set: dict[str, Any] = field(default_factory=dict)
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    seeds: tuple[Annotated[Whole, Field(ge=0)], ...] = (0,)
    space: dict[str, Values] = field(default_factory=dict)
    search: Literal["grid", "random", "tpe"] = "grid"
    trials: Annotated[Whole, Field(ge=0)] = 0
    skip_invalid: Annotated[bool, Strict()] = False
    scheduler: Literal["none", "asha"] = "none"
    metric: Annotated[str, StringConstraints(min_length=1)] = "frechet_distance.generated"
    mode: Literal["min", "max"] = "min"
    reduction: Annotated[Whole, Field(ge=2)] = 3
    include: Texts = ()
    figures: tuple[Figure, ...] = ()
    concurrent: Annotated[Whole, Field(ge=0)] = 0
    cpus_per_trial: Annotated[Whole, Field(ge=1)] = 1
    gpus_per_trial: Annotated[Whole, Field(ge=1)] = 1
    origin: str = ""
    layers: tuple[Layer, ...] = ()

    @property
    def where(self) -> str:
        """The file, or else the name: what errors begin with."""
        return self.origin or self.name


def type_of(path: str) -> str:
    """Return what a configuration field holds: ``int``, ``float``, ``str``, ..."""
    return field_type(path)
