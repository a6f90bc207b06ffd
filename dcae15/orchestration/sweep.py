"""A sweep: its trials planned, run by Ray Tune where they have not ended, and reported."""

from __future__ import annotations

import dataclasses
import posixpath
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from dcae15 import storage, tracking
from dcae15.artifacts.claims import claim
from dcae15.config import (
    Config,
    Range,
    Sweep,
    Trial,
    check_trials,
    fingerprint,
    make_trial,
    result_fields,
    trial_config,
)
from dcae15.errors import ConfigError, TrainingError
from dcae15.evaluation.metrics import check_metrics
from dcae15.orchestration.board import DONE, Board
from dcae15.orchestration.pipeline import require_ready
from dcae15.orchestration.plan import plan
from dcae15.orchestration.trial import Job, label
from dcae15.report.sweep import is_search, study_table, write_sweep_report
from dcae15.report.trial_values import ranked
from dcae15.trials import TrialRecord, read_records

Open = Callable[[str], Sweep]
"""Opens a sweep by its name or file."""


def run_sweep(sweep: Sweep, overrides: Sequence[str], open_included: Open) -> str:
    """Run every trial that has not ended, also those of included sweeps, and write the report; return its URI.

    Args:
        sweep: the sweep.
        overrides: ``key=value`` words for all trials.
        open_included: opens what ``sweep.include`` names.

    Raises:
        ConfigError: the sweep cannot work.
        TrainingError: no trial finished.
    """
    runs = _runs(sweep, overrides, open_included)
    records = [record for run in runs for record in run.run()]
    return runs[-1].report(records)


def dry_run(sweep: Sweep, overrides: Sequence[str], open_included: Open) -> str:
    """Return what a sweep would do as text, without starting Ray: its trials, and the stages that they share."""
    runs = _runs(sweep, overrides, open_included)
    return "\n\n".join(run.describe() for run in runs if run.has_trials)


def _runs(sweep: Sweep, overrides: Sequence[str], open_included: Open) -> list[_Run]:
    """Return the sweeps that this one includes, and itself, all checked before anything starts."""
    included = [open_included(name) for name in sweep.include]
    for one in included:
        if one.include:
            raise ConfigError(
                f"{sweep.origin or sweep.name}: include names {one.name}, which itself includes others; name those"
            )
    runs = [_Run(one, overrides) for one in (*included, sweep)]
    check_metrics(sweep, [config for run in runs if run.has_trials for config in run.configs.values()])
    return runs


