"""The page of a sweep or a study: one self-contained HTML file from the records of its trials, and its numbers beside it."""

from __future__ import annotations

from collections.abc import Sequence

from dcae15 import artifacts, storage
from dcae15.config.sweep import Sweep
from dcae15.report.html import data_uri, page_environment
from dcae15.report.measures import duration, measured
from dcae15.report.search_figures import field_maps, importance, trial_curves
from dcae15.report.study_figures import Shown, draw_figure
from dcae15.report.sweep_tables import (
    MOST_METRICS,
    arm_table,
    counts,
    metric_number,
    plain,
    settings,
    settings_yaml,
    shared_stages,
    shown_metrics,
    study_table,
    trial_rows,
    trials_csv,
    without_secrets,
)
from dcae15.report.trial_values import Records, final, finished, metric_label, metric_notes, ranked, short
from dcae15.trials import TrialRecord, label

__all__ = ["PAGE", "is_search", "render_sweep", "study_table", "write_sweep_report"]

PAGE, TRIALS, NUMBERS = "sweep.html", "trials.csv", "sweep.json"


def write_sweep_report(sweep: Sweep, records: Sequence[TrialRecord], folder: str) -> str:
    """Write ``sweep.html``, ``trials.csv`` (a line per trial) and ``sweep.json`` (settings, records, best trial) into a folder.

    Args:
        sweep: the sweep or study.
        records: of its trials, and of those of the sweeps that it includes; in any state.
        folder: path or URI to write to.

    Returns:
        The URI of the page.

    Raises:
        StorageError: the folder cannot be written to.
    """
    created = artifacts.now()
    records = [without_secrets(record) for record in records]
    best = next(iter(ranked(sweep, records)), None)
    numbers = {
        "created": created,
        "sweep": plain(settings(sweep)),
        "best": best.id if best else None,
        "trials": [plain(record) for record in records],
    }
    storage.write_bytes(storage.join(folder, TRIALS), trials_csv(sweep, records))
    storage.write_json(storage.join(folder, NUMBERS), numbers)
    uri = storage.join(folder, PAGE)
    storage.write_bytes(uri, render_sweep(sweep, records, created).encode())
    return uri


def render_sweep(sweep: Sweep, records: Records, created: str) -> str:
    """Return the page: pictures and styles inlined, no scripts, nothing loaded from elsewhere; all text is escaped."""
    environment = page_environment()
    environment.filters.update(data_uri=data_uri, metric_label=metric_label, metric_notes=metric_notes, short=short)
    records = [without_secrets(record) for record in records]
    best = next(iter(ranked(sweep, records)), None)
    metrics = shown_metrics(sweep, records)
    rows = trial_rows(sweep, records, metrics[:MOST_METRICS], best)
    stages = shared_stages(records)
    return environment.get_template("sweep.html.j2").render(
        sweep=sweep,
        created=created,
        what_ran=_what_ran(sweep, records),
        notes=_notes(sweep, records, best),
        best=best,
        best_row=next((row for row in rows if row.best), None),
        best_label=label(sweep, best) if best else "",
        best_metrics=[(n, metric_number(n, v)) for n in metrics if measured(v := final(best, n))] if best else [],
        best_only_seed=_best_only_seed(sweep, records),
        arms=arm_table(sweep, records) if records and not is_search(sweep) else None,
        rows=rows,
        metrics=metrics[:MOST_METRICS],
        more_metrics=len(metrics) > MOST_METRICS,
        figures=_figures(sweep, records),
        importance=importance(sweep, records) if is_search(sweep) and sweep.space else None,
        stages=stages,
        saved=sum(stage.saved for stage in stages),
        settings=settings_yaml(sweep),
        files=(TRIALS, NUMBERS),
    )


def _figures(sweep: Sweep, records: Records) -> list[Shown]:
    shown = []
    if is_search(sweep) and records:
        maps = field_maps(sweep, records)
        shown = [trial_curves(sweep, records), *([maps] if maps else [])]
    return [*shown, *(draw_figure(sweep, figure, records) for figure in sweep.figures)]


def is_search(sweep: Sweep) -> bool:
    """Whether a sweep looks for the best point, with one trial for each; else it compares arms, or means over seeds."""
    return not (sweep.arms or len(sweep.seeds) > 1 or sweep.include)


def _what_ran(sweep: Sweep, records: Records) -> str:
    if not records:
        return "No trial has run yet."
    trials = f"{len(records)} {'trial' if len(records) == 1 else 'trials'}: {counts(records)}."
    others = sorted({record.sweep for record in records} - {sweep.name})
    return " ".join(
        [
            trials,
            *([f"Some are from {', '.join(others)}."] if others else []),
            f"Together they ran {duration(sum(record.seconds for record in records))}.",
            f"Compared by {metric_label(sweep.metric)}, {'highest' if sweep.mode == 'max' else 'lowest'} first.",
        ]
    )


def _notes(sweep: Sweep, records: Records, best: TrialRecord | None) -> list[str]:
    """Say what is missing."""
    notes = []
    ended = finished(records)
    failed = [record for record in records if record.status == "failed"]
    if records and len(failed) == len(records):
        notes.append("All trials failed; their reasons are below the table.")
    elif failed:
        count = len(failed)
        notes.append(f"{count} {'trial' if count == 1 else 'trials'} failed; why is said below the table.")
    if records and not ended and len(failed) < len(records):
        notes.append("No trial has finished, so there is no best one yet.")
    without = len(ended) - len(ranked(sweep, ended))
    if without:
        notes.append(
            f"{without} finished {'trial has' if without == 1 else 'trials have'} no finite value of {sweep.metric} "
            f"and {'is' if without == 1 else 'are'} not ranked."
        )
    if len(records) == 1:
        notes.append("A single trial: there is nothing to compare it with.")
    elif best and len(ranked(sweep, records)) == 1:
        notes.append("Only one trial has a final value, so the best is the only one.")
    return notes


def _best_only_seed(sweep: Sweep, records: Records) -> bool:
    """Whether the best trial is the best of several seeds, which flatters it."""
    return len({record.seed for record in finished(records)}) > 1
