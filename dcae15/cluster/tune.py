"""Ray Tune runs a function over many items: so many at once, compared at milestones or chosen by a search.

What Tune itself keeps is thrown away: a caller who continues gives only the items that are left, and what is known of the others.
"""

from __future__ import annotations

import logging
import math
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from ray import tune
from ray.tune.execution import class_cache
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from dcae15 import storage

Item = Any
"""What the function is called with: one of the items given, or a point of a search's space by name."""
Report = Callable[[float], None]
"""Tells the value at the next milestone; it does not return where the item is stopped there."""
Mode = Literal["min", "max"]

ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths stay what they are
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # an item that failed has no value
}
MEMORY_BYTES = 1 << 30
MOST_MILESTONES = 64
ITEM, VALUE, RUNG = "item", "value", "rung"


@dataclass(frozen=True)
class Halving:
    """Asynchronous successive halving (Li et al. 2020): one of ``reduction`` goes on at each milestone."""

    reduction: int  # at least 2
    ended: Mapping[str, Sequence[float]]  # what those that ended before had at each milestone, by name


@dataclass(frozen=True)
class Search:
    """Items that a tree-structured Parzen estimator (Bergstra et al. 2011) chooses."""

    space: Mapping[str, BaseDistribution]  # what each name is drawn from
    count: int  # how many to choose
    seed: int  # of the draws
    first: Sequence[Mapping[str, Any]]  # points to begin with
    ended: Sequence[tuple[Mapping[str, Any], float]]  # points that are known, with their final values


@dataclass(frozen=True)
class Watch:
    """What is called in the driver as it goes."""

    on_start: Callable[[Item], None]  # an item begins, maybe again
    on_step: Callable[[], None]  # some time has passed
    on_end: Callable[[Item, str], None]  # an item ended or was stopped; with an error, its process failed each time


def run_items(
    run: Callable[[Item, Report], float | None],
    items: Sequence[str] | Search,
    watch: Watch,
    *,
    mode: Mode,
    concurrent: int,
    halving: Halving | None,
    max_failures: int,
    scratch: str,
) -> None:
    """Call a function with each item, in a process of its own that holds no CPU, and return when all have ended.

    Args:
        run: calls its second argument with the value at each milestone; returns the final value, or None where there is none.
        items: in the order to start them, or a search for them.
        watch: is told how it goes.
        mode: whether the least or the greatest value is best.
        concurrent: how many run at once.
        halving: stops some at milestones; None stops nothing.
        max_failures: how often the process of an item may be lost.
        scratch: URI of a folder for Tune, removed at the end.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Tune would hand the driver's credentials to its actors in a runtime environment, which dashboards show; nodes have their own.
    class_cache.ENV_VARS_TO_PROPAGATE -= {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
    for name in ("ray.tune", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    searched = isinstance(items, Search)
    try:
        tune.Tuner(
            tune.with_resources(
                _trainable(run, mode, halving.reduction if halving else 1), {"cpu": 0, "memory": MEMORY_BYTES}
            ),
            param_space={} if searched else {ITEM: tune.grid_search(list(items))},
            tune_config=tune.TuneConfig(
                scheduler=asha(halving, mode) if halving else None,
                search_alg=tpe(items, mode) if searched else None,
                num_samples=items.count if searched else 1,
                max_concurrent_trials=concurrent,
            ),
            run_config=tune.RunConfig(
                name=uuid.uuid4().hex[:8],
                storage_path=scratch,
                callbacks=[_Callback(watch)],
                failure_config=tune.FailureConfig(max_failures=max_failures),
                verbose=0,
            ),
        ).fit()
    finally:
        storage.remove(scratch)  # with what killed attempts left


def _trainable(
    run: Callable[[Item, Report], float | None], mode: Mode, reduction: int
) -> Callable[[dict[str, Any]], dict[str, float]]:
    def work(params: dict[str, Any]) -> dict[str, float]:
        milestones = 0

        def report(value: float) -> None:
            nonlocal milestones
            tune.report(_result(value, milestones, mode, reduction))
            milestones += 1

        value = run(_item(params), report)
        return {RUNG: reduction**milestones, **({} if value is None else {VALUE: value})}

    return work


def _item(params: Mapping[str, Any]) -> Item:
    if ITEM in params:
        return params[ITEM]
    return {name: value.item() if hasattr(value, "item") else value for name, value in params.items()}


def _result(value: float, milestone: int, mode: Mode, reduction: int) -> dict[str, float]:
    """Return what a scheduler is told: no number is the worst one, and each milestone is a rung of its own."""
    worst = math.inf if mode == "min" else -math.inf
    return {VALUE: worst if math.isnan(value) else value, RUNG: reduction**milestone}


def asha(halving: Halving, mode: Mode) -> ASHAScheduler:
    """Return the scheduler, which knows how those went that ended before."""
    made = ASHAScheduler(
        time_attr=RUNG,
        metric=VALUE,
        mode=mode,
        max_t=halving.reduction**MOST_MILESTONES,
        grace_period=1,
        reduction_factor=halving.reduction,
        stop_last_trials=False,
    )
    for name, values in halving.ended.items():
        before: Any = SimpleNamespace(trial_id=name)
        controller: Any = None
        made.on_trial_add(controller, before)
        for i, value in enumerate(values):
            made.on_trial_result(controller, before, _result(value, i, mode, halving.reduction))
    return made


def tpe(search: Search, mode: Mode) -> OptunaSearch:
    """Return Optuna's search, which knows the points that ended."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made = _FinalValues(
        space=dict(search.space),
        metric=VALUE,
        mode=mode,
        sampler=optuna.samplers.TPESampler(seed=search.seed),
        points_to_evaluate=[dict(point) for point in search.first] or None,
    )
    for point, value in search.ended:
        with suppress(ValueError):  # of another space
            made.add_evaluated_point(dict(point), value)
    return made


class _FinalValues(OptunaSearch):
    """Learns from final values alone: Ray's class fails where a result on the way, or of a failed item, has no value."""

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Leave what is reported on the way to the scheduler."""


class _Callback(TrialProgressCallback):
    """Takes the place of Tune's own, which would print."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __getstate__(self) -> dict[str, Any]:
        """Keep what the watch knows, such as addresses, out of the files of Tune."""
        return {}

    def on_trial_result(self, *_: Any, **info: Any) -> None:
        """Print nothing."""

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._watch.on_start(_item(trial.config))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._watch.on_step()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._watch.on_end(_item(trial.config), "")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        lines = str(trial.get_error() or "").strip().splitlines()
        self._watch.on_end(_item(trial.config), lines[-1] if lines else "no reason")
