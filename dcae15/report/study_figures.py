"""The figures of a study: what `dcae15.config.sweep.Figure` names, drawn and put into numbers."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from dcae15.config.sweep import Figure, Sweep
from dcae15.report.measures import measured
from dcae15.report.plots import (
    DOTS_PER_INCH,
    INK,
    QUIET,
    Line,
    Panel,
    Style,
    count_label,
    draw_panels,
    png,
    styles,
    tidy,
)
from dcae15.report.statistics import first_crossing, rank_correlation, spread
from dcae15.report.tables import DASH, measure_of
from dcae15.report.trial_values import (
    LANDMARKS,
    Records,
    arm_of,
    curve,
    final,
    finished,
    group_of,
    grouped,
    higher_is_better,
    metric_label,
    metric_notes,
    numeric_field,
    short,
    split_metric,
)
from dcae15.trials import TrialRecord

WIDTH, HEIGHT = 5.6, 3.3  # inches of a panel
MOST_TICKS = 9
LETTERS = 38  # of a name beside its row
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Table:
    """Numbers beside a figure: the first column is words."""

    heads: list[str]
    rows: list[list[str]]
    caption: str = ""


@dataclass(frozen=True)
class Shown:
    """A figure as the page shows it: notes, a legend, pictures with what they show in words, tables."""

    title: str
    notes: list[str] = field(default_factory=list)
    legend: dict[str, Style] = field(default_factory=dict)
    pictures: list[tuple[str, bytes]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def draw_figure(sweep: Sweep, figure: Figure, records: Records) -> Shown:
    """Draw a figure of a study from its finished trials; what is missing is said in the notes."""
    draw = {
        "over_images": _over_images,
        "over_channels": _over_channels,
        "over_field": _over_field,
        "per_arm": _per_arm,
        "against": _against,
    }[figure.kind]
    shown = draw(sweep, figure, finished(records))
    left = len(records) - len(finished(records))
    notes = [*shown.notes]
    if not shown.pictures:
        notes.append("No finished trial has these measures.")
    elif left:
        notes.append(f"Trials that have not finished are left out: {left}.")
    return Shown(figure.title or _title(figure), notes, shown.legend, shown.pictures, shown.tables)


def _title(figure: Figure) -> str:
    if figure.kind == "against":
        return f"What goes with {metric_label(figure.measures[-1])}?"
    what = ", ".join(dict.fromkeys(measure_of(split_metric(name)[0]).label for name in figure.measures))
    over = {"over_images": "images seen", "over_channels": "channels kept", "over_field": short(figure.field)}
    return f"{what} over {over[figure.kind]}" if figure.kind in over else f"{what} by arm"


def _panel(name: str, lines: list[Line], x_label: str, **options: Any) -> Panel:
    return Panel(metric_label(name), lines, x_label, y_label=metric_notes(name), **options)


def _draw(panel: Panel) -> bytes:
    return draw_panels([panel], columns=1, width=WIDTH, height=HEIGHT, legend=False)


def _line(name: str, style: Style, values: Mapping[float, Sequence[float]]) -> Line | None:
    """Return a line through the means at each place, with a band from the least to the greatest; None without values."""
    spreads = {x: spread(values[x]) for x in sorted(values)}
    known = {x: found for x, found in spreads.items() if found}
    if not known:
        return None
    x, mean, low, high = np.array([(x, s.mean, s.low, s.high) for x, s in known.items()]).T
    several = max(s.count for s in known.values()) > 1
    return Line(name, x, mean, style.colour, style.marker, style.dash, (low, high) if several else None)


def _gathered(pairs: Sequence[tuple[float, float]]) -> dict[float, list[float]]:
    values: dict[float, list[float]] = {}
    for x, y in pairs:
        values.setdefault(x, []).append(y)
    return values


def _lines(
    groups: Mapping[str, list[TrialRecord]],
    looks: Mapping[str, Style],
    points: Callable[[TrialRecord], Sequence[tuple[float, float]]],
) -> list[Line]:
    drawn = [
        _line(name, looks[name], _gathered([point for record in members for point in points(record)]))
        for name, members in groups.items()
    ]
    return [line for line in drawn if line]


def _legend(looks: Mapping[str, Style], panels: Sequence[Panel]) -> dict[str, Style]:
    used = {line.name for panel in panels for line in panel.lines}
    return {name: style for name, style in looks.items() if name in used}


def _shown(panels: Sequence[Panel], looks: Mapping[str, Style], notes: Sequence[str], tables: list[Table]) -> Shown:
    panels = [panel for panel in panels if panel.lines]
    spreads = any(line.band for panel in panels for line in panel.lines)
    band = ["Lines are means over seeds, bands go from the least to the greatest."] if spreads else []
    pictures = [(f"{panel.title} over {panel.x_label}", _draw(panel)) for panel in panels]
    return Shown("", [*band, *notes], _legend(looks, panels), pictures, tables)


# --- over images


def images_axis(lines: Sequence[Line], *, higher: bool) -> dict[str, Any]:
    """Return how curves over images are drawn: where milestones are far apart, doublings are evenly spaced, and marked if few."""
    y_log_from = 20 if higher else 4  # distances fall by the same part in each doubling
    x = sorted({float(value) for line in lines for value in line.x})
    if not x or x[0] <= 0 or x[-1] < 6 * x[0]:
        return {"y_log_from": y_log_from}
    few = len(x) <= MOST_TICKS and all(after >= 1.2 * before for before, after in itertools.pairwise(x))
    exact = all(value < 10_000 for value in x)
    names = [f"{value:,.0f}" if exact else count_label(value) for value in x]
    return {"x_log": 2, "x_ticks": x if few else [], "x_names": names if few else [], "y_log_from": y_log_from}


def _over_images(sweep: Sweep, figure: Figure, records: Records) -> Shown:
    groups = grouped(sweep, records)
    looks = styles(groups)
    panels = []
    for name in figure.measures:
        lines = _lines(groups, looks, lambda record, name=name: curve(record, name))
        panels.append(_panel(name, lines, "images seen", **images_axis(lines, higher=higher_is_better(sweep, name))))
    tables = [_images_to_reach(sweep, figure, name, groups) for name in figure.measures] if figure.reference else []
    tables = [table for table in tables if table]
    notes = []
    if tables:
        notes = [
            f"Tables: the images until a curve first is where {figure.reference} with the same seed ends, interpolated linearly "
            f"between milestones, as a part of all images that {figure.reference} saw; below 1 is faster. The row of "
            f"{figure.reference} itself is below 1 where its curve was there before, which is noise."
        ]
    elif figure.reference:
        notes = [f"No finished trial of the reference {figure.reference} was measured at milestones: nothing to reach."]
    return _shown(panels, looks, notes, [table for table in tables if table])


def _images_to_reach(
    sweep: Sweep, figure: Figure, metric: str, groups: Mapping[str, list[TrialRecord]]
) -> Table | None:
    """Return, by group and seed, the images to reach the reference's last value as a part of the images that it saw."""
    references = {
        _pair(record): points
        for members in groups.values()
        for record in members
        if arm_of(sweep, record) == figure.reference
        and (points := [(x, y) for x, y in curve(record, metric) if measured(y)])
    }
    if not references:
        return None
    higher = higher_is_better(sweep, metric)
    seeds = sorted({record.seed for members in groups.values() for record in members})
    rows = []
    for name, members in groups.items():
        ratios: dict[int, tuple[float, bool]] = {}
        for record in members:
            reference, points = references.get(_pair(record)), curve(record, metric)
            if reference and points:
                images, values = zip(*points, strict=True)
                end, target = reference[-1]
                crossing = first_crossing(images, values, target, higher=higher)
                ratios[record.seed] = (crossing.images / end, crossing.at_most)
        cells = [_ratio(*ratios[seed]) if seed in ratios else DASH for seed in seeds]
        rows.append([name, *cells, _ratios(list(ratios.values()))])
    heads = ["arm", *(f"seed {seed}" for seed in seeds), "mean [least, greatest]"]
    caption = f"{metric_label(metric)}: images to reach the end of {figure.reference}, as a part of its own"
    return Table(heads, rows, caption)


