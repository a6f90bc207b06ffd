"""The page of a sweep or a study: one self-contained HTML file from the records of its trials, and its numbers beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import yaml

from dcae15 import artifacts, storage
from dcae15.report.html import data_uri, page_environment
from dcae15.report.measures import duration, measured
from dcae15.sweep.figures import Shown, draw_figure
from dcae15.sweep.file import Sweep
from dcae15.sweep.metrics import metric_label, metric_notes
from dcae15.sweep.records import Records, final, finished, group_of, label, ranked, short
from dcae15.sweep.search_figures import importance, over_fields, trial_curves
from dcae15.sweep.tables import (
    MOST_METRICS,
    arms_table,
    cleaned,
    counts,
    is_search,
    metric_number,
    settings,
    shown_metrics,
    stage_tables,
    trials_csv,
    trials_table,
)
from dcae15.sweep.trials import Trial

PAGE, TRIALS, NUMBERS = "sweep.html", "trials.csv", "sweep.json"


def write_page(sweep: Sweep, records: Sequence[Trial], folder: str) -> tuple[str, str]:
    """Write ``sweep.html``, ``trials.csv`` (a line per trial) and ``sweep.json`` (settings, records, best trial) into a folder.

    The records are those of its trials and of the sweeps that it includes, in any state.

    Returns:
        The URI of the page, and the page.

    Raises:
        StorageError: the folder cannot be written to.
    """
    created = artifacts.now()
    records = [Trial(**cleaned(dataclasses.asdict(record), finite=False)) for record in records]
    best = next(iter(ranked(sweep, records)), None)
    numbers = {
        "created": created,
        "sweep": settings(sweep),
        "best": best.id if best else None,
        "trials": [cleaned(dataclasses.asdict(record)) for record in records],
    }
    storage.write_bytes(storage.join(folder, TRIALS), trials_csv(sweep, records))
    storage.write_json(storage.join(folder, NUMBERS), numbers)
    uri, page = storage.join(folder, PAGE), render_sweep(sweep, records, created)
    storage.write_bytes(uri, page.encode())
    return uri, page


def render_sweep(sweep: Sweep, records: Records, created: str) -> str:
    """Return the page of records without secrets: all inlined, no scripts, nothing loaded from elsewhere; texts are escaped."""
    environment = page_environment()
    environment.filters.update(data_uri=data_uri, metric_label=metric_label, metric_notes=metric_notes, short=short)
    best = next(iter(ranked(sweep, records)), None)
    metrics = shown_metrics(sweep, records)
    stages, made, saved = stage_tables(records)
    return environment.get_template("sweep.html.j2").render(
        sweep=sweep,
        created=created,
        what_ran=_what_ran(sweep, records),
        notes=_notes(sweep, records, best),
        best=best,
        best_number=next((i for i, record in enumerate(records, start=1) if record is best), 0),
        best_label=label(sweep, best) if best else "",
        best_metrics=[(n, metric_number(n, v)) for n in metrics if measured(v := final(best, n))][:4] if best else [],
        best_only_seed=len({record.seed for record in finished(records)}) > 1,
        arms=arms_table(sweep, records, len(metrics)) if records and not is_search(sweep) else None,
        trials=trials_table(sweep, records, best),
        failed=[
            (i, group_of(sweep, r) or sweep.name, r.error)
            for i, r in enumerate(records, start=1)
            if r.status == "failed"
        ],
        more_metrics=len(metrics) > MOST_METRICS,
        figures=_figures(sweep, records),
        stages=stages,
        made=made,
        saved=saved,
        settings=yaml.safe_dump(settings(sweep), sort_keys=False, allow_unicode=True, width=110),
        files=(TRIALS, NUMBERS),
    )


def _figures(sweep: Sweep, records: Records) -> list[Shown]:
    shown: list[Shown | None] = []
    if is_search(sweep) and records:
        shown = [trial_curves(sweep, records), over_fields(sweep, records)]
    shown += [draw_figure(sweep, figure, records) for figure in sweep.figures]
    shown += [importance(sweep, records)] if is_search(sweep) and sweep.space else []
    return [one for one in shown if one]


def _what_ran(sweep: Sweep, records: Records) -> str:
    if not records:
        return "No trial has run yet."
    others = sorted({record.sweep for record in records} - {sweep.name})
    return " ".join(
        [
            f"{_trials(len(records))}: {counts(records)}.",
            *([f"Some are from {', '.join(others)}."] if others else []),
            f"Together they ran {duration(sum(record.seconds for record in records))}.",
            f"Compared by {metric_label(sweep.metric)}, {'highest' if sweep.mode == 'max' else 'lowest'} first.",
        ]
    )


def _trials(count: int) -> str:
    return f"{count} {'trial' if count == 1 else 'trials'}"


def _notes(sweep: Sweep, records: Records, best: Trial | None) -> list[str]:
    """Say what is missing."""
    notes = []
    ended = finished(records)
    failed = sum(record.status == "failed" for record in records)
    if failed and failed == len(records):
        notes.append("All trials failed; their reasons are below the table.")
    elif failed:
        notes.append(f"{_trials(failed)} failed; why is said below the table.")
    if not ended and failed < len(records):
        notes.append("No trial has finished, so there is no best one yet.")
    ranks = len(ranked(sweep, records))
    if without := len(ended) - ranks:
        one = without == 1
        notes.append(
            f"{without} finished {'trial has' if one else 'trials have'} no finite value of {sweep.metric} "
            f"and {'is' if one else 'are'} not ranked."
        )
    if len(records) == 1:
        notes.append("A single trial: there is nothing to compare it with.")
    elif best and ranks == 1:
        notes.append("Only one trial has a final value, so the best is the only one.")
    return notes
