"""A continued sweep: its scheduler and its search know how the trials went that ended before."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from dcae15.cluster.tune import RUNG, VALUE, asha, tpe
from dcae15.sweep.file import Range, Sweep
from dcae15.sweep.schedulers import halving, search
from dcae15.sweep.trials import Trial, make_trial

RATE, STEP, DISTANCE = "diffusion.training.learning_rate", "diffusion.prefix.step", "frechet_distance.generated"
ASHA = Sweep("mine", scheduler="asha", reduction=2)
TPE = Sweep(
    "mine", search="tpe", trials=30, space={RATE: Range(1e-4, 1e-2, log=True), STEP: Range(4, 12, step=4)}, seeds=(3,)
)


def record(name, status, *distances, **values):
    curve = [{"images": 100.0 * (i + 1), DISTANCE: value} for i, value in enumerate(distances)]
    return Trial(name, "mine", status=status, curve=curve, values=values)


def decisions(sweep, records, *distances):
    """What the scheduler decides for a newcomer at each of its milestones."""
    trial, made = SimpleNamespace(trial_id="newcomer"), asha(halving(sweep, records), sweep.mode)
    made.on_trial_add(None, trial)
    results = [{VALUE: value, RUNG: sweep.reduction**i} for i, value in enumerate(distances)]
    return [made.on_trial_result(None, trial, result) for result in results]


ENDED = [
    record("a", "finished", 5.0, 4.0, 3.0),
    record("b", "stopped", 8.0),
    record("c", "finished", 6.0, 5.0, 1.0),
    record("d", "running", 1.0, 1.0),
    record("e", "failed", 1.0),
]


@pytest.mark.parametrize(
    ("records", "distances", "decided"),
    [
        ([], [9.0], ["CONTINUE"]),  # nobody to be worse than
        (ENDED, [9.0], ["STOP"]),
        (ENDED, [5.5], ["CONTINUE"]),  # the better half goes on, and trials that run or failed say nothing
        (ENDED, [5.5, 4.9], ["CONTINUE", "STOP"]),  # each milestone is compared with the same milestone
        (ENDED, [5.5, 4.2], ["CONTINUE", "CONTINUE"]),
        ([*ENDED, record("f", "stopped", float("nan"))], [6.0], ["CONTINUE"]),  # no number is the worst there is
    ],
)
def test_what_ended_before_stops_a_worse_newcomer(records, distances, decided):
    assert decisions(ASHA, records, *distances) == decided


def test_the_greatest_is_best_where_the_sweep_says_max():
    assert decisions(replace(ASHA, mode="max"), ENDED, 9.0) == ["CONTINUE"]
    assert decisions(replace(ASHA, mode="max"), ENDED, 5.5) == ["STOP"]


def test_a_sweep_without_a_scheduler_stops_nothing():
    assert halving(replace(ASHA, scheduler="none"), ENDED) is None


def point(rate, step):
    return {RATE: rate, STEP: step}


def searching(records):
    return tpe(search(TPE, records), TPE.mode)


def test_a_search_begins_with_what_was_left_open():
    records = [
        replace(record("a", "finished", 5.0), values=point(1e-3, 4), metrics={DISTANCE: 4.0}),
        replace(record("b", "running", 5.0), values=point(2e-3, 8)),
        replace(record("c", "stopped", 9.0), values=point(5e-3, 12)),
        replace(record("d", "failed"), values=point(3e-3, 4)),
        replace(record("e", "stopped"), values=point(4e-3, 4)),  # nothing is known of it
        replace(record("f", "finished", 5.0), values={"seed": 3}),  # of another space
    ]
    made = searching(records)
    assert [made.suggest(str(i)) for i in range(2)] == [point(2e-3, 8), point(3e-3, 4)]
    fresh = [made.suggest(str(i)) for i in range(2, 6)]
    assert all(1e-4 <= values[RATE] <= 1e-2 and values[STEP] in (4, 8, 12) for values in fresh)


def test_a_search_learns_from_what_ended():
    """Of many small rates that were good and large ones that were bad, it suggests small ones."""
    rates = [10 ** (-4 + i / 20) for i in range(40)]
    one = record("", "finished")
    ended = [replace(one, id=str(rate), values=point(rate, 4), metrics={DISTANCE: rate * 1e4}) for rate in rates]
    made = searching(ended)
    assert sum(made.suggest(str(i))[RATE] < 1e-3 for i in range(8)) >= 7


@pytest.mark.parametrize("ended", [1, 4])
def test_a_continued_search_does_not_draw_again_what_was_drawn_before(ended):
    first = searching([])
    drawn = [make_trial(TPE, first.suggest(str(i))) for i in range(4)]
    second = searching([replace(record(trial.id, "finished", 1.0), values=trial.values) for trial in drawn[:ended]])
    again = [make_trial(TPE, second.suggest(str(i))) for i in range(4)]
    assert {trial.id for trial in drawn}.isdisjoint(trial.id for trial in again)


def test_a_search_outlives_a_trial_that_failed():
    made = searching([])
    assert made.suggest("first")
    made.on_trial_result("first", {RUNG: 1})  # a failed trial has no value; Ray's own class raises KeyError here
    made.on_trial_complete("first", {RUNG: 1})
    assert made.suggest("second")