def _pair(record: TrialRecord) -> tuple[str, int]:
    return json.dumps(record.values, sort_keys=True), record.seed


def _ratio(ratio: float, at_most: bool) -> str:
    return f"{'≤ ' if at_most else ''}{ratio:.2f}" if math.isfinite(ratio) else "not reached"


def _ratios(ratios: Sequence[tuple[float, bool]]) -> str:
    found = spread(ratio for ratio, _ in ratios)
    if not ratios:
        return DASH
    if not found or found.count < len(ratios):
        return f"reached by {found.count if found else 0} of {len(ratios)}"
    at_most = "≤ " if any(bound for _, bound in ratios) else ""
    return f"{at_most}{found.mean:.2f}" + (f" [{found.low:.2f}, {found.high:.2f}]" if found.count > 1 else "")


# --- over channels, over a field


def _over_channels(sweep: Sweep, figure: Figure, records: Records) -> Shown:
    groups = grouped(sweep, records)
    arms_of = {group: _autoencoders(members) for group, members in groups.items()}
    names = {(group, arm): _named(group, arm, arms_of) for group, arms in arms_of.items() for arm in arms}
    looks = styles(names.values())
    panels, places = [], set()
    for measure in (split_metric(name)[0] for name in figure.measures):
        lines = []
        for (group, arm), name in names.items():
            points = [
                (LANDMARKS[landmark], value)
                for record in groups[group]
                for metric, value in record.metrics.items()
                for found, of, landmark in [split_metric(metric)]
                if (found, of) == (measure, arm) and landmark
            ]
            line = _line(name, looks[name], _gathered(points))
            lines += [line] if line else []
            places |= {x for x, _ in points}
        panels.append((measure, lines))
    ticks = sorted(places)
    labels = {1 / 8: "⅛", 1 / 4: "¼", 1 / 2: "½", 1.0: "all"}
    options = {"x_ticks": ticks, "x_names": [labels[tick] for tick in ticks], "x_log": 2}
    drawn = [_panel(measure, lines, "part of the channels kept", **options) for measure, lines in panels]
    return _shown(drawn, looks, [], [])


