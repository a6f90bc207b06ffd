"""Population based training: schedules of learning rates, and trials that go on from the state of others."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ray.tune.experiment import Trial as TuneTrial

from dcae15 import artifacts, storage
from dcae15.cluster import Resources
from dcae15.command_line import parse
from dcae15.config import Range, make_trial, sweep_from_yaml, trial_command
from dcae15.evaluation.milestones import row_uri
from dcae15.orchestration.plan import plan
from dcae15.orchestration.population import (
    MILESTONE,
    RATE,
    RATES,
    TRIAL,
    Population,
    _keep_state,
    _uris,
    _within,
    adopt,
    extended,
    rate_now,
)
from dcae15.orchestration.trial import Job, config_of
from dcae15.runtime import LocalRuntime
from dcae15.tracking import Tracker, TrackerSpec
from dcae15.training import stages
from dcae15.trials import TrialRecord
from tests.unit.training import small

SWEEP = """
name: rates
search: random
trials: 4
scheduler: pbt
space: {diffusion.training.learning_rate: {low: 1e-4, high: 1e-2, log: true}}
set:
  baseline: false
  data.resolution: 16
  autoencoder:
    latent_channels: 8
    encoder_widths: [8, 8, 16]
    encoder_depths: [0, 1, 1]
    decoder_widths: [8, 8, 16]
    decoder_depths: [0, 1, 1]
  diffusion:
    denoiser: {depth: 1, width: 32, heads: 2}
    milestones: [48, 96]
    training: {images: 160, batch_size: 16, warmup_images: 32, checkpoint_images: 64}
"""


@pytest.mark.parametrize(
    ("values", "milestone", "rate", "expected"),
    [
        ({RATE: 1e-3}, 1, 2e-3, {RATE: 1e-3, RATES: [2e-3]}),
        ({RATE: 1e-3}, 3, 2e-3, {RATE: 1e-3, RATES: [1e-3, 1e-3, 2e-3]}),
        ({RATE: 1e-3, RATES: [2e-3]}, 2, 3e-3, {RATE: 1e-3, RATES: [2e-3, 3e-3]}),
        ({RATE: 1e-3, RATES: [2e-3]}, 3, 3e-3, {RATE: 1e-3, RATES: [2e-3, 2e-3, 3e-3]}),
        ({RATE: 1e-3, RATES: [2e-3, 3e-3]}, 1, 4e-3, {RATE: 1e-3, RATES: [4e-3]}),  # what came later is given up
    ],
    ids=str,
)
def test_another_rate_from_a_milestone_on(values, milestone, rate, expected):
    assert extended(values, milestone, rate) == expected
    assert rate_now(extended(values, milestone, rate)) == rate


@pytest.mark.parametrize(
    ("values", "milestone", "rate", "expected"),
    [
        ({RATE: 1e-3}, 2, 1e-3, {RATE: 1e-3}),
        ({RATE: 1e-3, RATES: []}, 1, 1e-3, {RATE: 1e-3}),
        ({RATE: 1e-3, RATES: [2e-3]}, 3, 2e-3, {RATE: 1e-3, RATES: [2e-3]}),
        ({RATE: 1e-3, RATES: [1e-3, 2e-3]}, 2, 1e-3, {RATE: 1e-3}),
    ],
    ids=str,
)
def test_no_change_is_the_schedule_without_it(values, milestone, rate, expected):
    assert extended(values, milestone, rate) == expected


def test_rates_stay_within_the_space():
    domain = Range(1e-4, 1e-2, log=True)
    assert [_within(domain, rate) for rate in (1e-5, 5e-4, 0.5)] == [1e-4, 5e-4, 1e-2]
    assert _within((1e-3, 2e-3), 2e-3) == 2e-3


class Member(SimpleNamespace):
    """Stands for a trial of Tune, which cannot be made without a Ray."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__

    def set_status(self, status):
        self.status = status

    def set_config(self, config):
        self.config = config

    def set_experiment_tag(self, tag):
        self.tag = tag

    def is_finished(self):
        return self.status in (TuneTrial.TERMINATED, TuneTrial.ERROR)


