"""The records of a sweep's trials, one small JSON file each, and what boards and pages ask them for."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from dcae15 import storage
from dcae15.config import from_overrides
from dcae15.errors import ConfigError, StorageError
from dcae15.report.measures import measured
from dcae15.sweep.file import Sweep
from dcae15.sweep.trials import Trial

Records = Sequence[Trial]


def record_uri(folder: str, trial: str) -> str:
    """Return where the record of a trial is, below the folder of its sweep."""
    return storage.join(folder, "trials", f"{trial}.json")


def read_records(folder: str) -> list[Trial]:
    """Return the records below the folder of a sweep, by id."""
    files = storage.list_files(storage.join(folder, "trials"))
    found = [read_record(folder, file.path.removesuffix(".json")) for file in files if file.path.endswith(".json")]
    return [record for record in found if record]


def write_record(folder: str, record: Trial) -> None:
    """Write a record, over an older one of the same trial."""
    storage.write_json(record_uri(folder, record.id), dataclasses.asdict(record))


def read_record(folder: str, trial: str) -> Trial | None:
    """Return the record of a trial; None when there is none yet."""
    try:
        return Trial(**storage.read_json(record_uri(folder, trial)))
    except StorageError as error:
        if storage.is_missing(error):
            return None
        raise


def short(path: str) -> str:
    """Return the last word of a field's path."""
    return path.rpartition(".")[2]


# --- values


def final(record: Trial, metric: str) -> float:
    """Return a trial's final value of a metric; NaN when it has none."""
    return _float(record.metrics.get(metric))


def latest(record: Trial, metric: str) -> float:
    """Return the final value, or that of the last milestone where the trial did not get to its end."""
    value = final(record, metric)
    if measured(value):
        return value
    return next((y for _, y in reversed(curve(record, metric)) if measured(y)), math.nan)


def curve(record: Trial, metric: str) -> list[tuple[float, float]]:
    """Return (images, value) at every milestone that has the metric, by images; the last value where one stands twice."""
    rows = {_float(row.get("images")): _float(row.get(metric)) for row in record.curve if metric in row}
    return sorted((images, value) for images, value in rows.items() if measured(images))


def images_reached(record: Trial) -> float:
    """Return the images that the denoiser saw at its last milestone; NaN where there was none."""
    return max((_float(row.get("images")) for row in record.curve), default=math.nan)


def numeric_field(sweep: Sweep, record: Trial, path: str) -> float:
    """Return a numeric configuration field of a trial, searched, set by its arm or for all; NaN when it is unknown."""
    given = [record.values, _words(record.command)]
    if record.sweep == sweep.name:
        given += [sweep.arms.get(record.arm, {}), sweep.set]
    return _float(next((values[path] for values in given if path in values), None))


def _words(command: str) -> Mapping[str, Any]:
    """Return the fields that a trial's command sets: all that is known of trials of included sweeps."""
    values: dict[str, Any] = {}
    with suppress(ValueError):  # of a command with an open quotation mark
        for word in shlex.split(command):
            with suppress(ConfigError):  # of a word that is no field
                values |= from_overrides([word]).values
    return values


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


# --- groups and ranks


def arm_of(sweep: Sweep, record: Trial) -> str:
    """Return the arm of a trial, with the sweep's name in front where it belongs to another one."""
    if record.sweep == sweep.name:
        return record.arm
    return f"{record.sweep}: {record.arm}" if record.arm else record.sweep


def group_of(sweep: Sweep, record: Trial) -> str:
    """Name what a trial shares with those that differ in nothing but the seed: its arm and the searched values."""
    paths = dict.fromkeys([*(path for path in sweep.space if path in record.values), *record.values])
    arm = arm_of(sweep, record)
    return ", ".join([*([arm] if arm else []), *(f"{short(path)}={record.values[path]}" for path in paths)])


def label(sweep: Sweep, record: Trial) -> str:
    """Return a trial's name for people: its group, and its seed where it does not go without saying."""
    group = group_of(sweep, record)
    seed = [f"seed={record.seed}"] if len(sweep.seeds) > 1 or not group else []
    return ", ".join([*([group] if group else []), *seed])


def grouped(sweep: Sweep, records: Records) -> dict[str, list[Trial]]:
    """Return the trials by group, in the order of the sweep's arms, then in the order given; seeds ascending."""
    order = {arm: i for i, arm in enumerate(sweep.arms)}
    known = sorted(records, key=lambda record: order.get(record.arm, len(order)) if record.sweep == sweep.name else 999)
    groups: dict[str, list[Trial]] = {}
    for record in known:
        groups.setdefault(group_of(sweep, record) or sweep.name, []).append(record)
    return {name: sorted(members, key=lambda record: record.seed) for name, members in groups.items()}


def finished(records: Records) -> list[Trial]:
    """Return the trials that got to their end."""
    return [record for record in records if record.status == "finished"]


def ranked(sweep: Sweep, records: Records) -> list[Trial]:
    """Return the finished trials that have the sweep's metric, best first."""
    sign = -1.0 if sweep.mode == "max" else 1.0
    having = [record for record in finished(records) if measured(final(record, sweep.metric))]
    return sorted(having, key=lambda record: sign * final(record, sweep.metric))
