"""The figures of a plain search: its trials over training, the metric over pairs of searched fields, the fields' importance."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator

from dcae15.config.sweep import Range, Sweep
from dcae15.report.measures import measured
from dcae15.report.plots import DOTS_PER_INCH, INK, LINES, QUIET, Line, Panel, Style, draw_panels, png
from dcae15.report.study_figures import HEIGHT, WIDTH, Shown, images_axis
from dcae15.report.trial_values import (
    Records,
    curve,
    final,
    finished,
    images_reached,
    latest,
    metric_label,
    metric_measure,
    metric_notes,
    numeric_field,
    ranked,
    short,
)
from dcae15.trials import TrialRecord

Colour = tuple[float, float, float, float]

FEWEST_TRIALS = 8
MOST_CELLS = 12  # of a heat map in a direction; more values are drawn as dots
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
            x, y = np.array(points).T
            name = _kind(record, best)
            look = STYLES[name]
            width = 2.6 if name == "best" else 1.1
            lines.append(Line(name, x, y, look.colour, look.marker, look.dash, width=width, size=width + 3))
    lines.sort(key=lambda line: list(STYLES).index(line.name), reverse=True)
    title = f"{metric_label(sweep.metric)} over images seen"
    if not lines:
        return Shown(title, ["No trial was measured at milestones."])
    panel = Panel(
        metric_label(sweep.metric),
        lines,
        "images seen",
        y_label=metric_notes(sweep.metric),
        **images_axis(lines, higher=sweep.mode == "max"),
    )
    used = {line.name for line in lines}
    legend = {name: style for name, style in STYLES.items() if name in used}
    picture = draw_panels([panel], columns=1, width=1.15 * WIDTH, height=1.15 * HEIGHT, legend=False)
    return Shown(title, ["One line per trial."], legend, [(title + ", one line per trial", picture)])


def _kind(record: TrialRecord, best: TrialRecord | None) -> str:
    if record is best:
        return "best"
    return {"finished": "finished", "stopped": "stopped early"}.get(record.status, "failed or unfinished")


# --- over two fields


@dataclass(frozen=True)
class _Cell:
    value: float
    count: int
    early: bool  # from trials that were stopped before their end
    failed: bool


def field_maps(sweep: Sweep, records: Records) -> Shown | None:
    """Draw the metric over pairs of numeric searched fields; None when the space has fewer than two."""
    fields = numeric_fields(sweep, records)[:MOST_FIELDS]
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
        "Darker is better among the trials that finished; the best is framed. n is the number of trials averaged, where there are "
        "several. Hatched cells and crosses: stopped early or failed, with the last value, measured after fewer images."
    ]
    return Shown(title, notes, pictures=pictures)


def numeric_fields(sweep: Sweep, records: Records) -> list[str]:
    """Return the searched fields with at least two different numbers, in the order of the space."""
    values = {path: {numeric_field(sweep, record, path) for record in records} for path in sweep.space}
    return [path for path, found in values.items() if len(found) > 1 and all(map(measured, found))]


def _map(sweep: Sweep, records: Records, x: str, y: str) -> bytes:
    columns, rows = (sorted({numeric_field(sweep, record, path) for record in records}) for path in (x, y))
    canvas = Canvas(figsize=(WIDTH, HEIGHT + 0.5), dpi=DOTS_PER_INCH, facecolor="white", layout="constrained")
    axes = canvas.add_subplot()
    if max(len(columns), len(rows)) <= MOST_CELLS:
        _draw_cells(axes, sweep, _cells(sweep, records, x, y, columns, rows), columns, rows)
    else:
        _draw_dots(axes, sweep, records, x, y)
    notes = metric_notes(sweep.metric)
    title = metric_label(sweep.metric) + (f" ({notes})" if notes else "")
    axes.set_title(title, fontsize=9.5, color=INK, loc="left", parse_math=False)
    axes.set_xlabel(short(x), fontsize=9, color=QUIET)
    axes.set_ylabel(short(y), fontsize=9, color=QUIET)
    axes.tick_params(labelsize=8.5, colors=QUIET, length=0)
    for spine in axes.spines.values():
        spine.set_color(LINES)
    return png(canvas)


def _cells(
    sweep: Sweep, records: Records, x: str, y: str, columns: Sequence[float], rows: Sequence[float]
) -> dict[tuple[int, int], _Cell]:
    """Return the cells that have a trial: the mean over finished trials, or over stopped ones where none finished."""
    members: dict[tuple[int, int], list[TrialRecord]] = {}
    for record in records:
        place = (
            columns.index(numeric_field(sweep, record, x)),
            rows.index(numeric_field(sweep, record, y)),
        )
        members.setdefault(place, []).append(record)
    cells = {}
    for place, found in members.items():
        ends = [value for record in finished(found) if measured(value := final(record, sweep.metric))]
        early = [value for record in found if measured(value := latest(record, sweep.metric))]
        values = ends or early
        failed = any(record.status == "failed" for record in found)
        cells[place] = _Cell(float(np.mean(values)) if values else np.nan, len(values), not ends, failed)
    return cells


def _draw_cells(
    axes: Axes,
    sweep: Sweep,
    cells: dict[tuple[int, int], _Cell],
    columns: Sequence[float],
    rows: Sequence[float],
) -> None:
    ends, early = ([cell.value for cell in cells.values() if cell.early is wanted] for wanted in (False, True))
    shade = _shades(sweep, ends, early)
    sign = -1 if sweep.mode == "max" else 1
    ranks = {place: sign * cell.value for place, cell in cells.items() if measured(cell.value) and not cell.early}
    best = min(ranks, key=lambda place: ranks[place], default=None)
    digits = metric_measure(sweep.metric).digits
    for (i, j), cell in cells.items():
        known = measured(cell.value)
        tone = shade(cell.value) if known else (1.0, 1.0, 1.0, 1.0)
        dark = known and 0.299 * tone[0] + 0.587 * tone[1] + 0.114 * tone[2] < 0.55
        ink = "white" if dark else INK
        corner = (i - 0.48, j - 0.48)
        hatched = known and cell.early
        box = Rectangle(corner, 0.96, 0.96, facecolor=tone, linewidth=0, hatch="////" if hatched else None)
        box.set_edgecolor("#ffffff99" if dark else "#5b647088")
        axes.add_patch(box)
        if (i, j) == best:
            axes.add_patch(Rectangle(corner, 0.96, 0.96, fill=False, edgecolor="#d55e00", linewidth=2.4, zorder=3))
        text = f"{cell.value:.{digits}f}" if known else "failed" if cell.failed else "no value"
        text += f"\nn = {cell.count}" if cell.count > 1 else ""
        plate = {"boxstyle": "round,pad=0.2", "facecolor": tone, "linewidth": 0} if hatched else None
        axes.text(i, j, text, ha="center", va="center", fontsize=9, color=ink if known else QUIET, bbox=plate)
    axes.set_xlim(-0.55, len(columns) - 0.45)
    axes.set_ylim(-0.55, len(rows) - 0.45)
    axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
    axes.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])


def _draw_dots(axes: Axes, sweep: Sweep, records: Records, x: str, y: str) -> None:
    known = [(record, latest(record, sweep.metric)) for record in records if measured(latest(record, sweep.metric))]
    ends, early = ([v for r, v in known if (r.status != "finished") is wanted] for wanted in (False, True))
    shade = _shades(sweep, ends, early)
    best = next(iter(ranked(sweep, records)), None)
    for record, value in known:
        place = numeric_field(sweep, record, x), numeric_field(sweep, record, y)
        edge = ("#d55e00", 2.4) if record is best else (QUIET, 0.8)
        marker = "o" if record.status == "finished" else "X"
        axes.scatter(*place, s=90, color=[shade(value)], marker=marker, edgecolors=edge[0], linewidths=edge[1])
    for path, scale in ((x, axes.set_xscale), (y, axes.set_yscale)):
        given = sweep.space[path]
        if isinstance(given, Range) and given.log:
            scale("log")
    axes.grid(color=LINES, linewidth=0.7)
    axes.set_axisbelow(True)


def _shades(sweep: Sweep, ends: Sequence[float], early: Sequence[float]) -> Callable[[float], Colour]:
    """Return the colour of a value on a scale that the finished trials fill; without any, those stopped early."""
    known = [value for value in ends if measured(value)] or [value for value in early if measured(value)]
    scale = Normalize(min(known), max(known), clip=True) if known else Normalize(0, 1, clip=True)
    colours = matplotlib.colormaps["Blues"]

    def shade(value: float) -> Colour:
        part = float(scale(value)) if scale.vmax != scale.vmin else 0.5
        return colours(0.08 + 0.87 * (part if sweep.mode == "max" else 1 - part))

    return shade


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
    distributions = {path: _distribution([record.values.get(path) for record, _ in values]) for path in sweep.space}
    searched = {path: found for path, found in distributions.items() if found is not None}
    if len(searched) < 2 or len({value for _, value in values}) < 2:
        return Importance({}, "Importance is not given: the trials that compare do not differ enough.")
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if sweep.mode == "max" else "minimize")
    optuna.logging.set_verbosity(level)
    for record, value in values:
        params = {path: _param(record.values[path], searched[path]) for path in searched}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=searched, value=value))
    shares = optuna.importance.get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return Importance(dict(shares), note)


def _compared(sweep: Sweep, records: Records) -> tuple[list[tuple[TrialRecord, float]], str]:
    complete = [record for record in records if all(path in record.values for path in sweep.space)]
    ends = [(record, final(record, sweep.metric)) for record in finished(complete)]
    ends = [(record, value) for record, value in ends if measured(value)]
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


def _param(value: object, distribution: BaseDistribution) -> object:
    return repr(value) if isinstance(distribution, CategoricalDistribution) else float(value)  # pyright: ignore[reportArgumentType]
