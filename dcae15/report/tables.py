"""The tables of a report: rows of all arms side by side, ready for the page."""

from __future__ import annotations

from typing import Any

from dcae15.channels import nearest_prefix
from dcae15.report.data import ReportData, Rows
from dcae15.report.headline import compare
from dcae15.report.measures import MEASURES, RECONSTRUCTION, STRUCTURE, SUMMARY, Measure, measured, number

SHARES = (1 / 8, 1 / 4, 1.0)
DASH = "–"


def measure_of(key: str) -> Measure:
    """Return a measure, also of a name that no report knows."""
    return MEASURES.get(key) or Measure(key.replace("_", " ").capitalize(), "", digits=3)


def by_prefix(arms: dict[str, Rows], keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """Lay the rows of all arms out as one table per measure that was measured: a line per prefix, a column per arm."""
    names = [arm for arm, rows in arms.items() if rows]
    rows_of = {arm: {int(row["prefix"]): row for row in arms[arm]} for arm in names}
    prefixes = sorted({prefix for rows in rows_of.values() for prefix in rows})
    tables = []
    for key in keys:
        measure = measure_of(key)
        compared = measure.higher_is_better is not None and {"structured", "baseline"} <= set(names)
        lines = []
        for prefix in prefixes:
            cells = {arm: rows_of[arm].get(prefix, {}).get(key, float("nan")) for arm in names}
            line: dict[str, Any] = {"prefix": prefix, "cells": [number(cells[arm], measure.digits) for arm in names]}
            if compared:
                gap = cells["structured"] - cells["baseline"]
                line["difference"] = (
                    f"{gap:+.{measure.digits}f}".replace("-", "\N{MINUS SIGN}") if measured(gap) else DASH
                )
                line["tone"] = compare(measure, cells["structured"], cells["baseline"])[1]
            lines.append(line)
        if any(measured(rows[prefix].get(key)) for rows in rows_of.values() for prefix in rows):
            tables.append({"measure": measure, "arms": names, "compared": compared, "lines": lines})
    return tables


def overview(data: ReportData) -> dict[str, Any]:
    """Lay out every measure of every arm at an eighth, a quarter and all of the channels.

    Returns:
        ``arms`` in order; ``curves``: each measure with rows ``{prefix, cells}``, one per share of the channels; ``summary``: each
        measure of whole latents with its cells. Cells are ``{text, best}``, one per arm: the best arm is marked where a direction
        is better and it is ahead by more than the measure's noise.
    """
    sources = (data.reconstruction, data.structure)
    arms = list(dict.fromkeys([arm for source in (*sources, data.arm_summary) for arm, rows in source.items() if rows]))
    prefixes_of = {arm: [int(row["prefix"]) for s in sources for row in s.get(arm, [])] for arm in arms}
    places = []
    for share in SHARES:
        kept = {arm: nearest_prefix(prefixes, share) for arm, prefixes in prefixes_of.items() if prefixes}
        if kept not in places:
            places.append(kept)
    curves = []
    for source, keys in zip(sources, (RECONSTRUCTION, STRUCTURE), strict=True):
        for key in keys:
            values = [[_at(source.get(arm, []), kept.get(arm), key) for arm in arms] for kept in places]
            if any(measured(value) for row in values for value in row):
                rows = [
                    {
                        "prefix": " / ".join(map(str, dict.fromkeys(kept.values()))),
                        "cells": _cells(measure_of(key), row),
                    }
                    for kept, row in zip(places, values, strict=True)
                ]
                curves.append({"measure": measure_of(key), "rows": rows})
    summary = []
    for key in SUMMARY:
        values = [data.arm_summary.get(arm, {}).get(key, float("nan")) for arm in arms]
        if any(measured(value) for value in values):
            summary.append({"measure": measure_of(key), "cells": _cells(measure_of(key), values)})
    return {"arms": arms, "curves": curves, "summary": summary}


def _at(rows: Rows, prefix: int | None, key: str) -> float:
    return next((row.get(key, float("nan")) for row in rows if row["prefix"] == prefix), float("nan"))


def _cells(measure: Measure, values: list[float]) -> list[dict[str, Any]]:
    known = [value for value in values if measured(value)]
    best = {True: max, False: min, None: lambda _, default: None}[measure.higher_is_better](known, default=None)
    ahead = best is not None and len(known) > 1 and sum(abs(value - best) <= measure.noise for value in known) == 1
    return [
        {"text": number(value, measure.digits) if measured(value) else DASH, "best": ahead and value == best}
        for value in values
    ]


def milestone_table(milestones: Rows) -> dict[str, Any]:
    """Lay out what was measured on the way, a line per milestone: ``measures``, and ``lines`` of ``{images, cells}``."""
    keys = [key for key in MEASURES if any(measured(row.get(key)) for row in milestones)]
    lines = [
        {
            "images": f"{row['images']:,.0f}",
            "cells": [number(row.get(key, float("nan")), MEASURES[key].digits) for key in keys],
        }
        for row in milestones
    ]
    return {"measures": [MEASURES[key] for key in keys], "lines": lines} if lines else {}