class Members:
    """A population of three, two at once, and what Tune's controller is to it."""

    def __init__(self, *milestones: int) -> None:
        self.rates = {"two": 1e-2, "three": 1e-3, "four": 1e-4}
        curves = milestones or (0, 0, 0)
        records = [
            TrialRecord(name, "rates", values={RATE: rate}, curve=[{"images": 48.0 * (i + 1)} for i in range(count)])
            for (name, rate), count in zip(self.rates.items(), curves, strict=True)
        ]
        self.population = Population(sweep_from_yaml(SWEEP, "rates.yaml"), records, concurrent=2)
        self.trials = {name: self._trial(name) for name in self.rates}
        self.controller = SimpleNamespace(
            search_alg=None,
            get_trials=lambda: list(self.trials.values()),
            get_live_trials=lambda: {t for t in self.trials.values() if t.status != TuneTrial.TERMINATED},
            _schedule_trial_save=lambda trial, result: trial.checkpoint,
            pause_trial=lambda trial, should_checkpoint: trial.set_status(TuneTrial.PAUSED),
        )
        for trial in self.trials.values():
            self.population.on_trial_add(self.controller, trial)

    @staticmethod
    def _trial(name: str) -> Member:
        kept = SimpleNamespace(
            checkpoint_config=SimpleNamespace(num_to_keep=None),
            _latest_checkpoint_result=SimpleNamespace(checkpoint="none"),
        )
        return Member(
            trial_id=name,
            config={TRIAL: name},
            status=TuneTrial.PENDING,
            experiment_tag=name,
            checkpoint=f"state of {name}",
            temporary_state=SimpleNamespace(saving_to=None),
            run_metadata=SimpleNamespace(checkpoint_manager=kept),
        )

    def started(self) -> list[str]:
        """Start all that may start now."""
        started = []
        while trial := self.population.choose_trial_to_run(self.controller):
            trial.status = TuneTrial.RUNNING
            started.append(trial.trial_id)
        return started

    def report(self, name: str, milestone: int, distance: float) -> None:
        trial = self.trials[name]
        decision = self.population.on_trial_result(
            self.controller, trial, {MILESTONE: milestone, "frechet_distance.generated": distance}
        )
        assert decision == "PAUSE" or (decision == "NOOP" and trial.status == TuneTrial.PAUSED)
        trial.status = TuneTrial.PAUSED

    def end(self, name: str, status: str) -> None:
        self.trials[name].status = status

    def goes_on_from(self) -> dict[str, str]:
        """Return whose state each one was given."""
        kept = {
            n: t.run_metadata.checkpoint_manager._latest_checkpoint_result.checkpoint for n, t in self.trials.items()
        }
        return {name: state.removeprefix("state of ") for name, state in kept.items() if state != "none"}


def test_the_whole_population_takes_turns_and_is_compared_at_the_same_milestone():
    members = Members()
    assert {name: trial.config[RATE] for name, trial in members.trials.items()} == members.rates
    assert members.started() == ["two", "three"], "two at once"
    members.report("two", 1, 1.0)  # the best one, before there is anything to compare it with
    assert members.started() == ["four"], "who got least far is next"
    members.report("four", 1, 3.0)
    assert members.started() == [] and members.goes_on_from() == {}, "both wait for the third"
    members.report("three", 1, 2.0)
    assert members.goes_on_from() == {"four": "two"}
    assert members.trials["four"].config[TRIAL] == "four", "it keeps its name"
    assert members.trials["four"].config[RATE] != members.rates["four"]
    assert len(members.started()) == 2


@pytest.mark.parametrize("status", [TuneTrial.TERMINATED, TuneTrial.ERROR])
def test_nobody_waits_for_one_that_ended(status):
    members = Members()
    assert members.started() == ["two", "three"]
    members.report("two", 1, 1.0)
    assert members.started() == ["four"]
    members.report("four", 1, 3.0)
    members.trials["four"].status = TuneTrial.RUNNING  # its state is still being saved
    members.end("three", status)
    assert members.started() == [] and members.goes_on_from() == {}
    members.trials["four"].status = TuneTrial.PAUSED
    assert members.started() == ["two", "four"]
    assert members.goes_on_from() == {"four": "two"}, "those that waited for it are compared"
    members.report("two", 2, 2.0)
    members.report("four", 2, 1.0)
    assert members.goes_on_from() == {"four": "two", "two": "four"}, "also at the next milestone"


def test_one_that_ends_before_the_others_arrive_holds_nobody_back():
    members = Members()
    members.started()
    members.end("two", TuneTrial.TERMINATED)
    assert members.started() == ["four"] and members.goes_on_from() == {}
    members.report("three", 1, 1.0)
    members.report("four", 1, 2.0)
    assert members.goes_on_from() == {"four": "three"}


