"""The records of a sweep's trials: one small JSON file each, from which its report is made."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from dcae15 import storage
from dcae15.config.sweep import Sweep, Trial
from dcae15.errors import StorageError

STATUSES = ("waiting", "running", "finished", "stopped", "failed")


@dataclass(frozen=True)
class TrialRecord:
    """What became of a trial.

    Attributes:
        id: see `dcae15.config.sweep.Trial`.
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


def label(sweep: Sweep, trial: Trial | TrialRecord) -> str:
    """Return a trial's name for people: its arm, the values by the last word of their fields, and its seed."""
    paths = dict.fromkeys([*(path for path in sweep.space if path in trial.values), *trial.values])
    values = [f"{path.rsplit('.', 1)[-1]}={trial.values[path]}" for path in paths]
    seed = [f"seed={trial.seed}"] if len(sweep.seeds) > 1 or not (trial.arm or values) else []
    return ", ".join([*([trial.arm] if trial.arm else []), *values, *seed])


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
