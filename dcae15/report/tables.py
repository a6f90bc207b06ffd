"""The tables of reports: how numbers stand side by side, ready for a page or for Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dcae15.channels import IN_TABLES, landmarks
from dcae15.report.data import ReportData, Rows
from dcae15.report.headline import compare
from dcae15.report.measures import MEASURES, RECONSTRUCTION, STRUCTURE, SUMMARY, Measure, measure_of, measured, number

DASH, MINUS = "–", "\N{MINUS SIGN}"
NAN = float("nan")


@dataclass(frozen=True)
class Cell:
    """What stands in a place of a table: text, a smaller second line, its CSS classes, and where it leads."""

    text: str
    mark: str = ""
    small: str = ""
    link: str = ""


@dataclass(frozen=True)
class Table:
    """Heads and rows of cells; columns hold numbers but those whose heads are marked ``words``."""

    heads: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def markdown(self) -> str:
        """Return the table as Markdown."""

        def line(cells: Iterable[Cell]) -> str:
            texts = (" ".join(cell.text.split()).replace("\\", "\\\\").replace("|", "\\|") for cell in cells)
            return "| " + " | ".join(texts) + " |"

        rule = "".join("---|" if head.mark == "words" else "---:|" for head in self.heads)
        return "\n".join([line(self.heads), f"|{rule}", *map(line, self.rows)]) + "\n"


def table(heads: Sequence[str | Cell], rows: Iterable[Sequence[str | Cell]], caption: str = "") -> Table:
    """Return a table of plain texts and cells, whose first column is words unless its head says otherwise."""

    def cells(row: Sequence[str | Cell]) -> list[Cell]:
        return [cell if isinstance(cell, Cell) else Cell(cell) for cell in row]

    first = [Cell(heads[0], "words")] if isinstance(heads[0], str) else [heads[0]]
    return Table([*first, *cells(heads[1:])], [cells(row) for row in rows], caption)


def written(value: float, digits: int, *, signed: bool = False) -> str:
    """Write a number for a table, a difference with its sign; a dash where it is missing."""
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", MINUS) if measured(value) else DASH


def spread_text(values: Iterable[float], digits: int, *, signed: bool = False) -> str:
    """Write the mean of what was measured and, of several values, the least and the greatest: ``1.50 [1.00, 2.00]``."""
    known = [value for value in values if measured(value)]
    mean, *ends = (
        written(value, digits, signed=signed)
        for value in (sum(known) / len(known) if known else NAN, *((min(known), max(known)) if len(known) > 1 else ()))
    )
    return f"{mean} [{ends[0]}, {ends[1]}]" if ends else mean


def by_prefix(arms: dict[str, Rows], keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """Lay the rows of all arms out as one table per measure that was measured: a line per prefix, a column per arm."""
    names = [arm for arm, rows in arms.items() if rows]
    prefixes = sorted({int(row["prefix"]) for rows in arms.values() for row in rows})
    tables = []
    for measure, values in _rows(arms, names, [dict.fromkeys(names, prefix) for prefix in prefixes], keys):
        compared = measure.higher_is_better is not None and {"structured", "baseline"} <= set(names)
        lines = []
        for prefix, row in zip(prefixes, values, strict=True):
            line: dict[str, Any] = {"prefix": prefix, "cells": [number(value, measure.digits) for value in row]}
            if compared:
                ours, other = (row[names.index(arm)] for arm in ("structured", "baseline"))
                line["difference"] = written(ours - other, measure.digits, signed=True)
                line["tone"] = compare(measure, ours, other)[1]
            lines.append(line)
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
    found = {arm: landmarks(prefixes) for arm, prefixes in prefixes_of.items() if prefixes}
    places: list[dict[str, int]] = []
    for word in IN_TABLES:
        kept = {arm: prefixes[word] for arm, prefixes in found.items()}
        places += [kept] if kept not in places else []
    curves = [
        {
            "measure": measure,
            "rows": [
                {"prefix": " / ".join(map(str, dict.fromkeys(kept.values()))), "cells": _cells(measure, row)}
                for kept, row in zip(places, values, strict=True)
            ],
        }
        for source, keys in zip(sources, (RECONSTRUCTION, STRUCTURE), strict=True)
        for measure, values in _rows(source, arms, places, keys)
    ]
    summaries = {arm: [{"prefix": 0, **values}] for arm, values in data.arm_summary.items()}
    whole = _rows(summaries, arms, [dict.fromkeys(arms, 0)], SUMMARY)
    summary = [{"measure": measure, "cells": _cells(measure, values[0])} for measure, values in whole]
    return {"arms": arms, "curves": curves, "summary": summary}


def _rows(
    source: dict[str, Rows], arms: Sequence[str], places: Sequence[dict[str, int]], keys: Sequence[str]
) -> Iterable[tuple[Measure, list[list[float]]]]:
    """Yield each measure that was measured, with its values: a row for each place, a column for each arm."""
    at = {arm: {int(row["prefix"]): row for row in rows} for arm, rows in source.items()}
    for key in keys:
        values = [[at.get(arm, {}).get(kept.get(arm, -1), {}).get(key, NAN) for arm in arms] for kept in places]
        if any(measured(value) for row in values for value in row):
            yield measure_of(key), values


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
        {"images": f"{row['images']:,.0f}", "cells": [number(row.get(key, NAN), MEASURES[key].digits) for key in keys]}
        for row in milestones
    ]
    return {"measures": [MEASURES[key] for key in keys], "lines": lines} if keys else {}
