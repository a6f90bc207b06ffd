"""One trial of a sweep: a whole pipeline in a process of its own, which writes down how it goes."""

from __future__ import annotations

import dataclasses
import posixpath
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dcae15 import artifacts, storage, tracking
from dcae15.claims import claim
from dcae15.config import Config, Sweep, Trial, trial_command, trial_config
from dcae15.errors import Dcae15Error
from dcae15.evaluation.metrics import trial_metrics
from dcae15.evaluation.milestones import Row
from dcae15.orchestration.cluster import Cluster, Session
from dcae15.orchestration.fold import Fold
from dcae15.orchestration.plan import Stage, plan
from dcae15.orchestration.results import report_uri, write_report
from dcae15.redaction import redact
from dcae15.trials import TrialRecord, label, read_record, waiting, write_record


@dataclass(frozen=True)
class Job:
    """What all trials of a sweep are told.

    Attributes:
        sweep: the sweep.
        overrides: ``key=value`` words that hold for all trials.
        storage: URI below which all artifacts are.
        folder: URI of the sweep's folder.
        share: what a trial may use of the cluster.
        parent: the sweep's tracked run.
    """

    sweep: Sweep
    overrides: tuple[str, ...]
    storage: str
    folder: str
    share: Cluster
    parent: tracking.TrackerSpec


def config_of(job: Job, trial: Trial) -> Config:
    """Return the configuration of a trial's pipeline on its share of the cluster."""
    config = trial_config(job.sweep, trial, job.overrides)
    return dataclasses.replace(config, storage=job.storage)


def run_trial(job: Job, trial: Trial, report: Callable[[Row], None]) -> dict[str, float]:
    """Run the pipeline of a trial, or what is left of it. What goes wrong is written into its record, not raised.

    Args:
        job: what all trials are told.
        trial: which one.
        report: called with every row of quality over training; it may never return, when the trial is stopped there.

    Returns:
        The trial's metrics by name; empty when it failed.
    """
    with claim(job.storage, f"trial-{posixpath.basename(job.folder)}-{trial.id}"):
        before = read_record(job.folder, trial.id)
        if before and before.status == "finished":  # a search may suggest the same values again, even at the same time
            for row in before.curve:
                report(row)
            return before.metrics
        try:
            running = _Trial(job, trial, before)
        except Dcae15Error as error:  # values that contradict each other, where a search found them
            write_record(
                job.folder, dataclasses.replace(waiting(job.sweep, trial), status="failed", error=redact(str(error)))
            )
            return {}
        return running.run(report)


class _Trial:
    def __init__(self, job: Job, trial: Trial, before: TrialRecord | None) -> None:
        self.job, self.config = job, config_of(job, trial)
        self.began, self.before = time.time(), before.seconds if before else 0.0
        name = label(job.sweep, trial)
        searched = {path: value for path, value in trial.values.items() if path in job.sweep.space}
        params = {"arm": trial.arm, "seed": trial.seed, **searched}
        of = f"{posixpath.basename(job.folder)}-{trial.id}"
        self.tracker = tracking.start_stage_run(job.parent, "trial", of, params, name or trial.id)
        self.record = TrialRecord(
            trial.id,
            job.sweep.name,
            trial.arm,
            trial.seed,
            dict(trial.values),
            status="running",
            stages=dict(before.stages) if before else {},
            command=redact(trial_command(job.sweep, trial, [*job.overrides, f"storage={job.storage}"])),
            run_id=self.tracker.run_id,
        )

    def run(self, report: Callable[[Row], None]) -> dict[str, float]:
        self._write()
        tracker = tracking.open_tracker(self.tracker)

        def on_milestone(row: Row) -> None:
            self._write(curve=[*self.record.curve, row])
            tracker.metrics({name: value for name, value in row.items() if name != "images"}, step=int(row["images"]))
            report(row)

        try:
            stages = plan(self.config)
            session = Session(self.config, self.job.share)
            seconds = Fold(self.config, stages, session, self.tracker, on_milestone, self._on_stage).run()
            uri = report_uri(self.config, stages)
            if seconds or not storage.exists(uri):
                write_report(self.config, stages, seconds, self.tracker)
            metrics = trial_metrics(artifacts.Evaluation.open(stages[-1].uri))
        except Exception as error:
            known = isinstance(error, Dcae15Error)
            reason = redact(str(error) if known else traceback.format_exc(limit=-3).strip())
            self._write(status="failed", error=reason)
            tracker.tags({"error": reason})
            tracker.finish("FAILED")
            return {}
        last = int(self.record.curve[-1]["images"]) if self.record.curve else 0
        tracker.metrics(metrics, step=last + 1)  # the last milestone has numbers of the same names
        tracker.finish("FINISHED")
        self._write(status="finished", metrics=metrics, report=uri)
        return metrics

    def _on_stage(self, stage: Stage, what: str, seconds: float) -> None:
        before = self.record.stages.get(stage.name, {})
        # Where it was still running, another one finished it.
        done = before.get("fingerprint") == stage.fingerprint and before["state"] != "runs"
        ran = what != "reused" or (done and before["ran"])
        took = seconds or before.get("seconds", 0.0)
        entry = {"uri": stage.uri, "fingerprint": stage.fingerprint, "ran": ran, "seconds": took, "state": what}
        self._write(stages={**self.record.stages, stage.name: entry})

    def _write(self, **changes: Any) -> None:
        seconds = self.before + time.time() - self.began
        self.record = dataclasses.replace(self.record, seconds=seconds, **changes)
        write_record(self.job.folder, self.record)


def trial_values(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a search chose, as plain Python numbers and texts."""
    return {path: value.item() if hasattr(value, "item") else value for path, value in params.items()}
