"""What the page of a sweep asks its trials for: metrics and fields by name, groups of seeds, the best trial."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import yaml

from dcae15.channels import LANDMARKS
from dcae15.config.sweep import Sweep
from dcae15.report.measures import MEASURES, Measure, measured
from dcae15.report.tables import measure_of
from dcae15.trials import TrialRecord

ANY = "*"
"""In the place of the arm in a metric's name: the only autoencoder of which a trial has the measure."""

_PARTS = {
    "eighth": "⅛ of the channels",
    "quarter": "¼ of the channels",
    "half": "½ of the channels",
    "all": "all channels",
}

Records = Sequence[TrialRecord]


def split_metric(name: str) -> tuple[str, str, str]:
    """Split ``<measure>.<arm>[.<landmark>]``; what is missing is empty."""
    measure, _, rest = name.partition(".")
    arm, _, landmark = rest.rpartition(".")
    return (measure, arm, landmark) if landmark in LANDMARKS and arm else (measure, rest, "")


def metric_measure(name: str) -> Measure:
    """Return how the measure of a metric is named, written and read."""
    return measure_of(split_metric(name)[0])


def metric_place(name: str) -> str:
    """Say what a metric was measured on, such as 'baseline, ¼ of the channels'; the trial's own autoencoder needs no name."""
    _, arm, landmark = split_metric(name)
    where = {"generated": "generated images", "structured": "", ANY: ""}.get(arm, arm)
    return ", ".join(part for part in (where, _PARTS.get(landmark, "")) if part)


def metric_label(name: str) -> str:
    """Return a metric's name for people, without its direction: 'Fréchet distance, generated images'."""
    return ", ".join(part for part in (metric_measure(name).label, metric_place(name)) if part)


def metric_notes(name: str) -> str:
    """Return the unit and the direction of a metric, as far as the report knows them."""
    measure = metric_measure(name)
    direction = measure.direction if split_metric(name)[0] in MEASURES else ""
    return ", ".join(note for note in (measure.unit, direction) if note)


def higher_is_better(sweep: Sweep, name: str) -> bool:
    """Whether higher values of a metric are better: as the sweep says of its own, as the report knows of others."""
    if name == sweep.metric:
        return sweep.mode == "max"
    return split_metric(name)[0] in MEASURES and metric_measure(name).higher_is_better is True


def final(record: TrialRecord, metric: str) -> float:
    """Return a trial's final value of a metric; NaN when it has none."""
    measure, arm, landmark = split_metric(metric)
    if arm != ANY:
        return _float(record.metrics.get(metric))
    found = [name for name in record.metrics if split_metric(name)[::2] == (measure, landmark)]
    return _float(record.metrics[found[0]]) if len(found) == 1 else math.nan


def latest(record: TrialRecord, metric: str) -> float:
    """Return the final value, or that of the last milestone where the trial did not get to its end."""
    value = final(record, metric)
    if measured(value):
        return value
    return next((y for _, y in reversed(curve(record, metric)) if measured(y)), math.nan)


def curve(record: TrialRecord, metric: str) -> list[tuple[float, float]]:
    """Return (images, value) at every milestone that has the metric, by images; the last value where one stands twice."""
    rows = {_float(row.get("images")): _float(row.get(metric)) for row in record.curve if metric in row}
    return sorted((images, value) for images, value in rows.items() if measured(images))


def images_reached(record: TrialRecord) -> float:
    """Return the images that the denoiser saw at its last milestone; NaN where there was none."""
    return max((_float(row.get("images")) for row in record.curve), default=math.nan)


def field_value(sweep: Sweep, record: TrialRecord, path: str) -> Any:
    """Return a configuration field of a trial: searched, set by its arm or for all; None when nothing says it."""
    given = [record.values, _words(record.command)]
    if record.sweep == sweep.name:
        given += [sweep.arms.get(record.arm, {}), sweep.set]
    return next((values[path] for values in given if path in values), None)


def numeric_field(sweep: Sweep, record: TrialRecord, path: str) -> float:
    """Return a numeric configuration field of a trial; NaN when it is unknown or no number."""
    value = field_value(sweep, record, path)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _value(text: str) -> Any:
    with suppress(ValueError):
        return json.loads(text)  # of numbers YAML does not know 5e-05
    return yaml.safe_load(text)


def _words(command: str) -> Mapping[str, Any]:
    """Return the fields that a trial's command sets: all that is known of trials of included sweeps."""
    try:
        words = [word.partition("=") for word in shlex.split(command)]
        return {path: _value(value) for path, equals, value in words if equals and not path.startswith("-")}
    except (ValueError, yaml.YAMLError):
        return {}


def short(path: str) -> str:
    """Return the last word of a field's path."""
    return path.rpartition(".")[2]


def arm_of(sweep: Sweep, record: TrialRecord) -> str:
    """Return the arm of a trial, with the sweep's name in front where it belongs to another one."""
    if record.sweep == sweep.name:
        return record.arm
    return f"{record.sweep}: {record.arm}" if record.arm else record.sweep


def group_of(sweep: Sweep, record: TrialRecord) -> str:
    """Name what a trial shares with those that differ in nothing but the seed: its arm and the searched values."""
    values = [f"{short(path)}={value}" for path, value in record.values.items()]
    arm = arm_of(sweep, record)
    return ", ".join([*([arm] if arm else []), *values]) or sweep.name


def grouped(sweep: Sweep, records: Records) -> dict[str, list[TrialRecord]]:
    """Return the trials by group, in the order of the sweep's arms, then in the order given; seeds ascending."""
    order = {arm: i for i, arm in enumerate(sweep.arms)}
    known = sorted(records, key=lambda record: order.get(record.arm, len(order)) if record.sweep == sweep.name else 999)
    groups: dict[str, list[TrialRecord]] = {}
    for record in known:
        groups.setdefault(group_of(sweep, record), []).append(record)
    return {name: sorted(members, key=lambda record: record.seed) for name, members in groups.items()}


def finished(records: Records) -> list[TrialRecord]:
    """Return the trials that got to their end."""
    return [record for record in records if record.status == "finished"]


def ranked(sweep: Sweep, records: Records) -> list[TrialRecord]:
    """Return the finished trials that have the sweep's metric, best first."""
    sign = -1.0 if sweep.mode == "max" else 1.0
    having = [record for record in finished(records) if measured(final(record, sweep.metric))]
    return sorted(having, key=lambda record: sign * final(record, sweep.metric))


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
