"""The tables of a sweep: its arms over seeds, its trials, its shared stages, its settings."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from dcae15.channels import LANDMARKS
from dcae15.redaction import redact
from dcae15.report.html import link
from dcae15.report.measures import duration, measured
from dcae15.report.tables import DASH, Cell, Table, spread_text, table, written
from dcae15.sweep.file import Sweep
from dcae15.sweep.metrics import higher_is_better, metric_label, metric_measure, metric_notes, split_metric
from dcae15.sweep.records import Records, final, finished, group_of, grouped, images_reached, latest
from dcae15.sweep.statistics import spread
from dcae15.sweep.trials import STATUSES, Trial

MOST_METRICS = 6  # columns of the table of trials; the CSV file has all


def is_search(sweep: Sweep) -> bool:
    """Whether a sweep looks for the best point, with one trial for each; else it compares arms, or means over seeds."""
    return not (sweep.arms or len(sweep.seeds) > 1 or sweep.include)


def shown_metrics(sweep: Sweep, records: Records) -> list[str]:
    """Return the metrics worth a column: the sweep's own, then those of its figures that a trial has."""
    names = [sweep.metric]
    tabulated = any(figure.kind == "autoencoders" for figure in sweep.figures)  # has what is over channels in lines
    for figure in sweep.figures:
        if figure.kind == "autoencoders" or (tabulated and figure.kind == "over_channels"):
            continue
        for name in figure.measures:
            if figure.kind == "over_channels":
                names += _over_channels(records, split_metric(name)[0])
            elif any(name in record.metrics for record in records):
                names.append(name)
    return list(dict.fromkeys(names))


def _over_channels(records: Records, measure: str) -> list[str]:
    """Return the metrics of a measure over channels, from the first channels to all."""
    names = {name for record in records for name in record.metrics}
    parts = sorted(
        (LANDMARKS[place], name) for name in names for of, _, place in [split_metric(name)] if of == measure and place
    )
    return [name for _, name in parts]


def metric_number(name: str, value: float) -> str:
    """Write a value of a metric with as many digits as its measure has; a dash where it is missing."""
    return written(value, metric_measure(name).digits)


def arms_table(sweep: Sweep, records: Records, most: int = MOST_METRICS) -> Table:
    """Return the finished trials by arm and searched values: mean [least, greatest] over seeds; the best mean is marked."""
    metrics = shown_metrics(sweep, records)[:most]
    groups = {name: finished(members) for name, members in grouped(sweep, records).items()}
    columns = []
    for metric in metrics:
        values = [[final(record, metric) for record in members] for members in groups.values()]
        means = [found.mean if (found := spread(of)) else math.nan for of in values]
        best = _best(sweep, metric, means)
        column = []
        for i, of in enumerate(values):
            known = sum(map(measured, of))
            text = spread_text(of, metric_measure(metric).digits) + (f" of {known}" if 0 < known < len(of) else "")
            column.append(Cell(text, "best" if i == best else ""))
        columns.append(column)
    heads = [Cell(metric_label(name), "wrap", metric_notes(name)) for name in metrics]
    rows = [
        [Cell(name, "name"), str(len(members)), *(column[i] for column in columns)]
        for i, (name, members) in enumerate(groups.items())
    ]
    return table(["arm", "trials", *heads], rows)


def _best(sweep: Sweep, metric: str, means: Sequence[float]) -> int:
    """Return the place of the best mean; -1 where fewer than two are known or no direction is better."""
    known = [i for i, value in enumerate(means) if measured(value)]
    if len(known) < 2 or (metric != sweep.metric and not metric_measure(metric).direction):
        return -1
    return (max if higher_is_better(sweep, metric) else min)(known, key=lambda i: means[i])


def trials_table(sweep: Sweep, records: Records, best: Trial | None) -> Table:
    """Return the trials, finished ones first and best first, each with its number in the order given."""
    metrics = shown_metrics(sweep, records)[:MOST_METRICS]
    sign = -1.0 if sweep.mode == "max" else 1.0

    def place(pair: tuple[int, Trial]) -> tuple[int, float, int]:
        value = latest(pair[1], sweep.metric)
        order = ("finished", "stopped", "running", "waiting", "failed").index(pair[1].status)
        return order, sign * value if measured(value) else math.inf, pair[0]

    def row(i: int, record: Trial) -> list[Cell]:
        reached, early = images_reached(record), record.status != "finished"
        images = f"{reached:,.0f}" if measured(reached) else DASH
        status = f"stopped at {images} images" if record.status == "stopped" and measured(reached) else record.status
        values = [latest(record, name) if early else final(record, name) for name in metrics]
        report = link(record.report)
        cells = [
            Cell(str(i)),
            Cell(group_of(sweep, record) or sweep.name, "name"),
            Cell(str(record.seed)),
            Cell(status, record.status, link=f"#failed-{i}" if record.status == "failed" else ""),
            *(Cell(metric_number(n, v), "early" if early else "") for n, v in zip(metrics, values, strict=True)),
            Cell(images),
            Cell(duration(record.seconds) if record.seconds else DASH),
            Cell("report" if report else record.report or DASH, link=report),
        ]
        return [dataclasses.replace(cell, mark=f"{cell.mark} best") for cell in cells] if record is best else cells

    words = {name: Cell(name, "words") for name in ("Trial", "Status", "Report")}
    heads = [Cell("#"), words["Trial"], "Seed", words["Status"]]
    heads += [*(Cell(metric_label(name), "wrap") for name in metrics), "Images", "Time", words["Report"]]
    return table(heads, [row(i, record) for i, record in sorted(enumerate(records, start=1), key=place)])


