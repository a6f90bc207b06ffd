"""What a sweep's file may say. A study is a sweep with a question and figures."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Strict, StringConstraints, Tag
from pydantic.dataclasses import dataclass

from dcae15.config import Layer

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
    """Numbers to draw from, for the searches ``random`` and ``tpe``."""

    low: Number  # least value
    high: Number  # greatest value
    log: Annotated[bool, Strict()] = False  # draw the logarithm evenly
    step: Number = 0.0  # distance between values; 0 means any number (any whole number for a field of whole numbers)


@dataclass(frozen=True, config=FORM)
class Figure:
    """A figure of a study."""

    # ``over_images`` (a measure at milestones over images seen, one line per arm), ``over_channels`` (measures of reconstructions
    # over the channels kept, one line per autoencoder and arm), ``over_field`` (measures over a numeric field, one line per arm),
    # ``per_arm`` (measures by arm, a dot per seed), ``against`` (one measure against another, a dot per trial, with the rank
    # correlation), ``autoencoders`` (a table of those that each trial measured side by side)
    kind: FigureKind
    # names of metrics such as ``frechet_distance.generated``; for ``over_channels`` and ``autoencoders`` of measures such as
    # ``psnr``; for ``against`` the two axes, x first, or several x and at last y
    measures: Texts
    field: str = ""  # dotted path, for ``over_field``
    # for ``over_images``, the arm whose last value the others are to reach; for ``autoencoders``, the one that the others are
    # subtracted from, within each trial
    reference: str = ""
    title: str = ""  # heading


Values = Annotated[
    Annotated[tuple[Any, ...], Tag("values")] | Annotated[Range, Tag("range")],
    Discriminator(lambda found: "values" if isinstance(found, list | tuple) else "range"),
]


@dataclass(frozen=True, config=FORM)
class Sweep:
    """What a sweep's file says, with one scale chosen."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$")]  # of the sweep
    question: str = ""  # what it is to answer; empty for a plain search
    scale: str = ""  # name of the scale, such as ``laptop``; empty when the file has none
    # paths or URIs of configuration files below everything else; in the file relative to its own folder
    config: Texts = ()
    set: dict[str, Any] = field(default_factory=dict)  # fields of all trials, by dotted path
    # fields by arm and dotted path; empty means a single arm without a name
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    seeds: tuple[Annotated[Whole, Field(ge=0)], ...] = (0,)  # each arm and point of the space runs with each of these
    space: dict[str, Values] = field(default_factory=dict)  # the values, or the range of values, of each searched field
    # ``grid`` (every combination), ``random`` or ``tpe`` (Optuna's tree-structured Parzen estimator)
    search: Literal["grid", "random", "tpe"] = "grid"
    trials: Annotated[Whole, Field(ge=0)] = 0  # how many to draw, for ``random`` and ``tpe``
    # leave out combinations of a grid whose fields contradict each other, instead of refusing the sweep
    skip_invalid: Annotated[bool, Strict()] = False
    # ``none``, or ``asha``, which stops the worse part of the trials at milestones
    scheduler: Literal["none", "asha"] = "none"
    # what trials are compared by, such as ``frechet_distance.generated``
    metric: Annotated[str, StringConstraints(min_length=1)] = "frechet_distance.generated"
    mode: Literal["min", "max"] = "min"  # ``min`` or ``max``
    reduction: Annotated[Whole, Field(ge=2)] = 3  # ASHA keeps one of so many trials at each milestone
    # names or files of other sweeps whose trials are shown together with this one's, which then may have none
    include: Texts = ()
    figures: tuple[Figure, ...] = ()  # see `Figure`
    concurrent: Annotated[Whole, Field(ge=0)] = 0  # trials at once; 0 means as many as the cluster holds
    cpus_per_trial: Annotated[Whole, Field(ge=1)] = 1  # CPUs of a trial where no GPUs are used
    gpus_per_trial: Annotated[Whole, Field(ge=1)] = 1  # GPUs of a trial where GPUs are used
    origin: str = ""  # the file that says all this; named in errors
    layers: tuple[Layer, ...] = ()  # what the files of ``config`` say, so that trials run where these files are not

    @property
    def where(self) -> str:
        """The file, or else the name: what errors begin with."""
        return self.origin or self.name