def _autoencoders(members: Records) -> list[str]:
    """Return the autoencoders whose first channels these trials measured, in the order found."""
    parts = [split_metric(metric) for record in members for metric in record.metrics]
    return list(dict.fromkeys(arm for _, arm, landmark in parts if landmark))


def _named(group: str, arm: str, arms_of: Mapping[str, list[str]]) -> str:
    if len(arms_of) == 1:
        return arm
    return group if arms_of[group] == [arm] or group == arm else f"{group}: {arm}"


def _over_field(sweep: Sweep, figure: Figure, records: Records) -> Shown:
    groups: dict[str, list[TrialRecord]] = {}
    for members in grouped(sweep, records).values():
        for record in members:
            groups.setdefault(arm_of(sweep, record) or sweep.name, []).append(record)
    looks = styles(groups)
    x_of = {record.id: numeric_field(sweep, record, figure.field) for record in records}
    x = sorted({value for value in x_of.values() if measured(value)})
    base = 2 if len(x) > 1 and all(v > 0 and math.log2(v).is_integer() for v in x) else 0
    base = base or (10 if x and x[0] > 0 and x[-1] / x[0] > 50 else 0)
    options = {"x_ticks": x if len(x) <= MOST_TICKS else [], "x_log": base, "x_counts": False}
    panels = []
    for name in figure.measures:

        def points(record: TrialRecord, name: str = name) -> list[tuple[float, float]]:
            return [(x_of[record.id], final(record, name))] if measured(x_of[record.id]) else []

        panels.append(_panel(name, _lines(groups, looks, points), short(figure.field), **options))
    missing = sum(not measured(value) for value in x_of.values())
    notes = [f"{missing} finished trials do not say their {figure.field} and are left out."] if missing else []
    return _shown(panels, looks, notes, [])


# --- per arm, against


def _per_arm(sweep: Sweep, figure: Figure, records: Records) -> Shown:
    groups = grouped(sweep, records)
    looks = styles(groups)
    pictures = []
    for name in figure.measures:
        values = {
            group: [value for record in members if measured(value := final(record, name))]
            for group, members in groups.items()
        }
        values = {group: found for group, found in values.items() if found}
        if values:
            pictures.append((f"{metric_label(name)} by arm, a dot per trial", _dots(name, values, looks)))
    notes = ["A dot is a trial, the bar is the mean over seeds."] if pictures else []
    return Shown("", notes, {}, pictures)


