"""The records of a sweep's trials, one small JSON file each, and what boards and pages ask them for."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import yaml

from dcae15 import storage
from dcae15.errors import StorageError
from dcae15.report.measures import measured
from dcae15.sweep.file import Sweep
from dcae15.sweep.metrics import ANY, split_metric
from dcae15.sweep.trials import Trial

STATUSES = ("waiting", "running", "finished", "stopped", "failed")


@dataclass(frozen=True)
class TrialRecord:
    """What became of a trial.

    Attributes:
        id: see `dcae15.sweep.trials.Trial`.
        sweep: name of its sweep or study.
        arm: its arm; empty in a sweep without arms.
        seed: of the pipeline.
        values: what the search chose, by dotted path.
        status: one of `STATUSES`; ``stopped`` means early, by the scheduler.
        error: why it failed; else empty.
        seconds: that it ran, over all attempts.
        metrics: final numbers by name, such as ``frechet_distance.generated`` or ``psnr.structured.quarter``.
        curve: what was measured at each milestone: ``images`` (seen) and metrics by name.
        stages: of its pipeline by name: ``uri``, ``fingerprint``, ``ran`` (False: another trial or run made it) and ``seconds``.
        command: the command that runs this pipeline alone.
        report: URI of the pipeline's own report; empty until it is there.
        run_id: MLflow's id of its run; empty where nothing is tracked.
    """

    id: str
    sweep: str
    arm: str = ""
    seed: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    status: str = "waiting"
    error: str = ""
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    command: str = ""
    report: str = ""
    run_id: str = ""

    @property
    def ended(self) -> bool:
        """Whether it is not run again."""
        return self.status in ("finished", "stopped")


Records = Sequence[TrialRecord]


def waiting(sweep: Sweep, trial: Trial) -> TrialRecord:
    """Return the record of a trial that has not begun."""
    return TrialRecord(trial.id, sweep.name, trial.arm, trial.seed, dict(trial.values))


def record_uri(folder: str, trial: str) -> str:
    """Return where the record of a trial is, below the folder of its sweep."""
    return storage.join(folder, "trials", f"{trial}.json")


def read_records(folder: str) -> list[TrialRecord]:
    """Return the records below the folder of a sweep, by id."""
    files = storage.list_files(storage.join(folder, "trials"))
    found = [read_record(folder, file.path.removesuffix(".json")) for file in files if file.path.endswith(".json")]
    return [record for record in found if record]


def write_record(folder: str, record: TrialRecord) -> None:
    """Write a record, over an older one of the same trial."""
    storage.write_json(record_uri(folder, record.id), dataclasses.asdict(record))


def read_record(folder: str, trial: str) -> TrialRecord | None:
    """Return the record of a trial; None when there is none yet."""
    try:
        return TrialRecord(**storage.read_json(record_uri(folder, trial)))
    except StorageError as error:
        if storage.is_missing(error):
            return None
        raise


def short(path: str) -> str:
    """Return the last word of a field's path."""
    return path.rpartition(".")[2]


def label(sweep: Sweep, trial: Trial | TrialRecord) -> str:
    """Return a trial's name for people: its arm, the values by the last word of their fields, and its seed."""
    paths = dict.fromkeys([*(path for path in sweep.space if path in trial.values), *trial.values])
    values = [f"{short(path)}={trial.values[path]}" for path in paths]
    seed = [f"seed={trial.seed}"] if len(sweep.seeds) > 1 or not (trial.arm or values) else []
    return ", ".join([*([trial.arm] if trial.arm else []), *values, *seed])


# --- values


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


def numeric_field(sweep: Sweep, record: TrialRecord, path: str) -> float:
    """Return a numeric configuration field of a trial, searched, set by its arm or for all; NaN when it is unknown."""
    given = [record.values, _words(record.command)]
    if record.sweep == sweep.name:
        given += [sweep.arms.get(record.arm, {}), sweep.set]
    return _float(next((values[path] for values in given if path in values), None))


def _words(command: str) -> Mapping[str, Any]:
    """Return the fields that a trial's command sets: all that is known of trials of included sweeps."""
    try:
        words = [word.partition("=") for word in shlex.split(command)]
        return {path: _value(value) for path, equals, value in words if equals and not path.startswith("-")}
    except (ValueError, yaml.YAMLError):
        return {}


def _value(text: str) -> Any:
    with suppress(ValueError):
        return json.loads(text)  # of numbers YAML does not know 5e-05
    return yaml.safe_load(text)


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


# --- groups and ranks


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
