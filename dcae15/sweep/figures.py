"""The figures of a study: what `dcae15.sweep.file.Figure` names, drawn and put into numbers."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from dcae15.channels import IN_TABLES, LANDMARKS
from dcae15.config import ARMS
from dcae15.report.data import in_order
from dcae15.report.measures import measure_of, measured
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
from dcae15.report.tables import DASH, MINUS, Table, spread_text, table, written
from dcae15.sweep.file import Figure, Sweep
from dcae15.sweep.metrics import PARTS, higher_is_better, metric_label, metric_notes, split_metric
from dcae15.sweep.records import Records, arm_of, curve, final, finished, group_of, grouped, numeric_field, short
from dcae15.sweep.statistics import first_crossing, rank_correlation, spread
from dcae15.sweep.trials import Trial

WIDTH, HEIGHT = 5.6, 3.3  # inches of a panel
MOST_TICKS = 9
LETTERS = 38  # of a name beside its row


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
        "autoencoders": _side_by_side,
    }[figure.kind]
    ended = finished(records)
    drawn = draw(sweep, figure, ended)
    notes = [*drawn.notes]
    if not drawn.pictures and not (figure.kind == "autoencoders" and drawn.tables):
        notes.append("No finished trial has these measures.")
    elif len(ended) < len(records):
        notes.append(f"Trials that have not finished are left out: {len(records) - len(ended)}.")
    return replace(drawn, title=figure.title or _title(figure), notes=notes)


def _title(figure: Figure) -> str:
    if figure.kind == "against":
        return f"What goes with {metric_label(figure.measures[-1])}?"
    what = ", ".join(dict.fromkeys(measure_of(split_metric(name)[0]).label for name in figure.measures))
    over = {"over_images": "images seen", "over_channels": "channels kept", "over_field": short(figure.field)}
    by = "autoencoder" if figure.kind == "autoencoders" else "arm"
    return f"{what} over {over[figure.kind]}" if figure.kind in over else f"{what} by {by}"


def _panel(name: str, lines: list[Line], x_label: str, **options: Any) -> Panel:
    return Panel(metric_label(name), lines, x_label, y_label=metric_notes(name), **options)


Points = Sequence[tuple[float, float]]


def _lines(groups: Mapping[str, Records], looks: Mapping[str, Style], points: Callable[[Trial], Points]) -> list[Line]:
    """Return a line for each group through the means at each place, with a band from the least to the greatest."""
    lines = []
    for name, members in groups.items():
        values: dict[float, list[float]] = {}
        for x, y in (point for record in members for point in points(record)):
            values.setdefault(x, []).append(y)
        known = [(x, f.mean, f.low, f.high, f.count) for x in sorted(values) if (f := spread(values[x]))]
        if known:
            x, mean, low, high, count = np.array(known).T
            band = (low, high) if count.max() > 1 else None
            look = looks[name]
            lines.append(Line(name, x, mean, look.colour, look.marker, look.dash, band))
    return lines


def shown(panels: Sequence[Panel], looks: Mapping[str, Style], notes: Sequence[str], tables: list[Table]) -> Shown:
    """Draw the panels that have lines, each as a picture, with one legend."""
    panels = [panel for panel in panels if panel.lines]
    used = {line.name for panel in panels for line in panel.lines}
    spreads = any(line.band for panel in panels for line in panel.lines)
    band = ["Lines are means over seeds, bands go from the least to the greatest."] if spreads else []
    pictures = [
        (f"{panel.title} over {panel.x_label}", draw_panels([panel], 1, WIDTH, HEIGHT, legend=False))
        for panel in panels
    ]
    legend = {name: style for name, style in looks.items() if name in used}
    return Shown("", [*band, *notes], legend, pictures, tables)


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
    panels, tables = [], []
    for name in figure.measures:
        lines = _lines(groups, looks, lambda record, name=name: curve(record, name))
        panels.append(_panel(name, lines, "images seen", **images_axis(lines, higher=higher_is_better(sweep, name))))
        found = _images_to_reach(sweep, figure, name, groups) if figure.reference else None
        tables += [found] if found else []
    notes = []
    if tables:
        notes = [
            f"Tables: the images until a curve first is where {figure.reference} with the same seed ends, interpolated linearly "
            f"between milestones, as a part of all images that {figure.reference} saw; below 1 is faster. The row of "
            f"{figure.reference} itself is below 1 where its curve was there before, which is noise."
        ]
    elif figure.reference:
        notes = [f"No finished trial of the reference {figure.reference} was measured at milestones: nothing to reach."]
    return shown(panels, looks, notes, tables)


def _images_to_reach(sweep: Sweep, figure: Figure, metric: str, groups: Mapping[str, Records]) -> Table | None:
    """Return, by group and seed, the images to reach the reference's last value as a part of the images that it saw."""
    trials = [record for members in groups.values() for record in members]
    ends = {
        _pair(record): points[-1]
        for record in trials
        if arm_of(sweep, record) == figure.reference
        and (points := [(x, y) for x, y in curve(record, metric) if measured(y)])
    }
    if not ends:
        return None
    higher = higher_is_better(sweep, metric)
    seeds = sorted({record.seed for record in trials})
    rows = []
    for name, members in groups.items():
        parts: dict[int, tuple[float, str]] = {}
        for record in members:
            if (points := curve(record, metric)) and _pair(record) in ends:
                end, target = ends[_pair(record)]
                images, values = zip(*points, strict=True)
                crossing = first_crossing(images, values, target, higher=higher)
                parts[record.seed] = (crossing.images / end, "≤ " if crossing.at_most else "")
        texts = {
            seed: f"{sign}{part:.2f}" if math.isfinite(part) else "not reached" for seed, (part, sign) in parts.items()
        }
        reached = [part for part, _ in parts.values() if math.isfinite(part)]
        mean = max((sign for _, sign in parts.values()), default="") + spread_text(reached, 2)
        if len(reached) < len(parts):
            mean = f"reached by {len(reached)} of {len(parts)}"
        rows.append([name, *(texts.get(seed, DASH) for seed in seeds), mean])
    heads = ["arm", *(f"seed {seed}" for seed in seeds), "mean [least, greatest]"]
    caption = f"{metric_label(metric)}: images to reach the end of {figure.reference}, as a part of its own"
    return table(heads, rows, caption)