def _dots(name: str, values: Mapping[str, list[float]], looks: Mapping[str, Style]) -> bytes:
    size = (WIDTH, 0.95 + 0.34 * len(values))
    canvas = Canvas(figsize=size, dpi=DOTS_PER_INCH, facecolor="white", layout="constrained")
    axes = canvas.add_subplot()
    for row, (group, found) in enumerate(values.items()):
        heights = row + 0.11 * (np.arange(len(found)) - (len(found) - 1) / 2) * min(1, 4 / len(found))
        style = looks[group]
        axes.plot(found, heights, linestyle="none", marker=style.marker, color=style.colour, markersize=5.5)
        mean = float(np.mean(found))
        axes.plot([mean, mean], [row - 0.36, row + 0.36], color=style.colour, linewidth=2.2)
    axes.set_title(metric_label(name), fontsize=9.5, color=INK, loc="left", parse_math=False)
    axes.set_xlabel(metric_notes(name), fontsize=9, color=QUIET)
    tidy(axes)
    names = [group if len(group) <= LETTERS else group[: LETTERS - 1] + "…" for group in values]
    axes.set_yticks(range(len(names)), names)
    for text in axes.get_yticklabels():
        text.set_parse_math(False)
        text.set_color(INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    return png(canvas)


def _against(sweep: Sweep, figure: Figure, records: Records) -> Shown:
    *left, bottom = figure.measures
    distinct = list({_evaluation(record): record for record in reversed(records)}.values())[::-1]
    arms = list(dict.fromkeys(arm_of(sweep, record) or sweep.name for record in distinct))
    looks = styles(arms)
    panels, rows = [], []
    for name in left:
        pairs = [
            (record, x, y)
            for record in distinct
            if measured(x := final(record, name)) and measured(y := final(record, bottom))
        ]
        lines = []
        for arm in arms:
            points = [(x, y) for record, x, y in pairs if (arm_of(sweep, record) or sweep.name) == arm]
            if points:
                x, y = np.array(points).T
                lines.append(Line(arm, x, y, looks[arm].colour, looks[arm].marker, "none", size=5.5))
        notes = metric_notes(name)
        x_label = metric_label(name) + (f" ({notes})" if notes else "")
        panels.append(Panel(metric_label(bottom), lines, x_label, x_counts=False, y_label=metric_notes(bottom)))
        rows.append([metric_label(name), *_correlated([(x, y) for _, x, y in pairs]), *_between_groups(sweep, pairs)])
    heads = ["measure", "rank correlation", "trials", "p", "of means over seeds", "groups", "p"]
    notes = [
        f"Spearman's rank correlation of each measure with {metric_label(bottom)}; p by permutation. Seeds of one arm are not "
        "independent, which makes the first p too small: the columns at the right correlate the means over seeds."
    ]
    if len(distinct) < len(records):
        notes.append(f"{len(records) - len(distinct)} trials whose evaluation another trial shares are counted once.")
    dots = {name: replace(style, dash="none") for name, style in looks.items()}
    shown = _shown(panels, dots, notes, [Table(heads, rows)])
    return shown if shown.pictures else Shown("")


def _evaluation(record: TrialRecord) -> str:
    return record.stages.get("evaluate", {}).get("fingerprint") or f"{record.sweep}/{record.id}"


def _between_groups(sweep: Sweep, pairs: Sequence[tuple[TrialRecord, float, float]]) -> list[str]:
    groups: dict[str, list[tuple[float, float]]] = {}
    for record, x, y in pairs:
        groups.setdefault(group_of(sweep, record), []).append((x, y))
    means = [np.mean(points, axis=0) for points in groups.values()]
    return _correlated([(float(x), float(y)) for x, y in means])


def _correlated(pairs: Sequence[tuple[float, float]]) -> list[str]:
    found = rank_correlation([x for x, _ in pairs], [y for _, y in pairs])
    if found is None:
        return [DASH, str(len(pairs)), DASH]
    return [
        f"{found.rho:+.2f}".replace("-", MINUS),
        str(found.count),
        f"{found.p:.3f}" if found.p >= 0.001 else "< 0.001",
    ]
