"""A sweep: its trials planned, run on the cluster where they have not ended, and put on a page."""

from __future__ import annotations

import dataclasses
import posixpath
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from dcae15 import storage, tracking
from dcae15.artifacts.claims import claim
from dcae15.cluster import Cluster
from dcae15.cluster.tune import Item, Watch, run_items
from dcae15.config import Config, active_fields, fingerprint
from dcae15.errors import ConfigError, TrainingError
from dcae15.pipeline import require_ready
from dcae15.plan import plan
from dcae15.redaction import redact
from dcae15.sweep.board import Board
from dcae15.sweep.file import Sweep
from dcae15.sweep.metrics import check_metrics
from dcae15.sweep.page import write_page
from dcae15.sweep.records import label, ranked, read_record, read_records, write_record
from dcae15.sweep.schedulers import halving, search, share_out
from dcae15.sweep.tables import arms_table, is_search
from dcae15.sweep.trials import Trial, check_trials, corners, make_trial, trial_config
from dcae15.sweep.worker import Job, run_trial

Open = Callable[[str], Sweep]
"""Opens a sweep by its name or file."""


def run_sweep(sweep: Sweep, overrides: Sequence[str], open_included: Open) -> str:
    """Run every trial that has not ended, also those of included sweeps, and write the page; return its URI.

    Raises:
        ConfigError: the sweep cannot work.
        TrainingError: no trial finished.
    """
    *included, own = _runs(sweep, overrides, open_included)
    records = []
    for run in included:
        found = run.run()
        run.publish(found)
        records += found
    records += own.run()
    return own.conclude(records)


def dry_run(sweep: Sweep, overrides: Sequence[str], open_included: Open) -> str:
    """Return what a sweep would do as text, without starting Ray: its trials, and the stages that they share."""
    runs = _runs(sweep, overrides, open_included)
    return "\n\n".join(run.describe() for run in runs if run.has_trials)


def _runs(sweep: Sweep, overrides: Sequence[str], open_included: Open) -> list[_Run]:
    """Return the sweeps that this one includes, and itself, all checked before anything starts."""
    included = [open_included(name) for name in sweep.include]
    for one in included:
        if one.include:
            raise ConfigError(f"{sweep.where}: include names {one.name}, which itself includes others; name those")
    runs = [_Run(one, overrides) for one in (*included, sweep)]
    check_metrics(sweep, [config for run in runs if run.has_trials for config in run.configs.values()])
    return runs


