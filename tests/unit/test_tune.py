"""A continued sweep: its scheduler and its search know how the trials went that ended before."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import FIFOScheduler

from dcae15.config import Range, Sweep, make_trial
from dcae15.orchestration.tune import RUNG, _rung, _scheduler, _search
from dcae15.trials import TrialRecord

RATE, STEP, DISTANCE = "diffusion.training.learning_rate", "diffusion.prefix.step", "frechet_distance.generated"
ASHA = Sweep("mine", scheduler="asha", reduction=2)
TPE = Sweep(
    "mine", search="tpe", trials=30, space={RATE: Range(1e-4, 1e-2, log=True), STEP: Range(4, 12, step=4)}, seeds=(3,)
)


def record(name, status, *distances, **values):
    curve = [{"images": 100.0 * (i + 1), DISTANCE: value} for i, value in enumerate(distances)]
    return TrialRecord(name, "mine", status=status, curve=curve, values=values)


def decisions(sweep, records, *distances):
    """What the scheduler decides for a newcomer at each of its milestones."""
    made, trial = _scheduler(sweep, records), SimpleNamespace(trial_id="newcomer")
    made.on_trial_add(None, trial)
    return [
        made.on_trial_result(None, trial, {DISTANCE: value, RUNG: _rung(sweep, i)}) for i, value in enumerate(distances)
    ]


ENDED = [
    record("a", "finished", 5.0, 4.0, 3.0),
    record("b", "stopped", 8.0),
    record("c", "finished", 6.0, 5.0, 1.0),
    record("d", "running", 1.0, 1.0),
    record("e", "failed", 1.0),
]


def test_what_ended_before_stops_a_worse_newcomer():
    assert decisions(ASHA, [], 9.0) == ["CONTINUE"], "the first one has nobody to be worse than"
    assert decisions(ASHA, ENDED, 9.0) == ["STOP"]
    assert decisions(ASHA, ENDED, 5.5) == ["CONTINUE"], (
        "the better half goes on, and trials that run or failed say nothing"
    )
    assert decisions(ASHA, ENDED, 5.5, 4.9) == ["CONTINUE", "STOP"], (
        "each milestone is compared with the same milestone"
    )
    assert decisions(ASHA, ENDED, 5.5, 4.2) == ["CONTINUE", "CONTINUE"]


def test_the_greatest_is_best_where_the_sweep_says_max():
    assert decisions(replace(ASHA, mode="max"), ENDED, 9.0) == ["CONTINUE"]
    assert decisions(replace(ASHA, mode="max"), ENDED, 5.5) == ["STOP"]


def test_a_sweep_without_a_scheduler_stops_nothing():
    assert isinstance(_scheduler(replace(ASHA, scheduler="none"), ENDED), FIFOScheduler)
    assert decisions(replace(ASHA, scheduler="none"), ENDED, 9.0, 9.0) == ["CONTINUE", "CONTINUE"]


def point(rate, step):
    return {RATE: rate, STEP: step}


def test_a_search_begins_with_what_was_left_open():
    records = [
        replace(record("a", "finished", 5.0), values=point(1e-3, 4), metrics={DISTANCE: 4.0}),
        replace(record("b", "running", 5.0), values=point(2e-3, 8)),
        replace(record("c", "stopped", 9.0), values=point(5e-3, 12)),
        replace(record("d", "failed"), values=point(3e-3, 4)),
        replace(record("e", "stopped"), values=point(4e-3, 4)),  # nothing is known of it
        replace(record("f", "finished", 5.0), values={"seed": 3}),  # of another space
    ]
    search = _search(TPE, records)
    assert [search.suggest(str(i)) for i in range(2)] == [point(2e-3, 8), point(3e-3, 4)]
    fresh = [search.suggest(str(i)) for i in range(2, 6)]
    assert all(1e-4 <= values[RATE] <= 1e-2 and values[STEP] in (4, 8, 12) for values in fresh)


def test_a_search_learns_from_what_ended():
    """Of many small rates that were good and large ones that were bad, it suggests small ones."""
    rates = [10 ** (-4 + i / 20) for i in range(40)]
    ended = [
        replace(record(str(i), "finished"), values=point(rate, 4), metrics={DISTANCE: rate * 1e4})
        for i, rate in enumerate(rates)
    ]
    search = _search(TPE, ended)
    found = [search.suggest(str(i))[RATE] for i in range(8)]
    assert sum(rate < 1e-3 for rate in found) >= 7


@pytest.mark.parametrize("ended", [1, 4])
def test_a_continued_search_does_not_draw_again_what_was_drawn_before(ended):
    first = _search(TPE, [])
    drawn = [make_trial(TPE, first.suggest(str(i))) for i in range(4)]
    records = [
        replace(record(trial.id, "finished", 1.0 + i), values=dict(trial.values))
        for i, trial in enumerate(drawn[:ended])
    ]
    second = _search(TPE, records)
    again = [make_trial(TPE, second.suggest(str(i))) for i in range(4)]
    assert {trial.id for trial in drawn}.isdisjoint(trial.id for trial in again)


def test_a_search_outlives_a_trial_that_failed():
    search = _search(TPE, [])
    assert search.suggest("first")
    search.on_trial_result("first", {RUNG: 1})  # a failed trial has no metric; Ray's own class raises KeyError here
    search.on_trial_complete("first", {RUNG: 1})
    assert search.suggest("second")
