"""Ray Tune runs the trials of a sweep: on shares of the cluster, compared by a scheduler, chosen by a search.

What Tune itself keeps is thrown away. A sweep is continued from the records of its trials: those that ended are told to the
scheduler and the search, and only the others are run.
"""

from __future__ import annotations

import logging
import math
import os
import posixpath
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from ray import tune
from ray.tune.execution import class_cache
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from dcae15 import storage, tracking
from dcae15.config import Config, Range, Sweep, Trial, is_whole, make_trial, whole_batches
from dcae15.errors import ConfigError
from dcae15.evaluation.milestones import Row
from dcae15.orchestration.board import DONE, Board
from dcae15.orchestration.cluster import Cluster, check_workers
from dcae15.orchestration.trial import Job, config_of, run_trial, trial_values
from dcae15.redaction import redact
from dcae15.trials import TrialRecord, read_record, waiting, write_record

ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of the configuration stay what they are
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the trials' records are ours
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that failed has none
}
TRIAL_MEMORY_BYTES = 1 << 30
TRIAL, RUNG = "trial", "rung"
"""Time for schedulers: reduction^0 at the first milestone, reduction^1 at the second, so that each milestone is a rung."""


def share_out(sweep: Sweep, config: Config, cluster: Cluster) -> tuple[int, Cluster]:
    """Return how many trials run at once, and what each may use.

    The process of a trial itself takes neither CPUs nor GPUs: its stages do, as tasks, actors and workers of their own. So
    trials cannot wait for each other's resources as long as no more run at once than fit.

    Raises:
        ConfigError: a trial needs more than there is.
    """
    gpu = cluster.uses_gpu(config.scaling)
    if not gpu and sweep.gpus_per_trial > 1 and config.scaling.use_gpu == "auto":
        raise ConfigError(
            f"gpus_per_trial is {sweep.gpus_per_trial}, and the cluster has no GPUs; set scaling.use_gpu=no to run the trials on "
            "CPUs, or start the sweep on a cluster with GPUs (scaling.use_gpu=yes where they are started on demand)"
        )
    field, unit = ("gpus_per_trial", "GPUs") if gpu else ("cpus_per_trial", "CPUs")
    needs, has = getattr(sweep, field), cluster.gpus if gpu else cluster.cpus
    grows = not cluster.local and sweep.concurrent > 0  # nodes are started for what waits
    if needs > has and not grows:
        mend = "lower it" if has else "start the sweep on a cluster with GPUs, or set scaling.use_gpu=no"
        raise ConfigError(
            f"{field} is {needs}, the cluster has {has} {unit}; {mend}"
            + ("" if cluster.local else ", or say with 'concurrent' how many trials the cluster may grow to")
        )
    if sweep.concurrent * needs > has and not grows:
        raise ConfigError(
            f"concurrent is {sweep.concurrent}, and {field} {needs}: together {sweep.concurrent * needs} {unit}, "
            f"the cluster has {has}; lower one of them"
        )
    concurrent, workers = sweep.concurrent or has // needs, config.scaling.num_workers
    if workers * (1 if gpu else config.scaling.cpus_per_worker or 1) > needs:
        raise ConfigError(
            f"scaling.num_workers={workers} needs more than {field} {needs}, the share of a trial; raise it, or use fewer workers"
        )
    # Workers have to fit beside their GPUs: nodes without any do not count.
    share = (
        replace(cluster, cpus=needs * max(1, cluster.cpus_per_gpu), gpus=needs) if gpu else replace(cluster, cpus=needs)
    )
    check_workers(config, share, f"a trial of {field}={needs}")
    return concurrent, share


