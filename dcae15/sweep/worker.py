"""One trial of a sweep: a whole pipeline in a process of its own, which writes down how it goes."""

from __future__ import annotations

import dataclasses
import math
import posixpath
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dcae15 import artifacts, tracking
from dcae15.artifacts.claims import claim
from dcae15.cluster import Cluster, Resources
from dcae15.config import Config
from dcae15.errors import Dcae15Error
from dcae15.pipeline import Runner, finish_report
from dcae15.plan import Step, plan
from dcae15.redaction import redact
from dcae15.stages.base import Row
from dcae15.sweep.file import Sweep
from dcae15.sweep.metrics import trial_metrics
from dcae15.sweep.records import final, label, read_record, write_record
from dcae15.sweep.trials import Trial, trial_command, trial_config


@dataclass(frozen=True)
class Job:
    """What all trials of a sweep are told."""

    sweep: Sweep
    overrides: tuple[str, ...]  # key=value words that hold for all trials
    storage: str  # URI below which all artifacts are
    folder: str  # URI of the sweep's folder
    share: Resources  # what a trial may use
    parent: tracking.TrackerSpec  # the sweep's run


def run_trial(job: Job, trial: Trial, report: Callable[[float], None]) -> float | None:
    """Run the pipeline of a trial, or what is left of it. What goes wrong is written into its record, not raised.

    ``report`` is called with the sweep's metric at every milestone but the end, where there is nothing to save by stopping; it may
    never return, when the trial is stopped there.

    Returns:
        The trial's final value of the sweep's metric; None when it failed.
    """
    with claim(job.storage, f"trial-{posixpath.basename(job.folder)}-{trial.id}"):
        before = read_record(job.folder, trial.id)
        try:
            running = _Running(job, trial, before, report)
        except Dcae15Error as error:  # values that contradict each other, where a search found them
            failed = dataclasses.replace(trial, status="failed", error=redact(str(error)))
            write_record(job.folder, failed)
            return None
        if before and before.status == "finished":  # a search may suggest the same values again, even at the same time
            for row in before.curve:
                running.tell(row)
            return final(before, job.sweep.metric)
        return running.run()


class _Running:
    def __init__(self, job: Job, trial: Trial, before: Trial | None, report: Callable[[float], None]) -> None:
        config = trial_config(job.sweep, trial, job.overrides)
        self.config: Config = config.changed(storage=job.storage)
        self.job, self.trial, self.report = job, trial, report
        self.began, self.seconds_before = time.time(), before.seconds if before else 0.0
        self.record = dataclasses.replace(
            trial,
            status="running",
            stages=dict(before.stages) if before else {},
            command=redact(trial_command(job.sweep, trial, [*job.overrides, f"storage={job.storage}"])),
        )

    def tell(self, row: Row) -> None:
        """Report what was measured at a milestone, unless it is the end."""
        if row["images"] < self.config.diffusion.training.whole_batches:
            self.report(row.get(self.job.sweep.metric, math.nan))

    def run(self) -> float | None:
        of = f"{posixpath.basename(self.job.folder)}-{self.trial.id}"
        params = {"arm": self.trial.arm, "seed": self.trial.seed, **self.trial.values}
        name = label(self.job.sweep, self.trial) or self.trial.id
        run = tracking.start_stage_run(self.job.parent, "trial", of, params, name)
        tracker = tracking.Tracker(run)
        self._write(run_id=run.run_id)

        def on_milestone(row: Row) -> None:
            self._write(curve=[*self.record.curve, row])
            tracker.metrics({name: value for name, value in row.items() if name != "images"}, step=int(row["images"]))
            self.tell(row)

        try:
            steps = plan(self.config).steps
            cluster = Cluster(self.config, self.job.share)
            seconds = Runner(self.config, steps, cluster, run, on_milestone, self._on_step).run()
            uri = finish_report(self.config, steps, seconds, run)
            metrics = trial_metrics(artifacts.Evaluation.open(steps[-1].output.uri))
        except Exception as error:
            known = isinstance(error, Dcae15Error)
            reason = redact(str(error) if known else traceback.format_exc(limit=-3).strip())
            self._write(status="failed", error=reason)
            tracker.tags({"error": reason})
            tracker.finish("FAILED")
            return None
        last = int(self.record.curve[-1]["images"]) if self.record.curve else 0
        tracker.metrics(metrics, step=last + 1)  # the last milestone has numbers of the same names
        tracker.finish("FINISHED")
        self._write(status="finished", metrics=metrics, report=uri)
        return final(self.record, self.job.sweep.metric)

    def _on_step(self, step: Step, what: str, seconds: float) -> None:
        before, output = self.record.stages.get(step.name, {}), step.output
        # Where it was still running, another one finished it.
        done = before.get("fingerprint") == output.fingerprint and before["state"] != "runs"
        ran = what != "reused" or (done and before["ran"])
        took = seconds or before.get("seconds", 0.0)
        entry = {"uri": output.uri, "fingerprint": output.fingerprint, "ran": ran, "seconds": took, "state": what}
        self._write(stages={**self.record.stages, step.name: entry})

    def _write(self, **changes: Any) -> None:
        seconds = self.seconds_before + time.time() - self.began
        self.record = dataclasses.replace(self.record, seconds=seconds, **changes)
        write_record(self.job.folder, self.record)