class _Run:
    def __init__(self, sweep: Sweep, overrides: Sequence[str]) -> None:
        self.sweep, self.overrides = sweep, tuple(overrides)
        trials, self.left_out = check_trials(sweep, overrides)
        self.has_trials = bool(trials) or sweep.search == "tpe"
        self.configs = {trial.id: self._config_of(trial) for trial in trials or [_example(sweep)]}
        self.config = next(iter(self.configs.values()))
        self.trials = self._spread(trials)
        self.digest = fingerprint("sweep", self._fields())
        self.folder = storage.join(self.config.storage, "sweeps", f"{sweep.name}-{self.digest[:8]}")

    def run(self) -> list[TrialRecord]:
        """Return the records of all trials; those that have not ended are run first.

        While another process runs the same sweep, this one waits and then runs what is left: two schedulers and searches
        that know only their own trials would decide worse, and draw too many.
        """
        storage.check_access(self.config.storage)
        name = posixpath.basename(self.folder)
        with claim(self.config.storage, f"sweep-{name}", lambda line: print(f"{name}: {line}", flush=True)):
            return self._run_claimed()

    def _run_claimed(self) -> list[TrialRecord]:
        drawn = [make_trial(self.sweep, r.values, r.arm, r.seed) for r in read_records(self.folder)]
        board = Board(self.sweep, self.folder, self.trials or drawn)
        ended = [record for record in board.records.values() if record.status in DONE]
        if len(ended) < (len(self.trials) or self.sweep.trials):
            for config in self.configs.values():
                require_ready(config)
            self._run_open(board)
        board.look(now=True)
        return list(board.records.values())

    def _run_open(self, board: Board) -> None:
        from dcae15.cluster import Cluster
        from dcae15.orchestration.tune import run_trials, share_out

        with Cluster(self.config) as cluster:
            concurrent, share = share_out(self.sweep, self.config, cluster.join())
            parent = tracking.start_run(
                self.config, self.config.storage, self.sweep.name, "sweep", self.digest, self._parameters()
            )
            tracker = tracking.Tracker(parent)
            job = Job(self.sweep, self.overrides, self.config.storage, self.folder, share, parent)
            print(f"{self.sweep.name}: {concurrent} trials at once, records in {self.folder}", flush=True)
            try:
                run_trials(job, self.config, self.trials, board, concurrent)
            except BaseException as error:
                tracking.finish_tree(parent, "FAILED" if isinstance(error, Exception) else "KILLED")
                raise
            board.look(now=True)
            self._track(tracker, board)

    def _track(self, tracker: tracking.Tracker, board: Board) -> None:
        records = list(board.records.values())
        best = next(iter(ranked(self.sweep, records)), None)
        if best:
            tracker.tags({"best": label(self.sweep, best), "best_trial": best.id, "best_command": best.command})
            tracker.metrics({f"best.{self.sweep.metric}": best.metrics[self.sweep.metric]}, step=0)
        write_sweep_report(self.sweep, records, self.folder)
        tracker.text(storage.read_bytes(storage.join(self.folder, "sweep.html")).decode(), "sweep.html")
        tracker.finish("FINISHED" if best else "FAILED")

    def report(self, records: Sequence[TrialRecord]) -> str:
        """Write the report over these records; return its URI, and say which trial is best."""
        uri = write_sweep_report(self.sweep, records, self.folder)
        if not is_search(self.sweep):
            print(study_table(self.sweep, records))
        best = next(iter(ranked(self.sweep, records)), None)
        if best is None:
            reasons = Counter(record.error.splitlines()[-1] for record in records if record.error)
            why = f": {reasons.most_common(1)[0][0]}" if reasons else ""
            raise TrainingError(f"no trial of {self.sweep.name} finished{why}; the report is at {uri}")
        print(f"best: {label(self.sweep, best)}: {self.sweep.metric} {best.metrics[self.sweep.metric]:.4g}")
        print(f"rerun it: {best.command}")
        return uri

    def describe(self) -> str:
        """Return the trials, and how many of each stage there are."""
        sweep, stages = self.sweep, [plan(config) for config in self.configs.values()]
        lines = [
            f"{sweep.name}: {len(self.trials) or sweep.trials} trials, {sweep.search} search, {sweep.scheduler} scheduler"
        ]
        lines += [f"question: {sweep.question}"] if sweep.question else []
        lines += [f"storage: {self.config.storage}", f"records: {self.folder}"]
        lines += [f"  {label(sweep, trial) or trial.id}" for trial in self.trials]
        lines += [f"  left out: {reason}" for reason in self.left_out]
        of = "trials" if self.trials else f"trial, an example of {sweep.trials}"
        for name in dict.fromkeys(stage.name for one in stages for stage in one):
            found = [stage for one in stages for stage in one if stage.name == name]
            distinct = {stage.uri: stage for stage in found}
            done = sum(stage.done for stage in distinct.values())
            lines.append(
                f"{name:<20} {len(distinct):>4} for {len(found)} {of}: {done} reused, {len(distinct) - done} to run"
            )
        return "\n".join(lines)

    def _config_of(self, trial: Trial) -> Config:
        config = trial_config(self.sweep, trial, self.overrides)
        return dataclasses.replace(config, storage=storage.resolve(config.storage))

    def _spread(self, trials: Sequence[Trial]) -> list[Trial]:
        """Order the trials so that those which share an autoencoder do not start side by side, to wait for each other."""
        seen: Counter[str] = Counter()
        turns: dict[str, int] = {}
        for trial in trials:
            uri = next((s.uri for s in plan(self.configs[trial.id]) if s.name == "train_autoencoder"), "")
            turns[trial.id] = seen[uri]
            seen[uri] += 1
        return sorted(trials, key=lambda trial: turns[trial.id])

    def _fields(self) -> dict[str, Any]:
        """Return what names the sweep: what it searches, and what its trials have in common; not where its files are."""
        values = dataclasses.asdict(self.sweep)
        left_out = ("question", "figures", "include", "concurrent", "cpus_per_trial", "gpus_per_trial")
        for name in (*left_out, "config", "origin", "layers"):
            del values[name]
        return {**values, "base": result_fields(self.config)}

    def _parameters(self) -> dict[str, Any]:
        values = {k: v for k, v in self._fields().items() if k not in ("base", "name")}
        return {**values, "question": self.sweep.question, "overrides": " ".join(self.overrides)}


def _example(sweep: Sweep) -> Trial:
    """Return a trial that stands for those which a search will draw."""
    ends = {path: domain.low if isinstance(domain, Range) else domain[0] for path, domain in sweep.space.items()}
    return make_trial(sweep, ends, seed=sweep.seeds[0])
