"""The figures of a plain search: its trials over training, the metric over searched fields, the fields' importance."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator

from dcae15.report.measures import measured
from dcae15.report.plots import Line, Panel, Style
from dcae15.report.tables import Cell, Table, spread_text, table
from dcae15.sweep.figures import Points, Shown, images_axis, shown
from dcae15.sweep.file import Sweep
from dcae15.sweep.metrics import metric_label, metric_measure, metric_notes
from dcae15.sweep.records import Records, curve, final, finished, images_reached, latest, numeric_field, ranked, short
from dcae15.sweep.trials import Trial

FEWEST_TRIALS = 8
MOST_VALUES = 12  # of a field in a table of pairs
STYLES = {
    "best": Style("#0072b2", "o"),
    "finished": Style("#8b95a1", "o"),
    "stopped early": Style("#e69f00", "X", "--"),
    "failed or unfinished": Style("#d55e00", "v", ":"),
}


def trial_curves(sweep: Sweep, records: Records) -> Shown:
    """Draw the metric of every trial over the images seen, the best one in front."""
    lines = _lines_of(sweep, records, lambda record: [xy for xy in curve(record, sweep.metric) if measured(xy[1])])
    label = metric_label(sweep.metric)
    title = f"{label} over images seen"
    if not lines:
        return Shown(title, ["No trial was measured at milestones."])
    axis = images_axis(lines, higher=sweep.mode == "max")
    panel = Panel(label, lines, "images seen", y_label=metric_notes(sweep.metric), **axis)
    return replace(shown([panel], STYLES, ["One line per trial."], []), title=title)


def _lines_of(sweep: Sweep, records: Records, points: Callable[[Trial], Points], **options: Any) -> list[Line]:
    """Return a line for each trial, in the style of how it ended; the best one in front."""
    best = next(iter(ranked(sweep, records)), None)
    lines = []
    for record in (record for record in records if points(record)):
        kind = {"finished": "finished", "stopped": "stopped early"}.get(record.status, "failed or unfinished")
        name = "best" if record is best else kind
        look, width = STYLES[name], 2.6 if name == "best" else 1.1
        x, y = np.array(points(record)).T
        style = {"style": look.dash, "width": width, "size": width + 3, **options}
        lines.append(Line(name, x, y, look.colour, look.marker, **style))
    return sorted(lines, key=lambda line: list(STYLES).index(line.name), reverse=True)


def over_fields(sweep: Sweep, records: Records) -> Shown | None:
    """Show the metric over numeric searched fields: tables of pairs, or dots where there are many values; None without any."""
    values = {path: {numeric_field(sweep, record, path) for record in records} for path in sweep.space}
    values = {path: found for path, found in values.items() if len(found) > 1 and all(map(measured, found))}
    label = metric_label(sweep.metric)
    title = f"{label} over searched fields"
    if not values:
        return None
    if not any(measured(latest(record, sweep.metric)) for record in records):
        return Shown(title, ["No trial has a value of the metric."])
    if len(values) > 1 and max(map(len, values.values())) <= MOST_VALUES:
        tables = [_pairs(sweep, records, *pair) for pair in itertools.combinations(values, 2)]
        notes = [
            "Means where several trials are in one place. Bold is the best trial; in italics, nobody got to the end."
        ]
        return Shown(title, notes, tables=tables)
    panels = []
    for path, found in values.items():

        def points(record: Trial, path: str = path) -> Points:
            value = latest(record, sweep.metric)
            return [(numeric_field(sweep, record, path), value)] if measured(value) else []

        log = 10 if min(found) > 0 and max(found) > 50 * min(found) else 0
        options = {"x_counts": False, "x_log": log, "y_label": metric_notes(sweep.metric)}
        panels.append(Panel(label, _lines_of(sweep, records, points, style="none", size=5.5), short(path), **options))
    looks = {name: replace(style, dash="none") for name, style in STYLES.items()}
    return replace(shown(panels, looks, ["A dot per trial, at its last value."], []), title=title)


def _pairs(sweep: Sweep, records: Records, x: str, y: str) -> Table:
    best = next(iter(ranked(sweep, records)), None)
    members: dict[tuple[float, float], list[Trial]] = {}
    for record in records:
        place = numeric_field(sweep, record, x), numeric_field(sweep, record, y)
        members.setdefault(place, []).append(record)

    def cell(found: list[Trial]) -> Cell:
        ended = finished(found)
        text = spread_text(
            [latest(record, sweep.metric) for record in ended or found], metric_measure(sweep.metric).digits
        )
        return Cell(text, "best" if any(r is best for r in ended) else "" if ended else "early")

    columns, rows = (sorted({place[i] for place in members}) for i in (0, 1))
    heads = [f"{short(y)}, over {short(x)}", *(f"{value:g}" for value in columns)]
    return table(heads, [[f"{row:g}", *(cell(members.get((c, row), [])) for c in columns)] for row in rows])


# --- importance


def importance(sweep: Sweep, records: Records) -> Shown:
    """Return the importance of each searched field for the metric: fANOVA, Hutter et al. 2014, as Optuna computes it.

    From the final values; where fewer than eight trials finished, from the latest milestone that eight trials reached.
    """
    title = "Importance of the searched fields"
    if len(sweep.space) < 2:
        return Shown(title, ["Importance compares searched fields; this sweep has fewer than two."])
    values, note = _compared(sweep, records)
    if len(values) < FEWEST_TRIALS:
        return Shown(title, [note])
    distributions = {path: _distribution([record.values[path] for record, _ in values]) for path in sweep.space}
    searched = {path: found for path, found in distributions.items() if found is not None}
    if len(searched) < 2 or len({value for _, value in values}) < 2:
        return Shown(title, ["Importance is not given: the trials that compare do not differ enough."])
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if sweep.mode == "max" else "minimize")
    words = {path: isinstance(found, CategoricalDistribution) for path, found in searched.items()}
    for record, value in values:
        params = {path: repr(record.values[path]) if words[path] else float(record.values[path]) for path in searched}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=searched, value=value))
    shares = optuna.importance.get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    meaning = (
        "Parts of the metric's variance over the space that each field explains alone or with others, by a random forest fitted "
        "to the trials (fANOVA, Hutter et al. 2014); they add up to 1. With few trials this is a hint, not a measurement."
    )
    rows = [[short(path), f"{share:.2f}"] for path, share in shares.items()]
    return Shown(title, [note, meaning], tables=[table(["field", "part of the variance"], rows)])


def _compared(sweep: Sweep, records: Records) -> tuple[list[tuple[Trial, float]], str]:
    complete = [record for record in records if all(path in record.values for path in sweep.space)]
    ends = [(record, value) for record in finished(complete) if measured(value := final(record, sweep.metric))]
    if len(ends) >= FEWEST_TRIALS:
        return ends, f"From the final values of {len(ends)} trials."
    for images in sorted({images_reached(record) for record in complete if record.curve}, reverse=True):
        there = [(record, dict(curve(record, sweep.metric)).get(images, np.nan)) for record in complete]
        there = [(record, value) for record, value in there if measured(value)]
        if len(there) >= FEWEST_TRIALS:
            return there, (
                f"From the values of {len(there)} trials after {images:,.0f} images; only {len(ends)} have a final value."
            )
    return [], (
        f"Importance needs {FEWEST_TRIALS} trials that were measured after the same number of images; {len(ends)} finished."
    )


def _distribution(values: Sequence[object]) -> BaseDistribution | None:
    """Return what a field was drawn from; None when it was the same in all trials."""
    if len({repr(value) for value in values}) < 2:
        return None
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        return CategoricalDistribution(sorted({repr(value) for value in values}))
    wide = min(numbers) > 0 and max(numbers) >= 8 * min(numbers)
    return FloatDistribution(min(numbers), max(numbers), log=wide)