class _Run:
    def __init__(self, sweep: Sweep, overrides: Sequence[str]) -> None:
        self.sweep, self.overrides = sweep, tuple(overrides)
        trials, self.left_out = check_trials(sweep, overrides)
        self.has_trials = bool(trials) or sweep.search == "tpe"
        self.configs = {trial.id: self._config_of(trial) for trial in trials or corners(sweep)[:1]}
        self.config = next(iter(self.configs.values()))
        self.trials = self._spread(trials)
        self.digest = fingerprint("sweep", self._fields())
        self.folder = storage.join(self.config.storage, "sweeps", f"{sweep.name}-{self.digest[:8]}")
        self.tracker: tracking.Tracker | None = None

    def run(self) -> list[Trial]:
        """Return the records of all trials; those that have not ended are run first.

        While another process runs the same sweep, this one waits and then runs what is left: two schedulers and searches
        that know only their own trials would decide worse, and draw too many.
        """
        storage.check_access(self.config.storage)
        name = posixpath.basename(self.folder)
        with claim(self.config.storage, f"sweep-{name}", lambda line: print(f"{name}: {line}", flush=True)):
            board = Board(self.sweep, self.folder, self.trials or read_records(self.folder))
            if sum(record.ended for record in board.records) < (len(self.trials) or self.sweep.trials):
                for config in self.configs.values():
                    require_ready(plan(config).steps)
                self._run_open(board)
            board.look(now=True)
            return board.records

    def _run_open(self, board: Board) -> None:
        sweep, config = self.sweep, self.config
        with Cluster(config) as cluster:
            concurrent, share = share_out(sweep, config, cluster.join())
            parent = tracking.start_run(config, config.storage, sweep.name, "sweep", self.digest, self._parameters())
            job = Job(sweep, self.overrides, config.storage, self.folder, share, parent)
            print(f"{sweep.name}: {concurrent} trials at once, records in {self.folder}", flush=True)
            known = {trial.id: trial for trial in self.trials}

            def trial_of(item: Item) -> Trial:
                return known[item] if isinstance(item, str) else make_trial(sweep, item, seed=sweep.seeds[0])

            ended = {record.id for record in board.records if record.ended}
            try:
                run_items(
                    lambda item, report: run_trial(job, trial_of(item), report),
                    [name for name in known if name not in ended] if known else search(sweep, board.records),
                    Watch(
                        on_start=lambda item: board.start(trial_of(item)),
                        on_step=board.look,
                        on_end=lambda item, error: _complete(job, trial_of(item), error),
                    ),
                    mode=sweep.mode,
                    concurrent=concurrent,
                    halving=halving(sweep, board.records),
                    max_failures=config.scaling.max_failures,
                    scratch=storage.join(config.storage, ".ray", posixpath.basename(self.folder)),
                )
            except BaseException as error:
                tracking.finish_tree(parent, "FAILED" if isinstance(error, Exception) else "KILLED")
                raise
            self.tracker = tracking.Tracker(parent)

    def publish(self, records: Sequence[Trial]) -> str:
        """Write the page over these records, also into the tracked run of this sweep, which then ends; return its URI."""
        uri, page = write_page(self.sweep, records, self.folder)
        if self.tracker:
            best = self._best([record for record in records if record.sweep == self.sweep.name])
            if best:
                tags = {"best": label(self.sweep, best), "best_trial": best.id, "best_command": best.command}
                self.tracker.tags(tags)
                self.tracker.metrics({f"best.{self.sweep.metric}": best.metrics[self.sweep.metric]}, step=0)
            self.tracker.text(page, "sweep.html")
            self.tracker.finish("FINISHED" if best else "FAILED")
        return uri

    def conclude(self, records: Sequence[Trial]) -> str:
        """Write the page; return its URI, and say which trial is best."""
        uri, best = self.publish(records), self._best(records)
        if not is_search(self.sweep):
            print(arms_table(self.sweep, records).markdown())
        if best is None:
            reasons = Counter(record.error.splitlines()[-1] for record in records if record.error)
            why = f": {reasons.most_common(1)[0][0]}" if reasons else ""
            raise TrainingError(f"no trial of {self.sweep.name} finished{why}; the report is at {uri}")
        print(f"best: {label(self.sweep, best)}: {self.sweep.metric} {best.metrics[self.sweep.metric]:.4g}")
        print(f"rerun it: {best.command}")
        return uri

    def _best(self, records: Sequence[Trial]) -> Trial | None:
        return next(iter(ranked(self.sweep, records)), None)

    def describe(self) -> str:
        """Return the trials, and how many of each stage there are."""
        sweep, plans = self.sweep, [plan(config).steps for config in self.configs.values()]
        lines = [
            f"{sweep.name}: {len(self.trials) or sweep.trials} trials, {sweep.search} search, {sweep.scheduler} scheduler"
        ]
        lines += [f"question: {sweep.question}"] if sweep.question else []
        lines += [f"storage: {self.config.storage}", f"records: {self.folder}"]
        lines += [f"  {label(sweep, trial) or trial.id}" for trial in self.trials]
        lines += [f"  left out: {reason}" for reason in self.left_out]
        of = "trials" if self.trials else f"trial, an example of {sweep.trials}"
        for name in dict.fromkeys(step.name for steps in plans for step in steps):
            found = [step for steps in plans for step in steps if step.name == name]
            distinct = {step.output.uri: step for step in found}
            done = sum(step.done for step in distinct.values())
            lines.append(
                f"{name:<20} {len(distinct):>4} for {len(found)} {of}: {done} reused, {len(distinct) - done} to run"
            )
        return "\n".join(lines)

    def _config_of(self, trial: Trial) -> Config:
        config = trial_config(self.sweep, trial, self.overrides)
        return config.changed(storage=storage.resolve(config.storage))

    def _spread(self, trials: Sequence[Trial]) -> list[Trial]:
        """Order the trials so that those which share an autoencoder do not start side by side, to wait for each other."""
        seen: Counter[str] = Counter()
        turns: dict[str, int] = {}
        for trial in trials:
            uri = next((s.output.uri for s in plan(self.configs[trial.id]).steps if s.arm), "")
            turns[trial.id] = seen[uri]
            seen[uri] += 1
        return sorted(trials, key=lambda trial: turns[trial.id])

    def _fields(self) -> dict[str, Any]:
        """Return what names the sweep: what it searches, and what its trials have in common; not where its files are."""
        left_out = ("question", "figures", "include", "concurrent", "cpus_per_trial", "gpus_per_trial")
        values = dataclasses.asdict(self.sweep)
        for name in (*left_out, "config", "origin", "layers"):
            del values[name]
        return {**values, "base": active_fields(self.config, self.config)}

    def _parameters(self) -> dict[str, Any]:
        values = {k: v for k, v in self._fields().items() if k not in ("base", "name")}
        return {**values, "question": self.sweep.question, "overrides": " ".join(self.overrides)}


def _complete(job: Job, trial: Trial, error: str) -> None:
    """Complete the record of a trial that ended, where its process could not."""
    record = read_record(job.folder, trial.id) or trial
    if record.status not in ("waiting", "running"):
        return  # it said itself how it ended
    why = redact(f"its process failed each time; Ray's logs say more: {error}") if error else ""
    record = dataclasses.replace(record, status="failed" if error else "stopped", error=why)
    write_record(job.folder, record)
    if record.run_id:
        run = tracking.TrackerSpec(job.parent.uri, job.parent.experiment_id, record.run_id)
        tracking.Tracker(run).tags({"ended": f"{record.status} {why}".strip()})
        tracking.finish_tree(run, "FAILED" if error else "FINISHED")
