"""The figures of a plain search: its trials over training, the metric over pairs of searched fields, the fields' importance."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import optuna
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Canvas
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator

from dcae15.report.measures import measured
from dcae15.report.plots import DOTS_PER_INCH, INK, QUIET, Line, Panel, Style, draw_panels, png, tidy
from dcae15.sweep.figures import HEIGHT, WIDTH, Shown, images_axis
from dcae15.sweep.file import Sweep
from dcae15.sweep.metrics import metric_label, metric_measure, metric_notes
from dcae15.sweep.records import (
    Records,
    TrialRecord,
    curve,
    final,
    finished,
    images_reached,
    latest,
    numeric_field,
    ranked,
    short,
)

FEWEST_TRIALS = 8
MOST_PLACES = 12  # in a direction of a map: more values stand where they are, not one beside the other
MOST_FIELDS = 3  # whose pairs are drawn
STYLES = {
    "best": Style("#0072b2", "o"),
    "finished": Style("#8b95a1", "o"),
    "stopped early": Style("#e69f00", "X", "--"),
    "failed or unfinished": Style("#d55e00", "v", ":"),
}


def trial_curves(sweep: Sweep, records: Records) -> Shown:
    """Draw the metric of every trial over the images seen, the best one in front."""
    best = next(iter(ranked(sweep, records)), None)
    lines = []
    for record in records:
        points = [(x, y) for x, y in curve(record, sweep.metric) if measured(y)]
        if points:
            kind = {"finished": "finished", "stopped": "stopped early"}.get(record.status, "failed or unfinished")
            name = "best" if record is best else kind
            look, width = STYLES[name], 2.6 if name == "best" else 1.1
            x, y = np.array(points).T
            lines.append(Line(name, x, y, look.colour, look.marker, look.dash, width=width, size=width + 3))
    lines.sort(key=lambda line: list(STYLES).index(line.name), reverse=True)
    label = metric_label(sweep.metric)
    title = f"{label} over images seen"
    if not lines:
        return Shown(title, ["No trial was measured at milestones."])
    axis = images_axis(lines, higher=sweep.mode == "max")
    panel = Panel(label, lines, "images seen", y_label=metric_notes(sweep.metric), **axis)
    used = {line.name for line in lines}
    legend = {name: style for name, style in STYLES.items() if name in used}
    picture = draw_panels([panel], columns=1, width=1.15 * WIDTH, height=1.15 * HEIGHT, legend=False)
    return Shown(title, ["One line per trial."], legend, [(title + ", one line per trial", picture)])


# --- over two fields


@dataclass(frozen=True)
class _Place:
    """Where trials are in a map, and what they have there: the mean of the finished ones, or of the others without any."""

    x: float
    y: float
    value: float
    count: int
    early: bool


def field_maps(sweep: Sweep, records: Records) -> Shown | None:
    """Draw the metric over pairs of numeric searched fields; None when the space has fewer than two."""
    values = {path: {numeric_field(sweep, record, path) for record in records} for path in sweep.space}
    fields = [path for path, found in values.items() if len(found) > 1 and all(map(measured, found))][:MOST_FIELDS]
    if len(fields) < 2:
        return None
    title = f"{metric_label(sweep.metric)} over searched fields"
    if not any(measured(latest(record, sweep.metric)) for record in records):
        return Shown(title, ["No trial has a value of the metric."])
    pictures = [
        (f"{title}: {short(x)} and {short(y)}", _map(sweep, records, x, y))
        for x, y in itertools.combinations(fields, 2)
    ]
    notes = [
        "Darker is better among the trials that finished; the best is framed. Crosses were stopped early or failed: they show the "
        "last value, measured after fewer images. n is the number of trials averaged, where there are several."
    ]
    return Shown(title, notes, pictures=pictures)


def _places(sweep: Sweep, records: Records, x: str, y: str) -> list[_Place]:
    members: dict[tuple[float, float], list[TrialRecord]] = {}
    for record in records:
        place = numeric_field(sweep, record, x), numeric_field(sweep, record, y)
        members.setdefault(place, []).append(record)
    places = []
    for place, found in members.items():
        ends = [value for record in finished(found) if measured(value := final(record, sweep.metric))]
        values = ends or [value for record in found if measured(value := latest(record, sweep.metric))]
        places.append(_Place(*place, float(np.mean(values)) if values else np.nan, len(values), not ends))
    return places


def _map(sweep: Sweep, records: Records, x: str, y: str) -> bytes:
    places = _places(sweep, records, x, y)
    canvas = Canvas(figsize=(WIDTH, HEIGHT + 0.5), dpi=DOTS_PER_INCH, facecolor="white", layout="constrained")
    axes = canvas.add_subplot()
    columns, rows = (sorted({getattr(place, axis) for place in places}) for axis in "xy")
    even = max(len(columns), len(rows)) <= MOST_PLACES
    sign, digits = -1 if sweep.mode == "max" else 1, metric_measure(sweep.metric).digits
    known = [place.value for place in places if measured(place.value)]
    ends = [place.value for place in places if measured(place.value) and not place.early]
    shade = Normalize(*sorted((sign * max(ends or known), sign * min(ends or known))), clip=True)
    best = min(ends, key=lambda value: sign * value, default=None)
    for place in places:
        at = (columns.index(place.x), rows.index(place.y)) if even else (place.x, place.y)
        part = float(shade(sign * place.value)) if shade.vmin != shade.vmax else 0.5
        tone = matplotlib.colormaps["Blues"](0.08 + 0.87 * (1 - part)) if measured(place.value) else "white"
        edge, width = ("#d55e00", 2.4) if place.value == best and not place.early else (QUIET, 0.8)
        marker = "X" if place.early else "o"
        axes.scatter(*at, s=260 if even else 90, color=[tone], marker=marker, edgecolors=edge, linewidths=width)
        if even:
            text = f"{place.value:.{digits}f}" if measured(place.value) else "no value"
            text += f", n = {place.count}" if place.count > 1 else ""
            offset = {"xytext": (0, -13), "textcoords": "offset points", "ha": "center", "va": "top"}
            axes.annotate(text, at, fontsize=8, color=INK, **offset)
    notes = metric_notes(sweep.metric)
    title = metric_label(sweep.metric) + (f" ({notes})" if notes else "")
    axes.set_title(title, fontsize=9.5, color=INK, loc="left", parse_math=False)
    axes.set_xlabel(short(x), fontsize=9, color=QUIET)
    axes.set_ylabel(short(y), fontsize=9, color=QUIET)
    tidy(axes)
    for values, axis in ((columns, "x"), (rows, "y")):
        if even:
            axes.set(**{f"{axis}ticks": range(len(values)), f"{axis}ticklabels": [f"{value:g}" for value in values]})
            axes.set(**{f"{axis}lim": (-0.6, len(values) - 0.4)})
        elif values[0] > 0 and values[-1] > 50 * values[0]:
            axes.set(**{f"{axis}scale": "log"})
    return png(canvas)


# --- importance


@dataclass(frozen=True)
class Importance:
    """The parts of the metric's variance that searched fields explain, and what they were taken from, or why there are none."""

    shares: dict[str, float]
    note: str


def importance(sweep: Sweep, records: Records) -> Importance:
    """Return the importance of each searched field for the metric: fANOVA, Hutter et al. 2014, as Optuna computes it.

    From the final values; where fewer than eight trials finished, from the latest milestone that eight trials reached.
    """
    if len(sweep.space) < 2:
        return Importance({}, "Importance compares searched fields; this sweep has fewer than two.")
    values, note = _compared(sweep, records)
    if len(values) < FEWEST_TRIALS:
        return Importance({}, note)
    distributions = {path: _distribution([record.values[path] for record, _ in values]) for path in sweep.space}
    searched = {path: found for path, found in distributions.items() if found is not None}
    if len(searched) < 2 or len({value for _, value in values}) < 2:
        return Importance({}, "Importance is not given: the trials that compare do not differ enough.")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if sweep.mode == "max" else "minimize")
    for record, value in values:
        words = {path: isinstance(found, CategoricalDistribution) for path, found in searched.items()}
        params = {path: repr(record.values[path]) if words[path] else float(record.values[path]) for path in searched}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=searched, value=value))
    shares = optuna.importance.get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return Importance(dict(shares), note)


def _compared(sweep: Sweep, records: Records) -> tuple[list[tuple[TrialRecord, float]], str]:
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