def counts(records: Records) -> str:
    """Count the trials by status, such as '8 finished, 3 stopped early, 1 failed'."""
    found = [record.status for record in records]
    words = {"stopped": "stopped early"}
    return ", ".join(f"{found.count(s)} {words.get(s, s)}" for s in STATUSES if s in found)


def trials_csv(sweep: Sweep, records: Records) -> bytes:
    """Return all that is known of the trials as a CSV file: a line each, every field and metric a column."""
    fields = list(dict.fromkeys([*sweep.space, *(path for record in records for path in record.values)]))
    metrics = list(dict.fromkeys([sweep.metric, *sorted({name for record in records for name in record.metrics})]))
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    ends = ("images", "seconds", "report", "run_id", "command", "error")
    writer.writerow(["number", "id", "sweep", "arm", "seed", "status", *fields, *metrics, *ends])
    for i, record in enumerate(records, start=1):
        images = images_reached(record)
        found = [*(record.values.get(path) for path in fields), *(record.metrics.get(name) for name in metrics)]
        values = ["" if isinstance(value, float) and not math.isfinite(value) else value for value in found]
        head = [i, record.id, record.sweep, record.arm, record.seed, record.status]
        texts = [record.report, record.run_id, record.command, record.error]
        reached = f"{images:.0f}" if measured(images) else ""
        writer.writerow([*head, *values, reached, round(record.seconds, 1), *texts])
    return stream.getvalue().encode()


# --- shared stages


def stage_tables(records: Records) -> tuple[Table, Table, float]:
    """Return the stages in the order of the pipeline, their artifacts, and the seconds that trials saved by sharing them."""
    uses: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for record in records:
        for name, stage in record.stages.items():
            uses.setdefault(name, {}).setdefault(str(stage.get("fingerprint", "")), []).append(stage)
    stages, artifacts, total = [], [], 0.0
    for name, found in uses.items():
        used = [len(entries) for entries in found.values()]
        ran = [sum(bool(entry.get("ran")) for entry in entries) for entries in found.values()]
        seconds = [max(float(entry.get("seconds") or 0) for entry in entries) for entries in found.values()]
        saved = sum(s * (u - r) for s, u, r in zip(seconds, used, ran, strict=True))
        total += saved
        several, before = sum(r > 1 for r in ran), sum(r == 0 for r in ran)
        words = [f"{several} made more than once"] if several else []
        words += [f"{before} made by another run"] if before else []
        remark = Cell(", ".join(words) or "each made once", "aside worse" if several else "aside")
        stages.append([name, str(len(found)), str(sum(used)), str(sum(ran)), duration(saved), remark])
        for i, (fingerprint, entries) in enumerate(found.items()):
            uri = str(entries[0].get("uri", ""))
            cells = [str(used[i]), str(ran[i]), duration(seconds[i]), Cell(fingerprint, "aside")]
            artifacts.append([Cell(name, small=uri, link=link(uri)), *cells])
    aside = [Cell(name, "words aside") for name in ("Remark", "Fingerprint")]
    return (
        table(["Stage", "Artifacts", "Used by trials", "Ran", "Saved", aside[0]], stages),
        table(["Stage and artifact", "Trials", "Ran", "Time", aside[1]], artifacts),
        total,
    )


# --- settings


def settings(sweep: Sweep) -> dict[str, Any]:
    """Return what the sweep's file says, without what is as by default and without secrets."""
    given, plain = dataclasses.asdict(sweep), dataclasses.asdict(Sweep(sweep.name))
    return {
        name: cleaned(value)
        for name, value in given.items()
        if (value != plain[name] or name == "name") and name != "layers"
    }


def cleaned(value: Any, *, finite: bool = True) -> Any:
    """Return a value as JSON has it: credentials masked, lists and mappings, and nothing in place of NaN if ``finite``."""
    if isinstance(value, Mapping):
        return {key: cleaned(item, finite=finite) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(item, finite=finite) for item in value]
    if isinstance(value, str):
        return redact(value)
    return None if finite and isinstance(value, float) and not math.isfinite(value) else value
