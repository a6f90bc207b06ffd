"""Population based training: at milestones the worst trials go on from the weights of the best, with another learning rate.

What a trial then trains is written in its configuration (``diffusion.learning_rates``), so that its result has a fingerprint like
any other, and one command makes it again without the population. Source: Jaderberg et al., arXiv 1711.09846.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import PopulationBasedTraining

from dcae15 import artifacts, storage
from dcae15.config import Range, Sweep, Trial, Value, whole_batches
from dcae15.evaluation.milestones import Row, row_uri
from dcae15.orchestration.board import DONE
from dcae15.orchestration.plan import plan
from dcae15.orchestration.trial import Job, config_of, run_trial
from dcae15.training.checkpoint import checkpoint_names
from dcae15.training.stages import CHECKPOINTS, milestones_of, snapshot_uri
from dcae15.trials import TrialRecord, read_record

RATE, RATES = "diffusion.training.learning_rate", "diffusion.learning_rates"
TRIAL, MILESTONE = "trial", "milestone"
STATES = "states"
_GOES_ON = "goes_on.json"


class Population(PopulationBasedTraining):
    """Tune's scheduler, which compares all trials when they have reached the same milestone.

    A trial that goes on from another's weights keeps its own name, and waits for its turn when it has to.

    Args:
        sweep: its space has the learning rate alone.
        records: of all trials, as they are now.
        concurrent: how many trials run at once.
    """

    def __init__(self, sweep: Sweep, records: Sequence[TrialRecord], concurrent: int) -> None:
        domain = sweep.space[RATE]
        self._concurrent = concurrent
        self._rates = {record.id: rate_now(record.values) for record in records}
        super().__init__(
            time_attr=MILESTONE,
            metric=sweep.metric,
            mode=sweep.mode,
            perturbation_interval=1,
            hyperparam_mutations={RATE: _mutations(domain)},
            custom_explore_fn=lambda params: {**params, RATE: _within(domain, params[RATE])},
            require_attrs=False,
            log_config=False,
            # Else who reports first is compared with where the others were before, and the state of the first is not kept.
            synch=True,
        )
        # After a kill the others first catch up with who got furthest: what comes before was decided.
        self._next_perturbation_sync = max([1, *(len(r.curve) for r in records if r.status not in DONE)])

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Begin with the learning rate that the trial has; one whose process was lost goes on as it was."""
        if trial in self._trial_state:
            return
        trial.config[RATE] = self._rates[trial.config[TRIAL]]
        trial.set_status(TuneTrial.PAUSED)  # Tune starts all pending ones at once
        super().on_trial_add(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Return the waiting trial that got least far, as soon as there is room for one; else None.

        So the whole population takes turns. Tune's own limit would let the first ones run to their ends before the others begin.
        """
        trials = tune_controller.get_trials()
        live = [trial for trial in trials if not trial.is_finished()]
        if live and all(trial.status == TuneTrial.PAUSED and self._at_milestone(trial) for trial in live):
            self._go_on_without_others(tune_controller, live)
        if sum(trial.status in (TuneTrial.PENDING, TuneTrial.RUNNING) for trial in live) >= self._concurrent:
            return None
        waiting = [t for t in live if t.status == TuneTrial.PAUSED and not self._at_milestone(t)]
        return min(waiting, key=lambda trial: self._trial_state[trial].last_train_time, default=None)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Compare all trials once the last one has reached the milestone; nobody waits for those that ended."""
        for gone in (trial for trial in tune_controller.get_trials() if trial.is_finished()):
            self._trial_state[gone].last_train_time = self._next_perturbation_sync
        return super().on_trial_result(tune_controller, trial, result)

    def _go_on_without_others(self, tune_controller: Any, live: Sequence[Any]) -> None:
        """Compare those that waited for one that ended."""
        furthest = max(live, key=lambda trial: self._trial_state[trial].last_train_time)
        state = self._trial_state[furthest]
        result: Any = state.last_result
        self.on_trial_result(tune_controller, furthest, result)
        # Whatever was decided, now somebody can run.
        self._next_perturbation_sync = max(self._next_perturbation_sync, state.last_train_time + 1)

    def _at_milestone(self, trial: Any) -> bool:
        return self._trial_state[trial].last_train_time >= self._next_perturbation_sync

    def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        config, operations = super()._get_new_config(trial, trial_to_clone)
        return {**config, TRIAL: trial.config[TRIAL]}, operations


def _mutations(domain: Sequence[Value] | Range) -> Any:
    if not isinstance(domain, Range):
        return list(domain)
    return tune.loguniform(domain.low, domain.high) if domain.log else tune.uniform(domain.low, domain.high)


def _within(domain: Sequence[Value] | Range, rate: float) -> float:
    return min(max(rate, domain.low), domain.high) if isinstance(domain, Range) else rate


def rate_now(values: Mapping[str, Value]) -> float:
    """Return the learning rate that a trial has at the end of its schedule."""
    return _rates(values)[-1]


def run_member(job: Job, trial: Trial, params: Mapping[str, Any]) -> dict[str, float]:
    """Run a trial of the population, or what is left of it, from where Tune wants it to go on; return its metrics."""
    before, given = read_record(job.folder, trial.id), _given()
    if given:
        donor = replace(trial, values=given["values"])
        trial = replace(trial, values=extended(given["values"], given[MILESTONE], params[RATE]))
        adopt(job, donor, trial, given["images"])
    elif before:
        trial = replace(trial, values=before.values)
    reached = given["images"] if given else _reached(before)
    settings = config_of(job, trial).diffusion
    milestones, end = milestones_of(settings), whole_batches(settings.training)

    def report(row: Row) -> None:
        images = int(row["images"])
        if images >= end or images < reached or (given and images == reached) or not _keep_state(job, trial, images):
            return  # nothing is left to change, or it was decided before
        number = milestones.index(images) + 1
        with tempfile.TemporaryDirectory() as folder:
            goes_on = {"values": dict(trial.values), MILESTONE: number, "images": images}
            Path(folder, _GOES_ON).write_text(json.dumps(goes_on))
            tune.report({**row, MILESTONE: number}, checkpoint=tune.Checkpoint.from_directory(folder))

    return run_trial(job, trial, report)


def extended(values: Mapping[str, Value], milestone: int, rate: float) -> dict[str, Value]:
    """Return the values of a trial that has another learning rate from a milestone on.

    Args:
        values: ``RATE``, and ``RATES`` from each of the first milestones on.
        milestone: from which one on, counted from 1.
        rate: the learning rate then.
    """
    rates = _rates(values)[:milestone]
    rates += [rates[-1]] * (milestone - len(rates)) + [rate]
    while len(rates) > 1 and rates[-1] == rates[-2]:
        rates.pop()  # no change is written as nothing: the same result has the same name
    others = {path: value for path, value in values.items() if path != RATES}
    return {**others, RATE: rates[0], **({RATES: rates[1:]} if rates[1:] else {})}


def _rates(values: Mapping[str, Value]) -> list[float]:
    more: Any = values.get(RATES, [])
    first: Any = values[RATE]
    return [first, *more]


def _given() -> dict[str, Any] | None:
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return json.loads(Path(folder, _GOES_ON).read_text())


def _reached(before: TrialRecord | None) -> int:
    return int(before.curve[-1]["images"]) if before and before.curve else 0


def _uris(job: Job, trial: Trial) -> tuple[str, str]:
    """Return the URIs of a trial's denoiser and of what is measured at its milestones."""
    uris = {stage.name: stage.uri for stage in plan(config_of(job, trial))}
    return uris["train_diffusion"], uris["measure_milestones"]


def _keep_state(job: Job, trial: Trial, images: int) -> bool:
    """Keep the state of training at a milestone, for others to go on from; checkpoints themselves are removed in time.

    Returns:
        Whether it is kept; False when the training is beyond it, and nobody had kept it.
    """
    denoiser, _ = _uris(job, trial)
    names = checkpoint_names(images)
    there = [storage.exists(storage.join(denoiser, CHECKPOINTS, name)) for name in names]
    for name in names if all(there) else ():
        _copy(storage.join(denoiser, CHECKPOINTS, name), _state_uri(job, denoiser, name))
    return all(storage.exists(_state_uri(job, denoiser, name)) for name in names)


def _state_uri(job: Job, denoiser: str, name: str) -> str:
    return storage.join(job.folder, STATES, denoiser.rsplit("/", 1)[-1], name)


def adopt(job: Job, donor: Trial, heir: Trial, images: int) -> None:
    """Let a trial go on from another's state at a milestone: with its checkpoint, its snapshots and what they measured."""
    (denoiser, measures), (target, target_measures) = _uris(job, donor), _uris(job, heir)
    if target == denoiser or artifacts.finished(target):
        return
    for milestone in (m for m in milestones_of(config_of(job, heir).diffusion) if m <= images):
        source = snapshot_uri(denoiser, milestone)
        files = [file.path for file in storage.list_files(source)]
        for path in sorted(files, key=lambda path: path == artifacts.MANIFEST):  # which says that the rest is there
            _copy(storage.join(source, path), storage.join(snapshot_uri(target, milestone), path))
        _copy(row_uri(measures, milestone), row_uri(target_measures, milestone))
    for name in checkpoint_names(images):
        _copy(_state_uri(job, denoiser, name), storage.join(target, CHECKPOINTS, name))


def _copy(source: str, target: str) -> None:
    if not storage.exists(target):
        storage.write_bytes(target, storage.read_bytes(source))