def test_one_that_passed_a_milestone_unseen_and_those_that_wait_for_it_go_on():
    members = Members()
    members.started()
    members.report("two", 1, 1.0)
    members.started()
    members.report("four", 1, 3.0)
    members.report("three", 2, 2.0)  # its state at the first one was not kept
    assert members.started() == ["two", "four"]
    for name in ("two", "four"):  # too soon after the comparison to be compared again
        decision = members.population.on_trial_result(
            members.controller, members.trials[name], {MILESTONE: 2, "frechet_distance.generated": 1.0}
        )
        assert decision == "CONTINUE"
        members.report(name, 3, 1.0)
    assert set(members.started()) == {"three", "two"}


def test_after_a_kill_the_others_catch_up_before_they_are_compared():
    members = Members(2, 1, 1)
    assert members.started() == ["two", "three"]
    members.report("two", 2, 1.0)
    members.report("three", 1, 2.0)  # says again where it is
    assert members.started() == ["four", "three"] and members.goes_on_from() == {}
    members.report("four", 1, 3.0)
    members.report("three", 2, 2.0)
    assert members.started() == ["four"] and members.goes_on_from() == {}
    members.report("four", 2, 3.0)
    assert members.goes_on_from() == {"four": "two"}


@pytest.fixture
def job(tmp_path):
    sweep = sweep_from_yaml(SWEEP, "rates.yaml")
    words = (f"storage={tmp_path / 'storage'}",)
    return Job(
        sweep, words, str(tmp_path / "storage"), str(tmp_path / "sweep"), Resources(1, 0, local=True), TrackerSpec()
    )


def test_who_goes_on_from_anothers_state_ends_with_the_bits_of_its_schedule(tmp_path, job):
    latents = small.write_latents(str(tmp_path / "latents"))

    def train(trial, uri, until=0):
        runtime = LocalRuntime(device=torch.device("cpu"))
        arguments = {
            "latents": latents,
            "fingerprint": "x",
            "runtime": runtime,
            "tracker": Tracker(),
            "until": until,
        }
        stages.train_diffusion(config_of(job, trial), uri=uri, **arguments)

    def weights(uri):
        return [Path(uri, name).read_bytes() for name in ("weights.safetensors", "weights_raw.safetensors")]

    donor = make_trial(job.sweep, {RATE: 1e-3})
    denoiser, measures = _uris(job, donor)
    for images in (48, 96):
        assert not _keep_state(job, donor, images), "there is none yet"
        train(donor, denoiser, images)
        storage.write_json(row_uri(measures, images), {"images": images, "frechet_distance.generated": images / 2})
        assert _keep_state(job, donor, images)
    train(donor, denoiser)
    assert not Path(denoiser, stages.CHECKPOINTS).exists()
    assert _keep_state(job, donor, 48), "kept for others, although the donor's own checkpoints are gone"

    schedules = {}
    for milestone, images in ((1, 48), (2, 96)):
        heir = make_trial(job.sweep, extended(donor.values, milestone, 4e-3))
        target, target_measures = _uris(job, heir)
        adopt(job, donor, heir, images)
        rows = [Path(uri).name for uri in Path(target_measures, "rows").iterdir()]
        assert len(rows) == milestone and storage.read_json(row_uri(target_measures, images))["images"] == images
        assert artifacts.Denoiser.open(stages.snapshot_uri(target, images)).images_seen == images
        adopt(job, donor, heir, images)  # a second time, after a kill
        train(heir, target)
        straight = str(tmp_path / "straight" / str(images))
        train(heir, straight)
        assert weights(target) == weights(straight) != weights(denoiser)
        assert stages.read_history(target)[-1]["images"] == 160
        schedules[images] = weights(target)
    assert schedules[48] != schedules[96]


def test_a_trial_that_keeps_its_rate_is_its_donor(job):
    donor = make_trial(job.sweep, {RATE: 1e-3})
    heir = make_trial(job.sweep, extended(donor.values, 1, 1e-3))
    assert _uris(job, heir) == _uris(job, donor)
    adopt(job, donor, heir, 48)  # there is nothing to copy, and nothing is missed
    assert not Path(_uris(job, donor)[0]).exists()


def test_one_command_makes_a_schedule_again_without_the_population(job):
    heir = make_trial(job.sweep, extended({RATE: 1e-3}, 2, 2.5e-4))
    words = shlex.split(trial_command(job.sweep, heir, job.overrides))[2:]
    assert plan(parse(words, "").config) == plan(config_of(job, heir))