def _pair(record: Trial) -> tuple[str, int]:
    return json.dumps(record.values, sort_keys=True), record.seed


# --- over channels, side by side


def _autoencoders(groups: Mapping[str, Records]) -> dict[tuple[str, str], str]:
    """Return the autoencoders whose first channels were measured, by group and arm, each with its name."""
    arms_of: dict[str, list[str]] = {}
    for group, members in groups.items():
        parts = [split_metric(metric) for record in members for metric in record.metrics]
        arms_of[group] = list(in_order({arm: None for _, arm, landmark in parts if landmark}, list(ARMS)))

    def named(group: str, arm: str) -> str:
        if len(groups) == 1:
            return arm
        return group if arms_of[group] == [arm] or group == arm else f"{group}: {arm}"

    return {(group, arm): named(group, arm) for group, arms in arms_of.items() for arm in arms}


def _over_channels(sweep: Sweep, figure: Figure, records: Records) -> Shown:
    groups = grouped(sweep, records)
    names = _autoencoders(groups)
    looks = styles(names.values())
    panels = []
    for measure in (split_metric(name)[0] for name in figure.measures):
        lines = []
        for (group, arm), name in names.items():
            places = [(share, f"{measure}.{arm}.{word}") for word, share in LANDMARKS.items()]

            def points(record: Trial, places: list[tuple[float, str]] = places) -> Points:
                return [(share, record.metrics[metric]) for share, metric in places if metric in record.metrics]

            lines += _lines({name: groups[group]}, looks, points)
        found = {x for line in lines for x in line.x}
        ticks = {share: PARTS[word] for word, share in LANDMARKS.items() if share in found}
        options = {"x_ticks": list(ticks), "x_names": list(ticks.values()), "x_log": 2}
        panels.append(_panel(measure, lines, "part of the channels kept", **options))
    return shown(panels, looks, [], [])


def _side_by_side(sweep: Sweep, figure: Figure, records: Records) -> Shown:
    """Return a table: measures of each autoencoder, and their differences from the reference within each trial."""
    groups = grouped(sweep, records)
    names = _autoencoders(groups)
    others = [(g, arm) for g, arm in names if (g, figure.reference) in names and arm != figure.reference]
    heads = [*names.values(), *(f"{names[g, figure.reference]} {MINUS} {names[g, arm]}" for g, arm in others)]
    rows = []
    for name in figure.measures:
        measure = measure_of(name)
        for place, end in [*((PARTS[word], f".{word}") for word in IN_TABLES), ("all", "")]:
            values = {key: [final(record, f"{name}.{key[1]}{end}") for record in groups[key[0]]] for key in names}
            gaps = [
                [a - b for a, b in zip(values[g, figure.reference], values[g, arm], strict=True)] for g, arm in others
            ]
            if any(measured(value) for found in values.values() for value in found):
                cells = [spread_text(found, measure.digits) for found in values.values()]
                cells += [spread_text(found, measure.digits, signed=True) for found in gaps]
                rows.append([measure.title, place, *cells])
                if end == ".all":
                    break  # of a whole latent it is the same
    if not rows:
        return Shown("")
    notes = ["Mean over seeds, and in brackets the least and the greatest, which is no confidence interval."]
    notes += ["Differences are taken within each trial, so that what a seed does to both cancels."] if others else []
    return Shown("", notes, tables=[table(["measure", "channels", *heads], rows)])