def run_trials(job: Job, config: Config, trials: Sequence[Trial], board: Board, concurrent: int) -> None:
    """Run the trials that have not ended, or, for a search, as many as are left to draw.

    Args:
        job: what all trials are told.
        config: of the first trial.
        trials: planned ones, in the order to start them; empty for a search.
        board: shows how they go.
        concurrent: how many run at once.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Tune would hand the driver's credentials to its actors in a runtime environment, which dashboards show; nodes have their own.
    class_cache.ENV_VARS_TO_PROPAGATE -= {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
    for name in ("ray.tune", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sweep, ended = job.sweep, [record for record in board.records.values() if record.status in DONE]
    if sweep.search == "tpe":
        search, count = _search(sweep, list(board.records.values())), sweep.trials - len(ended)
        space: dict[str, Any] = {}
    else:
        names = [trial.id for trial in trials if board.records[trial.id].status not in DONE]
        search, count, space = None, 1, {TRIAL: tune.grid_search(names)}
    known = {trial.id: trial for trial in trials}
    kept = storage.join(config.storage, ".ray", posixpath.basename(job.folder))
    try:
        tune.Tuner(
            tune.with_resources(_trainable(job, known), {"cpu": 0, "memory": TRIAL_MEMORY_BYTES}),
            param_space=space,
            tune_config=tune.TuneConfig(
                scheduler=_scheduler(sweep, list(board.records.values())),
                search_alg=search,
                num_samples=count,
                max_concurrent_trials=concurrent,
            ),
            run_config=tune.RunConfig(
                name=uuid.uuid4().hex[:8],
                storage_path=kept,
                callbacks=[_Watch(job, known, board)],
                failure_config=tune.FailureConfig(max_failures=config.scaling.max_failures),
                verbose=0,
            ),
        ).fit()
    finally:
        storage.remove(kept)  # with what killed attempts left


def _trainable(job: Job, known: Mapping[str, Trial]) -> Callable[[dict[str, Any]], dict[str, float]]:
    def run(params: dict[str, Any]) -> dict[str, float]:
        trial, count = _trial_of(job.sweep, known, params), 0

        def report(row: Row) -> None:
            nonlocal count
            if row["images"] < whole_batches(config_of(job, trial).diffusion.training):
                tune.report({**_comparable(job.sweep, row), RUNG: _rung(job.sweep, count)})
            count += 1  # at the end there is nothing to save by stopping

        return {**run_trial(job, trial, report), RUNG: _rung(job.sweep, count)}

    return run


def _trial_of(sweep: Sweep, known: Mapping[str, Trial], params: Mapping[str, Any]) -> Trial:
    if TRIAL in params:
        return known[params[TRIAL]]
    return make_trial(sweep, trial_values(params), seed=sweep.seeds[0])


def _comparable(sweep: Sweep, row: Row) -> Row:
    """Return a row whose metric is the worst there is when it is no number, so that the trial is stopped."""
    worst = math.inf if sweep.mode == "min" else -math.inf
    return {**row, sweep.metric: worst} if math.isnan(row.get(sweep.metric, 0.0)) else row


def _rung(sweep: Sweep, milestone: int) -> int:
    return sweep.reduction**milestone


def _scheduler(sweep: Sweep, records: Sequence[TrialRecord]) -> TrialScheduler:
    """Return the scheduler, which knows how the trials went that ended before."""
    if sweep.scheduler == "none":
        return FIFOScheduler()
    made = ASHAScheduler(
        time_attr=RUNG,
        metric=sweep.metric,
        mode=sweep.mode,
        max_t=_rung(sweep, 64),  # every milestone is a rung, however many there are
        grace_period=1,
        reduction_factor=sweep.reduction,
        stop_last_trials=False,
    )
    for record in (record for record in records if record.status in DONE):
        before: Any = SimpleNamespace(trial_id=record.id)
        controller: Any = None
        made.on_trial_add(controller, before)
        for i, row in enumerate(record.curve):
            made.on_trial_result(controller, before, {**_comparable(sweep, row), RUNG: _rung(sweep, i)})
    return made


def _search(sweep: Sweep, records: Sequence[TrialRecord]) -> Any:
    """Return Optuna's search, which knows the trials that ended, and begins with those that did not."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {path: _distribution(domain, is_whole(path)) for path, domain in sweep.space.items()}
    search = _FinalValues(
        space=space,
        metric=sweep.metric,
        mode=sweep.mode,
        sampler=optuna.samplers.TPESampler(
            seed=sweep.seeds[0] + len(records)
        ),  # else it would draw the first ones again
        points_to_evaluate=[record.values for record in records if record.status not in DONE] or None,
    )
    for record in records:
        value = _value_of(sweep, record)
        if record.status in DONE and value is not None:
            with suppress(ValueError):  # of another space
                search.add_evaluated_point(record.values, value)
    return search


def _distribution(domain: Range | Sequence[Any], whole: bool) -> Any:
    if not isinstance(domain, Range):
        return CategoricalDistribution(list(domain))
    if whole:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log, step=int(domain.step) or 1)
    return FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step or None)


def _value_of(sweep: Sweep, record: TrialRecord) -> float | None:
    last = record.curve[-1] if record.curve else {}
    return record.metrics.get(sweep.metric, last.get(sweep.metric))


class _FinalValues(OptunaSearch):
    """Learns from the ends of trials alone: Ray's class fails where a result on the way, or of a failed trial, has no metric."""

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Leave what is reported on the way to the scheduler."""


class _Watch(TrialProgressCallback):
    """Tells the board what happens, and completes the records of trials whose processes cannot.

    It takes the place of Tune's own callback, which would print beside the board.
    """

    def __init__(self, job: Job, known: Mapping[str, Trial], board: Board) -> None:
        self._job, self._known, self._board = job, known, board

    def __getstate__(self) -> dict[str, Any]:
        """Keep what the job knows, such as the address of the tracking server, out of the files of Tune."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Print nothing."""

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._board.start(_trial_of(self._job.sweep, self._known, trial.config))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._board.look()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, "stopped", "")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        why = str(trial.get_error() or "").strip().splitlines()
        self._end(
            trial,
            "failed",
            redact(f"its process failed each time; Ray's logs say more: {why[-1] if why else 'no reason'}"),
        )

    def _end(self, trial: Any, status: str, error: str) -> None:
        ours = _trial_of(self._job.sweep, self._known, trial.config)
        record = read_record(self._job.folder, ours.id) or waiting(self._job.sweep, ours)
        if record.status not in ("waiting", "running"):
            return  # it said itself how it ended
        write_record(self._job.folder, replace(record, status=status, error=error))
        if not record.run_id:
            return
        parent = self._job.parent
        run = tracking.TrackerSpec(parent.uri, parent.experiment_id, record.run_id, parent.run_id)
        tracking.open_tracker(run).tags({"ended": f"{status} {error}".strip()})
        tracking.finish_tree(run, "FINISHED" if status == "stopped" else "FAILED")