# --- over a field


def _over_field(sweep: Sweep, figure: Figure, records: Records) -> Shown:
    groups: dict[str, list[Trial]] = {}
    for record in (record for members in grouped(sweep, records).values() for record in members):
        groups.setdefault(arm_of(sweep, record) or sweep.name, []).append(record)
    looks = styles(groups)
    x_of = {record.id: numeric_field(sweep, record, figure.field) for record in records}
    x = sorted({value for value in x_of.values() if measured(value)})
    base = 2 if len(x) > 1 and all(v > 0 and math.log2(v).is_integer() for v in x) else 0
    base = base or (10 if x and x[0] > 0 and x[-1] / x[0] > 50 else 0)
    options = {"x_ticks": x if len(x) <= MOST_TICKS else [], "x_log": base, "x_counts": False}
    panels = []
    for name in figure.measures:

        def points(record: Trial, name: str = name) -> Points:
            return [(x_of[record.id], final(record, name))] if measured(x_of[record.id]) else []

        panels.append(_panel(name, _lines(groups, looks, points), short(figure.field), **options))
    missing = sum(not measured(value) for value in x_of.values())
    notes = [f"{missing} finished trials do not say their {figure.field} and are left out."] if missing else []
    return shown(panels, looks, notes, [])


# --- per arm, against


def _per_arm(sweep: Sweep, figure: Figure, records: Records) -> Shown:
    groups = grouped(sweep, records)
    looks = styles(groups)
    pictures = []
    for name in figure.measures:
        values = {
            group: found
            for group, members in groups.items()
            if (found := [value for record in members if measured(value := final(record, name))])
        }
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
        style, mean = looks[group], float(np.mean(found))
        axes.plot(found, heights, linestyle="none", marker=style.marker, color=style.colour, markersize=5.5)
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
    looks = {arm: replace(style, dash="none") for arm, style in styles(arms).items()}
    panels, rows = [], []
    for name in left:
        pairs = [(record, (final(record, name), final(record, bottom))) for record in distinct]
        pairs = [(record, point) for record, point in pairs if all(map(measured, point))]
        lines, by_group = [], {}
        for arm, look in looks.items():
            points = [point for record, point in pairs if (arm_of(sweep, record) or sweep.name) == arm]
            if points:
                x, y = np.array(points).T
                lines.append(Line(arm, x, y, look.colour, look.marker, "none", size=5.5))
        for record, point in pairs:
            by_group.setdefault(group_of(sweep, record), []).append(point)
        notes = metric_notes(name)
        x_label = metric_label(name) + (f" ({notes})" if notes else "")
        panels.append(_panel(bottom, lines, x_label, x_counts=False))
        means = [(float(x), float(y)) for x, y in (np.mean(points, axis=0) for points in by_group.values())]
        rows.append([metric_label(name), *_correlated([point for _, point in pairs]), *_correlated(means)])
    heads = ["measure", "rank correlation", "trials", "p", "of means over seeds", "groups", "p"]
    notes = [
        f"Spearman's rank correlation of each measure with {metric_label(bottom)}; p by permutation. Seeds of one arm are not "
        "independent, which makes the first p too small: the columns at the right correlate the means over seeds."
    ]
    if len(distinct) < len(records):
        notes.append(f"{len(records) - len(distinct)} trials whose evaluation another trial shares are counted once.")
    drawn = shown(panels, looks, notes, [table(heads, rows)])
    return drawn if drawn.pictures else Shown("")


def _evaluation(record: Trial) -> str:
    return record.stages.get("evaluate", {}).get("fingerprint") or f"{record.sweep}/{record.id}"


def _correlated(pairs: Points) -> list[str]:
    found = rank_correlation([x for x, _ in pairs], [y for _, y in pairs])
    if found is None:
        return [DASH, str(len(pairs)), DASH]
    p = f"{found.p:.3f}" if found.p >= 0.001 else "< 0.001"
    return [written(found.rho, 2, signed=True), str(found.pairs), p]
